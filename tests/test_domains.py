"""Domains of options: one mechanism for dataclasses, constructors, mappings and commands."""

import argparse
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest

import datamodules
from callbacks import OPTIONAL, RunCheckpoints
from datamodules.tables.history import HistoryOptions
from gssr.commands.main import build_parser
from gssr.domains import (
    Count,
    Different,
    Fraction,
    Layers,
    NonNegative,
    Positive,
    Range,
    Seed,
    argument,
    belongs,
    check,
    checked,
    described,
    hints_of,
)
from gssr.network import GoalNetwork, schedules
from gssr.network.options import KINDS
from gssr.runs.trainer_options import CALL, TRAINER
from gssr.training import architectures, language_model, optimizers

DATA = [getattr(datamodules, name) for name in datamodules.__all__]
CLASSES = [
    *KINDS.values(),
    *OPTIONAL.values(),
    *DATA,
    GoalNetwork,
    HistoryOptions,
    RunCheckpoints,
    schedules.Arrival,
    schedules.Decay,
    architectures.Nano,
    architectures.Saved,
    language_model.LanguageModelTraining,
    optimizers.MuonAdamWConfig,
]


def numbers(hint: Any, inside: bool = False) -> Iterator[bool]:
    """For each number in a hint whether it has a range."""
    if get_origin(hint) is Annotated:
        base, *domains = get_args(hint)
        yield from numbers(base, inside or any(isinstance(domain, Range) for domain in domains))
    elif hint in (int, float):
        yield inside
    elif get_origin(hint) is not Literal:
        for part in get_args(hint):
            if not isinstance(part, list):
                yield from numbers(part)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_number_among_the_options_has_a_domain_and_its_default_is_in_it(kind: type) -> None:
    hints = hints_of(kind)
    assert hints or kind is architectures.Architecture
    for name, hint in hints.items():
        assert all(numbers(hint)), f"{kind.__name__}.{name} is a number without a domain; see gssr/domains.py"
    defaults = {
        name: item.default
        for base in kind.__mro__[:-1]
        if "__init__" in vars(base)
        for name, item in inspect.signature(base.__init__).parameters.items()
        if item.default is not item.empty and name in hints
    }
    check(hints, defaults)


@pytest.mark.parametrize("table", [CALL, TRAINER])
def test_every_number_of_the_trainer_has_a_domain(table: dict[str, Any]) -> None:
    assert all(all(numbers(hint)) for hint in table.values())


def test_every_number_of_the_trainer_that_lightning_knows_is_in_the_table() -> None:
    from lightning import Trainer

    known = {
        name
        for name, item in inspect.signature(Trainer.__init__).parameters.items()
        if "int" in str(item.annotation) or "float" in str(item.annotation)
    }
    # Lightning and the parser check these themselves, and train.py says so in a line.
    assert known - set(TRAINER) <= {"precision", "max_time", "plugins"}


def test_no_command_takes_a_bare_number() -> None:
    todo: list[argparse.ArgumentParser] = [build_parser()]
    while todo:
        for action in todo.pop()._actions:
            if isinstance(action, argparse._SubParsersAction):
                todo += action.choices.values()
            else:
                assert action.type not in (int, float), f"{action.option_strings} has no domain"


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [0, -5], [True, 1.0, "1", None]),
        (float, [0, 1.5], [False, "1", None]),
        (bool, [True], [1, "true"]),
        (Count, [1, 10**9], [0, -1, 10**9 + 1, 10**5000, 1.5, True]),
        (Seed, [0, 2**32 - 1], [-1, 2**32]),
        (Fraction, [0, 0.5, 1], [-0.1, 1.1, float("nan"), float("inf"), True]),
        (Positive, [1e-9], [0, -0.0, -1, float("inf"), float("nan"), 10**400]),
        (NonNegative | None, [None, 0], [-1e-9, "0"]),
        (Layers, [(0,), [3, 1]], [(), (1, 1), (-1,), (True,), 3, "12"]),
        (Annotated[list[str], Different(0)], [[], ["a"]], [["a", "a"], [1]]),
        (tuple[Fraction, Fraction], [(0, 1), [0, 1]], [(0,), (0, 1, 1), (0, 2)]),
        (dict[str, NonNegative], [{}, {"a": 0}], [{"a": -1}, [("a", 1)]]),
        (Literal["a", 1], ["a", 1], ["b", True]),
        (Any, [object()], []),
    ],
)
def test_what_belongs_to_a_domain(hint: Any, good: list[Any], bad: list[Any]) -> None:
    assert all(belongs(hint, value) for value in good)
    assert not any(belongs(hint, value) for value in bad)
    assert "\n" not in described(hint)


@checked
@dataclass(frozen=True)
class Some:
    share: Fraction = 0.5
    layers: Layers | None = None


class Base:
    def __init__(self, size: Count = 1, **others: Any) -> None:
        self.size = size


@checked
class Own(Base):
    def __init__(self, some: Some = Some(), rate: Positive = 1.0, **others: Any) -> None:  # noqa: B008
        super().__init__(**others)


def test_dataclasses_and_constructors_refuse_with_the_same_words() -> None:
    for make, message in [
        (lambda: Some(2), "share is 2; expected a number from 0 to 1"),
        (lambda: Some(layers=[]), r"layers is \[\]; expected null or a list, each a whole number from 0"),
        (lambda: Own(rate=float("nan")), "rate is nan; expected a number above 0"),
        (lambda: check(hints_of(Own), {"some": {"share": 3}}, "model."), "model.some.share is 3; expected"),
        (lambda: check(hints_of(Own), {"size": 0}), "size is 0; expected a whole number from 1"),
        (lambda: check({"text": int}, {"text": "x" * 1000}), "text is 'x+...x+'; expected a whole number"),
    ]:
        with pytest.raises(ValueError, match=message) as refused:
            make()
        assert "\n" not in str(refused.value)
    assert Some(1, layers=(1, 2)).layers == (1, 2)


def test_a_command_converts_what_it_checks() -> None:
    assert argument(Count)("12") == 12 and argument(NonNegative)("1e-3") == 0.001
    for hint, text in ((Count, "0"), (Count, "1.5"), (NonNegative, "nan"), (NonNegative, "inf"), (NonNegative, "x")):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not"):
            argument(hint)(text)
