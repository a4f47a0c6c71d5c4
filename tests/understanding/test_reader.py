"""What a sentence is assembled to, given what the head says of each mention; and the reader of the package."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gssr.sequences.conditions import Condition
from gssr.sequences.goals import GoalClass, GoalWriter
from gssr.sequences.vocabulary import Vocabulary
from gssr.understanding import reader as module
from gssr.understanding.clauses import clauses_of
from gssr.understanding.head import Answers
from gssr.understanding.mentions import SUBJECTS, TIMES, mentions
from gssr.understanding.reader import Reader, Setting, Understood
from gssr.understanding.writing import BASES, BOUNDS, KINDS, WHENS

WRITER = GoalWriter({"any": ["Be at {value}"]}, class_bounds=[GoalClass("category 3", 96, 112)])
WORDS = Vocabulary.of(("wind", "sea level"), ("kt", "m"), WRITER)
SETTING = Setting(WORDS, 418_254.0 + 6 * np.arange(9), [60.0, 1.5], [10.0, 0.5], [(10.0, 165.0), (0.0, 5.0)])


class Scripted:
    """Says what it is told: of the mention at a place in the text bound, basis, negated, when, about and at."""

    def __init__(
        self, text: str, meanings: dict[int, tuple[Any, ...]], kind: str = "goal", either: bool = False
    ) -> None:
        self.meanings, self.kind, self.either = meanings, kind, either
        self.size = 1 + len(mentions(text, WORDS, 418_254.0))

    def __call__(self, read: Any) -> Answers:
        size = self.size
        bound, basis, when = torch.zeros(1, size, len(BOUNDS)), torch.zeros(1, size, 3), torch.zeros(1, size, 3)
        negated, about, at = torch.full((1, size), -20.0), torch.zeros(1, size, size), torch.zeros(1, size, size)
        bound[..., 0] = 20
        for i, (b, basis_, negative, w, own, time) in self.meanings.items():
            bound[0, i] = 40 * torch.eye(len(BOUNDS))[BOUNDS.index(b)]
            basis[0, i, BASES.index(basis_)] = when[0, i, WHENS.index(w)] = 20
            negated[0, i] = 20 if negative else -20
            about[0, i, own] = at[0, i, time] = 20
        kind = 20 * torch.eye(3)[KINDS.index(self.kind)][None]
        return Answers(kind, torch.tensor([20.0 if self.either else -20.0]), bound, basis, negated, when, about, at)


def read(text: str, meanings: dict[int, tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, **how: Any) -> Understood:
    monkeypatch.setattr(module, "read", lambda backbone, sentences, layer: None)
    setting = how.pop("setting", SETTING)
    return Reader(None, Scripted(text, meanings, **how)).read(text, setting)  # type: ignore[arg-type]


def test_where_a_number_leads_tells_a_level_from_a_change() -> None:
    found, setting = mentions("95 kt", WORDS), SETTING
    unsure = Scripted("95 kt", {1: ("most", "fall", False, "until", 2, 0)})(None)
    unsure = unsure._replace(basis=torch.tensor([[[0.0, 0.0, 4.0]]]).repeat(1, 3, 1))  # 96 %
    (clause,), sure = clauses_of(unsure, found, setting)
    assert clause.basis == "level" and 0.9 < sure < 1  # 60 less 95 is no wind
    (clause,), _ = clauses_of(unsure, found, replace(setting, last=[120.0, 1.5]))
    assert clause.basis == "fall"
    (clause,), _ = clauses_of(unsure, found, replace(setting, seen=None))
    assert clause.basis == "fall"
    (clause,), _ = clauses_of(unsure, mentions("900 kt", WORDS), setting)
    assert clause.basis == "fall"  # both lead out
    certain = unsure._replace(basis=5 * unsure.basis)
    (clause,), _ = clauses_of(certain, found, setting)
    assert clause.basis == "fall"  # it was said


@pytest.mark.parametrize(
    ("text", "condition"),
    [("Ideally, 40 kt", "wind 30..50 kt at 48h"), ("Ideally, 40 kt less", "wind change -50..-30 kt at 48h")],
)
def test_a_number_without_a_word_for_a_change_is_a_level(
    text: str, condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "read", lambda backbone, sentences, layer: None)
    says = Scripted(text, {1: ("exact", "fall", False, "at", 2, 0)})

    def head(read: Any) -> Answers:
        answers = says(read)
        return answers._replace(basis=answers.basis / 2)  # 99.99 % sure of a fall

    assert Reader(None, head).read(text, SETTING).condition == condition  # type: ignore[arg-type]


def test_what_is_usual_decides_where_the_head_is_unsure() -> None:
    found = mentions("90 kt", WORDS)
    answers = Scripted("90 kt", {1: ("most", "level", True, "at", 2, 0)})(None)
    bound = torch.full((1, 3, len(BOUNDS)), -20.0)
    bound[..., 0] = torch.tensor([20.0, -20, 20])
    bound[0, 1, BOUNDS.index("most")], bound[0, 1, BOUNDS.index("exact")] = 0.5, 0.0
    (clause,), _ = clauses_of(answers._replace(bound=bound, negated=torch.full((1, 3), 0.5)), found, SETTING)
    assert clause.bound == "exact" and not clause.negated
    bound[0, 1, BOUNDS.index("most")] = 2.0
    (clause,), _ = clauses_of(answers._replace(bound=bound, negated=torch.full((1, 3), 2.0)), found, SETTING)
    assert clause.bound == "most" and clause.negated


CASES: list[tuple[str, dict[int, tuple[Any, ...]], str]] = [
    ("90 kt in 48 hours", {1: ("exact", "level", False, "at", 2, 3)}, "wind 80..100 kt at 48h"),
    ("90", {1: ("exact", "level", False, "at", 0, 0)}, "wind 80..100 kt at 48h"),
    ("2 m within a day", {1: ("exact", "level", False, "within", 2, 3)}, '"sea level" 1.5..2.5 m within 24h'),
    ("not 90 kt", {1: ("exact", "level", True, "at", 2, 0)}, "not wind 80..100 kt at 48h"),
    ("category 3", {1: ("exact", "level", False, "at", 0, 0)}, "wind 96..112 kt at 48h"),
    ("at least category 3", {1: ("least", "level", False, "at", 0, 0)}, "wind >= 96 kt at 48h"),
    ("below category 3", {1: ("below", "level", False, "at", 0, 0)}, "wind < 96 kt at 48h"),
    ("up 20 kt", {1: ("exact", "rise", False, "at", 2, 0)}, "wind change 10..30 kt at 48h"),
    ("up 10 kt", {1: ("exact", "rise", False, "at", 2, 0)}, "wind change 5..15 kt at 48h"),
    ("down 20 kt", {1: ("exact", "fall", False, "at", 2, 0)}, "wind change -30..-10 kt at 48h"),
    ("down 20 kt", {1: ("least", "fall", False, "at", 2, 0)}, "wind change <= -20 kt at 48h"),
    ("10 to 30 kt", {1: ("low", "fall", False, "at", 3, 0), 2: ("high", "fall", False, "at", 3, 0)},
     "wind change -30..-10 kt at 48h"),
    ("80 to 100 kt for a day", {1: ("low", "level", False, "until", 3, 4), 2: ("high", "level", False, "until", 3, 4)},
     "wind 80..100 kt until 24h"),
    ("double the wind", {1: ("exact", "level", False, "at", 2, 0)}, "wind 110..130 kt at 48h"),
    ("up by half", {1: ("exact", "rise", False, "at", 0, 0)}, "wind 80..100 kt at 48h"),
    ("down by half", {1: ("exact", "fall", False, "at", 0, 0)}, "wind 20..40 kt at 48h"),
    ("strengthen", {0: ("exact", "rise", False, "at", 0, 0)}, "wind change > 0 kt at 48h"),
    ("weaken in a day", {0: ("exact", "fall", True, "at", 0, 1)}, "not wind change < 0 kt at 24h"),
    ("90 kt in 3 steps", {1: ("above", "level", False, "at", 2, 3)}, "wind > 90 kt at 3 steps"),
    ("90 kt on 2017-09-19T12:00Z", {1: ("most", "level", False, "at", 2, 3)}, "wind <= 90 kt at 30h"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "meanings", "condition"), CASES, ids=[case[2] for case in CASES])
def test_a_clause_becomes_a_condition_that_can_be_read(
    text: str, meanings: dict[int, tuple[Any, ...]], condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read(text, meanings, monkeypatch)
    assert (found.kind, found.condition) == ("goal", condition) and found.sure > 0.99
    Condition(found.condition, WORDS.names, WORDS.units).over(SETTING.time)
    assert str(found) == f"understood as: {condition}"


def test_clauses_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {1: ("exact", "level", False, "at", 2, 0), 3: ("least", "level", False, "at", 4, 0)}
    texts = [read("90 kt, 2 m", both, monkeypatch, either=either).condition for either in (False, True)]
    assert texts == [f'wind 80..100 kt at 48h {word} "sea level" >= 2 m at 48h' for word in ("and", "or")]


def test_what_is_no_goal_says_so_and_means_no_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, said in (("none", "no goal about"), ("other", "something other than")):
        found = read("90 kt", {1: ("exact", "level", False, "at", 2, 0)}, monkeypatch, kind=kind)
        assert found.condition is None and found.kind == kind and said in str(found) and "changes nothing" in str(found)
    assert read("well", {}, monkeypatch).kind == "none"


def test_a_category_that_values_do_not_have_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read("category 7", {1: ("exact", "level", False, "at", 0, 0)}, monkeypatch)
    assert found.kind == "other" and "'category 7'" in str(found) and "category 3" in str(found)


def test_what_was_never_seen_lies_outside_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    one = ("exact", "level", False, "at", 2, 0)
    assert "outside anything seen, wind 10 to 165 kt" in str(read("900 kt", {1: one}, monkeypatch))
    assert "change of wind" in str(read("up 400 kt", {1: ("exact", "rise", False, "at", 2, 0)}, monkeypatch))
    assert read("172 kt", {1: one}, monkeypatch).outside is None  # 162 is within its tolerance


def test_what_cannot_be_asked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    never = Setting(WORDS, SETTING.time, [np.nan, 1.0], SETTING.tolerance)
    double = read("double the wind", {1: ("exact", "level", False, "at", 2, 0)}, monkeypatch, setting=never)
    assert double.kind == "goal" and double.condition is None and "never observed" in str(double)
    past = read("90 kt on 2017-09-01", {1: ("exact", "level", False, "at", 2, 3)}, monkeypatch)
    assert past.condition is None and "before the last observation" in str(past)


def test_a_goal_without_a_time_holds_at_its_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {1: ("exact", "level", False, "at", 2, 0)}
    early = Setting(WORDS, SETTING.time, SETTING.last, SETTING.tolerance, step=3)
    assert read("90 kt", one, monkeypatch, setting=early).condition == "wind 80..100 kt at 18h"
    months = Setting(WORDS, np.array([0.0, 744, 1416]), SETTING.last, SETTING.tolerance)
    assert read("90 kt", one, monkeypatch, setting=months).condition == "wind 80..100 kt at 2 steps"


@pytest.mark.parametrize("seed", range(150))
def test_whatever_the_head_says_the_reader_answers(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = (
        "from category 3 to 120 kt, double the sea level, or 20 percent less within 2 days",
        "between half of the wind and 90 kt at 2017-09-19, then category 3 for 4 steps",
        "up 10 to 20 kt or category 3 to category 3 by the end",
    )
    generator = torch.Generator().manual_seed(seed)
    text = texts[seed % len(texts)]
    size = 1 + len(mentions(text, WORDS, 418_254.0))
    shapes = {"kind": (1, 3), "either": (1,), "bound": (1, size, len(BOUNDS)), "basis": (1, size, 3)}
    shapes |= {"negated": (1, size), "when": (1, size, 3), "about": (1, size, size), "at": (1, size, size)}
    answers = {name: 4 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    kinds = [None, *(mention.kind for mention in mentions(text, WORDS, 418_254.0))]
    for name, allowed in (("about", SUBJECTS), ("at", TIMES)):
        answers[name][..., [kind is not None and kind not in allowed for kind in kinds]] = -1e9
    monkeypatch.setattr(module, "read", lambda backbone, sentences, layer: None)
    found = Reader(None, lambda read: Answers(**answers)).read(text, SETTING)  # type: ignore[arg-type]
    if found.condition is not None:
        Condition(found.condition, WORDS.names, WORDS.units)
    assert 0 <= found.sure <= 1 and str(found)
