import numpy as np
import pytest

from gssr.sequences.record import Record
from gssr.sequences.windows import check_window, cut, rows_once, window_starts


def broken_series(generator: np.random.Generator, steps: int) -> Record:
    hours = np.cumsum(generator.choice([6.0, 6, 6, 6, 6, 12, 3, 72], size=steps))
    value = np.stack([hours, generator.normal(size=steps)], axis=1)
    text = [f"t{i}" for i in range(steps)]
    return Record("s", hours, value, text, step_label=text)


@pytest.mark.parametrize("length", [1, 2, 5, 9])
def test_all_windows_without_a_gap_are_found_and_no_other(length):
    generator = np.random.default_rng(length)
    for steps in (1, 3, 8, 40, 120):
        time = broken_series(generator, steps).time
        naive = [
            s for s in range(steps - length + 1) if all(time[t + 1] - time[t] == 6 for t in range(s, s + length - 1))
        ]
        assert window_starts(time, length, 1, 6.0).tolist() == naive
        run = [0] * steps  # first row of the unbroken run that a row belongs to
        for t in range(1, steps):
            run[t] = run[t - 1] if time[t] - time[t - 1] == 6 else t
        for stride in (2, 3):
            assert window_starts(time, length, stride, 6.0).tolist() == [s for s in naive if (s - run[s]) % stride == 0]


def test_windows_carry_their_own_rows_and_the_goal_steps():
    record = broken_series(np.random.default_rng(0), 200)
    windows = cut(record, context=2, horizon=3, step=6.0)
    assert len(windows) > 10
    for window in windows:
        first = int(np.searchsorted(record.time, window.time[0]))
        rows = slice(first, first + 5)
        assert (
            np.array_equal(window.value, record.value[rows]) and window.text == record.text[rows] == window.step_label
        )
        assert np.all(np.diff(window.time) == 6)
        assert (window.goal, window.goal_start, window.goal_step) == (None, 1, 4)
    assert {w.goal_step for w in cut(record, 2, 3, step=6.0, goal_step=2)} == {2}


def test_rows_once_counts_an_overlapped_step_once():
    record = broken_series(np.random.default_rng(1), 100)
    windows = cut(record, 2, 2, step=6.0)
    covered = sorted({t for window in windows for t in window.time.tolist()})
    assert sorted(rows_once(windows)[:, 0].tolist()) == covered
    assert len(covered) < sum(len(window) for window in windows)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((8, 0, 1), "horizon"),
        ((0, 8, 1), "context"),
        ((8, 8, -1), "stride"),
        ((8, 8, 1, 7), "goal_step"),
        ((8, 8, 1, 16), "15"),
    ],
)
def test_windows_that_cannot_be_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        check_window(*arguments)
    with pytest.raises(ValueError, match=word):
        context, horizon, stride, *goal_step = arguments
        cut(broken_series(np.random.default_rng(0), 9), context, horizon, stride, 6.0, *goal_step)


def test_window_starts_refuses_a_step_of_zero():
    with pytest.raises(ValueError, match="step"):
        window_starts(np.arange(4.0), 2, 1, 0.0)
