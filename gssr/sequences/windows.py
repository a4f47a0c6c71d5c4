"""Windows of one length cut from a series without crossing a gap."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from gssr.sequences.record import Record


def check_window(context: int, horizon: int, stride: int, goal_step: int | None = None) -> None:
    """Raises ValueError unless C, H and the stride are at least 1 and C <= goal_step < C + H."""
    for name, given in (("context", context), ("horizon", horizon), ("stride", stride)):
        if given < 1:
            raise ValueError(f"{name} is {given}; expected at least 1 step")
    if goal_step is not None and not context <= goal_step < context + horizon:
        raise ValueError(
            f"goal_step is {goal_step}; steps count from 0 and a goal must hold in the horizon, from step {context} to "
            f"{context + horizon - 1} (context {context}, horizon {horizon}); leave it out for the horizon's end"
        )


def window_starts(time: np.ndarray, length: int, stride: int, step: float) -> np.ndarray:
    """First indices of all windows of `length` rows whose times are `step` apart throughout, (N,) int64 ascending.

    `time` (T) in hours like `step`. Within each unbroken run every `stride`-th window counts, from the run's first row.

    Raises ValueError for a length, stride or step that is not positive.
    """
    if length < 1 or stride < 1 or not step > 0:
        raise ValueError(f"windows need length, stride and step above 0; got {length}, {stride} and {step}")
    breaks = np.flatnonzero(~np.isclose(np.diff(time), step, rtol=0, atol=1e-6 * step)) + 1
    edges = [0, *breaks.tolist(), len(time)]
    runs = [np.arange(a, b - length + 1, stride) for a, b in pairwise(edges)]
    return np.concatenate(runs).astype(np.int64)


def cut(
    record: Record, context: int, horizon: int, stride: int = 1, step: float = 1.0, goal_step: int | None = None
) -> list[Record]:
    """Windows of T = context + horizon steps of a whole series, without goals and with goal_start = context - 1.

    `step` is the regular time between steps in hours; `goal_step` counts within the window, None means its last step.

    Raises ValueError as `check_window` does.
    """
    check_window(context, horizon, stride, goal_step)
    length = context + horizon
    windows = []
    for start in window_starts(record.time, length, stride, step).tolist():
        part = slice(start, start + length)
        windows.append(
            Record(
                series=record.series,
                time=record.time[part],
                value=record.value[part],
                text=record.text[part],
                goal_start=context - 1,
                goal_step=length - 1 if goal_step is None else goal_step,
                step_label=None if record.step_label is None else record.step_label[part],
            )
        )
    return windows


def rows_once(windows: list[Record]) -> np.ndarray:
    """The value rows of all windows, (N, Y), each step of a series once although windows overlap."""
    rows = {
        (window.series, time): value
        for window in windows
        for time, value in zip(window.time, window.value, strict=True)
    }
    return np.stack(list(rows.values()))
