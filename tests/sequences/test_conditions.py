"""Conditions are what they say: against a slow evaluator that walks step by step, and with every mistake marked."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gssr.sequences.conditions import Condition

NAMES, UNITS = ["wind", "pressure", "sea level"], ["kt", "hPa", ""]
WRITTEN = ["wind", "'pressure'", '"sea level"']
HOURS = [6.0 * step for step in range(6)]
Slow = Callable[[list[list[float]], list[float]], bool]  # one path (H, Y) and the last values


@st.composite
def single(draw: st.DrawFn) -> tuple[str, Callable[[list[float], list[float]], bool]]:
    """A question about the values of one step, as text and as a function."""
    column, number = draw(st.integers(0, 2)), draw(st.integers(-6, 6)) / 2
    name = WRITTEN[column]
    kind = draw(st.sampled_from([">=", "<=", ">", "<", "..", "+", "-"]))
    unit = draw(st.sampled_from(["", f" {UNITS[column]}"])) if UNITS[column] else ""
    if kind in "+-":
        size = abs(number)
        up = kind == "+"
        return f"{name} {kind}{size}{unit}", lambda y, last: (y[column] - last[column]) * (1 if up else -1) >= size
    change = draw(st.booleans())
    name += " change" if change else ""

    def measured(y: list[float], last: list[float]) -> float:
        return y[column] - last[column] if change else y[column]

    if kind == "..":
        high = number + draw(st.integers(0, 4)) / 2
        return (
            f"{name} {number}..{high}{unit}",
            lambda y, last: not (measured(y, last) < number or measured(y, last) > high),
        )
    return f"{name} {kind} {number}{unit}", lambda y, last: {
        ">=": measured(y, last) >= number, "<=": measured(y, last) <= number,
        ">": measured(y, last) > number, "<": measured(y, last) < number,
    }[kind]  # fmt: skip


def joined(parts: st.SearchStrategy) -> st.SearchStrategy:
    """Text and function of `not`, `and` and `or` of parts, each in parentheses."""
    pairs = st.tuples(st.sampled_from(["and", "or", "not"]), parts, parts)

    def join(drawn):
        word, (text, one), (other_text, other) = drawn
        if word == "not":
            return f"not ({text})", lambda *given: not one(*given)
        if word == "and":
            return f"({text}) AND ({other_text})", lambda *given: one(*given) and other(*given)
        return f"({text}) or ({other_text})", lambda *given: one(*given) or other(*given)

    return pairs.map(join)


@st.composite
def timed(draw: st.DrawFn) -> tuple[str, Slow]:
    text, holds = draw(single() | joined(single()))
    steps = draw(st.integers(1, 5))
    spoken = draw(
        st.sampled_from([f"{6 * steps}h", f"{6 * steps} hours", f"{steps}", f"{steps} steps", f"{360 * steps} min"])
    )
    word = draw(st.sampled_from(["at", "within", "by", "until"]))

    def slow(path: list[list[float]], last: list[float]) -> bool:
        found = 0
        for step in range(steps):
            found += holds(path[step], last)
        return holds(path[steps - 1], last) if word == "at" else found == steps if word == "until" else found > 0

    return f"({text}) {word} {spoken}", slow


@settings(max_examples=200, deadline=None)
@given(st.recursive(timed(), joined, max_leaves=4), st.integers(0, 2**32 - 1))
def test_a_condition_is_what_a_slow_walk_along_the_path_finds(condition: tuple[str, Slow], seed: int) -> None:
    text, slow = condition
    g = random.Random(seed)
    # Halves are exact in float32, so that ends of ranges are met.
    paths = [[[g.randint(-8, 8) / 2 for _ in NAMES] for _ in HOURS[1:]] for _ in range(8)]
    last = [g.randint(-4, 4) / 2 for _ in NAMES]
    found = Condition(text, NAMES, UNITS).over(HOURS)(torch.tensor(paths), torch.tensor(last))
    assert found.tolist() == [slow(path, last) for path in paths], text


def test_and_binds_closer_than_or_and_not_closest() -> None:
    path = torch.tensor([[[1.0], [5.0]]])
    ask = {text: Condition(text, ["y"]).over([0, 1, 2])(path, torch.zeros(1)).item() for text in (
        "y > 0 at 1 or y > 0 at 1 and y > 9 at 1", "not y > 9 at 1 or y > 0 at 1", "not y > 0 at 1 and y > 9 at 1",
    )}  # fmt: skip
    assert list(ask.values()) == [True, True, False]


def test_together_in_parentheses_means_at_the_same_step() -> None:
    path, last = torch.tensor([[[5.0, 0.0], [0.0, 5.0]]]), torch.zeros(2)
    both = Condition("(a > 3 and b > 3) within 2", ["a", "b"]).over([0, 1, 2])
    each = Condition("a > 3 within 2 and b > 3 within 2", ["a", "b"]).over([0, 1, 2])
    assert not both(path, last).item() and each(path, last).item()


def hours_of(*days: tuple[int, ...]) -> list[float]:
    return [(datetime(*day) - datetime(1970, 1, 1)) / timedelta(hours=1) for day in days]


MONTH_ENDS = hours_of((2024, 1, 31), (2024, 2, 29), (2024, 3, 31), (2024, 4, 30))
FRIDAY = hours_of((2024, 5, 31), (2024, 6, 3), (2024, 6, 4))
CLOCK = [0.0, 24.0, 47.0, 71.0]  # a day of 23 hours


@pytest.mark.parametrize(
    ("time", "when", "steps"),
    [
        (MONTH_ENDS, "at 1 month", [1]), (MONTH_ENDS, "at 1Q", [3]), (MONTH_ENDS, "within 2M", [1, 2]),
        (FRIDAY, "at 3 days", [1]), (FRIDAY, "within 3d", [1]), (CLOCK, "at 2 days", [2]), (CLOCK, "at 3d", [3]),
        (HOURS, "within 13h", [1, 2]), (HOURS, "within 35h", [1, 2, 3, 4, 5]), (HOURS, "at 1 day", [4]),
    ],
)  # fmt: skip
def test_times_find_their_steps(time: list[float], when: str, steps: list[int]) -> None:
    event = Condition(f"y > 0 {when}", ["y"]).over(time)
    alone = torch.eye(len(time) - 1)[..., None]  # path i is above 0 at step i + 1 only
    assert (event(alone, torch.zeros(1)).nonzero()[:, 0] + 1).tolist() == steps


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", None, "the condition is empty"),
        ("  ", None, "the condition is empty"),
        ("wnd >= 3 at 4", "wnd", "there is no value 'wnd'.*did you mean 'wind'"),
        ("wind >= 96", "wind >= 96", "names no time; add `at`, `within` or `until`"),
        ("wind >= 9 and pressure <= 9 at 4", "wind >= 9", "names no time, and another part has one"),
        ("wind = 96 at 4", "=", "give a range, such as 95..97"),
        ("wind 96 at 4", "96", "a number alone is no condition"),
        ("wind change 96 at 4", "96", "a number alone is no condition"),
        ("wind 112..96 at 4", "112..96", "the range ends below its start"),
        ("wind >= 96 km/h at 4", "km/h", "'wind' is in kt"),
        ("'sea level' >= 9 m at 4", "m", "'sea level' is without a unit"),
        ("wind >= at 4", "a", "expected a number"),
        ("wind >= 1e999 at 4", "1e999", "expected a number"),
        ("wind >= nan at 4", "n", "expected a number"),
        ("(wind >= 96 at 4", " ", "closing parenthesis"),
        ("wind >= 96 at 4)", ")", "expected `and`, `or` or the end"),
        ("(wind >= 96 at 4) at 5", "at", "a second time"),
        ("wind >= 96 at", " ", "expected a length of time"),
        ("wind >= 96 at 0", "0", "this is no length of time"),
        ("wind >= 96 at 1.5 steps", "1.5 steps", "this is no length of time"),
        ("wind >= 96 at 0.5 months", "0.5 months", "this is no length of time"),
        ("wind >= 96 at 2 fortnights", "2 fortnights", "this is no length of time"),
        ("wind >= 96 at 4 and", " ", "expected a value"),
        ("not", " ", "expected a value"),
        ("wind >= 96 at 13h", "wind >= 96 at 13h", "no step at this time; the nearest lies at 12 h and 18 h"),
        ("wind >= 96 within 3h", "wind >= 96 within 3h", "no step at this time; the nearest lies at 6 h"),
        ("wind >= 96 until 36h", "wind >= 96 until 36h", "beyond the horizon of 5 steps, 30 h"),
        ("wind >= 96 at 6", "wind >= 96 at 6", "beyond the horizon of 5 steps"),
        ("wind >= 96 at 1 month", "wind >= 96 at 1 month", "beyond the horizon"),
        ("(" * 1000, "(", "more than 32 parentheses"),
        ("not " * 100 + "wind >= 9 at 4", "n", "more than 32 parentheses or `not`"),
        ("wind >= 9 at 4 and " * 1000, None, "characters; expected at most"),
        ("__import__('os')", "__import__", "expected a value|there is no value"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_and_its_place_marked(text: str, place: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Condition(text, NAMES, UNITS).over(HOURS)
    if place is not None:
        _, line, marks = str(error.value).split("\n")
        assert line.ljust(len(marks))[marks.index("^") : len(marks)].ljust(1) == place or len(place) > 72


def test_a_change_of_what_was_never_observed_is_refused() -> None:
    event = Condition("wind +30 within 24h", NAMES).over(HOURS)
    paths = torch.zeros(2, 5, 3)
    with pytest.raises(ValueError, match="never observed"):
        event(paths, torch.tensor([torch.nan, 0.0, 0.0]))
    assert not event(paths, torch.tensor([0.0, torch.nan, 0.0])).any()
    with pytest.raises(ValueError, match="no numbers"):
        event(paths * torch.nan, torch.zeros(3))
    with pytest.raises(ValueError, match=r"expected \(S, 5, 3\)"):
        event(paths[:, :4], torch.zeros(3))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="wind pressure'\"0123456789.<>=+-()hatbyuntilorandnot", max_size=60))
def test_no_text_gives_anything_but_an_answer_or_a_value_error(text: str) -> None:
    try:
        event = Condition(text, NAMES, UNITS).over(np.array(HOURS))
    except ValueError:
        return
    assert event(torch.zeros(2, 5, 3), torch.zeros(3)).dtype == torch.bool
