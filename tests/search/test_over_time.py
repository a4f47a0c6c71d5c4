"""Chances over time are those of each history by itself, and what came true is read off the later values."""

import numpy as np
import pytest

from gssr.search.beliefs import chance, over_time
from gssr.search.beliefs.over_time import moments
from gssr.sequences.collate import collate
from gssr.sequences.record import Record
from tests.search.test_rejection import Walk

VALUES = [0.0, 1.0, 4.0, np.nan, 6.0, 3.0]
H = 2


def whole(values: list[float] = VALUES) -> Record:
    value = np.full((len(values) + H, 1), np.nan, np.float32)
    value[: len(values), 0] = values
    text = [f"text {step}" for step in range(len(values))] + [None] * H
    return Record("a", 6.0 * np.arange(len(value)), value, text, goal_start=len(values) - 1)


def test_each_chance_is_that_of_the_history_cut_there() -> None:
    events = ["y >= 5 within 12h", "y +2 at 2"]
    found = list(over_time(Walk(), whole(), events, context=3, budget=500, seed=1))
    assert [moment.time for moment in found] == [6.0, 12.0, 18.0, 24.0, 30.0]
    for now, moment in zip(range(1, 6), found, strict=True):
        steps = min(3, now + 1)  # the first histories are shorter
        value = np.full((steps + H, 1), np.nan, np.float32)
        value[:steps, 0] = VALUES[now + 1 - steps : now + 1]
        alone = Record("a", 6.0 * np.arange(now + 1 - steps, now + 3), value, [None] * len(value), goal_start=steps - 1)
        assert moment.chances == chance(Walk(), collate([alone]), events, budget=500, seed=1)[0]


def test_what_came_true_is_told_where_values_decide_it() -> None:
    found = list(over_time(Walk(), whole(), ["y >= 5 within 2", "y >= 4 at 1", "y +2 until 2"], context=3, budget=10))
    # Behind 1 come 4 and a gap, behind 4 a gap and 6, behind the gap 6 and 3, behind 6 a 3 and the end.
    assert [moment.came_true[0] for moment in found] == [None, True, True, None, None]
    assert [moment.came_true[1] for moment in found] == [True, None, True, False, None]
    assert [moment.came_true[2] for moment in found] == [None, None, False, False, None]


def test_nothing_of_what_came_is_known() -> None:
    for known, came in moments(whole(), 3)[1:]:
        assert np.isnan(known.value[3:]).all() and known.text[3:] == [None] * H
        np.testing.assert_array_equal(known.value[:3], came.value[:3])
        assert known.text[:3] == came.text[:3] and known.goal_start == 2


def test_a_context_without_values_is_no_moment() -> None:
    assert [known.goal_start for known, _ in moments(whole(), 40)] == [1, 2, 3, 4, 5]
    found = moments(whole([1.0, np.nan, np.nan, np.nan, 2.0]), 3)
    assert [known.time[known.goal_start] for known, _ in found] == [6.0, 12.0, 24.0]


def test_an_event_beyond_the_horizon_is_refused_before_the_first_moment() -> None:
    with pytest.raises(ValueError, match="beyond the horizon"):
        over_time(Walk(), whole(), ["y >= 5 within 90h"], context=3)
