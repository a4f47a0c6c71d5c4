"""Windows of a store, cut when they are read, and the split of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.tables.facts import iso
from datamodules.tables.goals import GoalNotes
from datamodules.tables.grid import Grid
from datamodules.tables.marks import Marks
from datamodules.tables.splits import Segments, everything, first_after
from datamodules.tables.stamps import LOOK, grid_of_stamps
from datamodules.tables.store import ROWS, Store
from gssr.sequences.phrases import time_spans
from gssr.sequences.record import Record

LEAST_ROWS = 0.5  # share of a window's steps that must have a row


@dataclass
class Cutter:
    """Cuts windows from a store; `text_lag` counts steps, `notes` are goals that the user gives."""

    store: Store
    grid: Grid
    context: int
    horizon: int
    stride: int
    goal_step: int | None
    text_lag: int
    notes: GoalNotes | None
    _origins: dict[int, float] = field(default_factory=dict, init=False, repr=False)
    _numbers: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def read(self, series: int, position: int, length: int, first: int, end: int) -> Record:
        """The window of `length` steps from a position of a series; its rows are among first to end.

        A text stands at the step at which it is known, `text_lag` after its row's. Steps without a row are missing.
        """
        store, origin = self.store, self.origin(series)
        begin, stop = max(int(store.offsets[series]), first - self.text_lag), min(end, int(store.offsets[series + 1]))
        at = self.grid.position(store.read("time", begin, stop), origin) - position
        value = np.full((length, len(store.facts.columns)), np.nan, np.float32)
        inside = (at >= 0) & (at < length)
        value[at[inside]] = store.read("value", begin, stop)[inside]
        text: list[str | None] = [None] * length
        known = at + self.text_lag
        for row in np.flatnonzero((known >= 0) & (known < length)).tolist() if store.facts.has_text else ():
            text[known[row]] = store.strings("text", begin + row, begin + row + 1)[0]
        start = min(self.context, length - 1) - 1
        record = Record(
            series=store.facts.series[series],
            time=self.grid.time(position + np.arange(length), origin),
            value=value,
            text=text,
            goal_start=start,
            goal_step=length - 1 if self.goal_step is None else min(self.goal_step, length - 1),
        )
        return record if self.notes is None else self.notes.give(record, store, begin, at)

    def origin(self, series: int) -> float:
        """The time in hours from which the steps of a series count."""
        if series not in self._origins:
            first, end = self.store.offsets[series : series + 2].tolist()
            self._origins[series] = self.grid.origin(self.store.read("time", first, min(end, first + LOOK)))
        return self._origins[series]

    def a_season_before(self, window: Record, period: int) -> Tensor:
        """The values `period` steps (a multiple, where the horizon is longer) before each step of a window's horizon.

        (H, Y), NaN for a step without a row.
        """
        series, length, steps = self.number(window.series), window.goal_start + 1, len(window)
        first, end = self.store.offsets[series : series + 2].tolist()
        row = first_after(self.store, first, end, float(window.time[0]), inclusive=True)
        position = int(self.grid.position(window.time[:1], self.origin(series))[0])
        ahead = np.arange(steps - length)
        at = length + ahead - period * (ahead // period + 1)
        # A step has one row at most, which may lie beside it.
        begin, stop = max(first, row + int(at.min()) - 1), min(end, row + steps + 1)
        value = np.full((len(ahead), len(self.store.facts.columns)), np.nan, np.float32)
        if stop > begin:
            found = self.positions(series, begin, stop) - position
            nearest = np.searchsorted(found, at).clip(max=len(found) - 1)
            known = found[nearest] == at
            value[known] = self.store.read("value", begin, stop)[nearest[known]]
        return torch.from_numpy(value)

    def number(self, series: str) -> int:
        """The number of a series by its name."""
        if not self._numbers:
            self._numbers = {name: number for number, name in enumerate(self.store.facts.series)}
        return self._numbers[series]

    def positions(self, series: int, first: int, end: int) -> np.ndarray:
        return self.grid.position(self.store.read("time", first, end), self.origin(series))

    def check(self, name: str) -> list[str]:
        """Raises ValueError for two rows in one step; returns warnings about rows that lie beside the grid."""
        moved, farthest = 0, 0.0
        for series, first, end in everything(self.store):
            for start in range(first, end, ROWS):
                begin, stop = max(first, start - 1), min(end, start + ROWS)
                time = self.store.read("time", begin, stop)
                at = self.grid.position(time, self.origin(series))
                same = np.flatnonzero(np.diff(at) < 1)
                if len(same):
                    a, b = (iso(moment, self.store.facts.clock.zone) for moment in time[same[0] : same[0] + 2])
                    raise ValueError(
                        f"series {self.store.facts.series[series]!r} of {name} has two rows in one step of "
                        f"{self.grid}: {a} and {b}; give a shorter step, or merge rows first (pandas: "
                        f"table.resample('{self.grid.alias}').mean())"
                    )
                off = np.abs(time - self.grid.time(at, self.origin(series)))
                moved += int((off[start - begin :] > self.grid.tolerance).sum())
                farthest = max(farthest, float(off.max()))
        clock, notes = self.store.facts.clock, []
        if clock.offsets and (self.grid.months or self.grid.week or self.grid.hours >= 24):
            advice = f"; give time_zone: {clock.likely} to count those of that clock" if clock.likely else ""
            notes = [f"times of {name} have the offsets {' and '.join(clock.offsets)}; days are those of UTC{advice}"]
        if not moved:
            return notes
        return [
            *notes,
            f"{moved} rows of {name} lie beside the grid of {self.grid}; they were moved, by at most "
            f"{time_spans(farthest)[0]}",
        ]

    def length(self, segment: tuple[int, int, int]) -> int:
        """Steps of a segment's windows: C + H, all steps of a shorter segment, or 0 if none is left for a horizon."""
        series, first, end = segment
        if first == end:
            return 0
        span = self.positions(series, end - 1, end)[0] - self.positions(series, first, first + 1)[0] + 1
        length = int(min(self.context + self.horizon, span))
        return length if length > self.context else 0

    def begins(self, segment: tuple[int, int, int], length: int) -> Iterator[np.ndarray]:
        """Whether a window of `length` steps begins at each row of a segment, bool, some ten thousand rows at a time.

        A window lies within the segment and begins a multiple of the stride after its start. At least half of its steps
        have a row, and its context and its horizon have an observed value.
        """
        series, first, end = segment
        earliest, latest = self.positions(series, first, first + 1)[0], self.positions(series, end - 1, end)[0]
        for start in range(first, end, ROWS):
            stop = min(end, start + ROWS + length)
            at = self.positions(series, start, stop)
            seen = np.concatenate([[0], np.cumsum(~np.isnan(self.store.read("value", start, stop)).all(1))])
            own = at[: min(ROWS, end - start)]
            rows = np.arange(len(own))
            middle, last = np.searchsorted(at, own + self.context), np.searchsorted(at, own + length)
            good = (own + length - 1 <= latest) & ((own - earliest) % self.stride == 0)
            good &= (seen[middle] > seen[rows]) & (seen[last] > seen[middle]) & (last - rows >= LEAST_ROWS * length)
            yield good


class TableWindows(Sequence[Record]):
    """The windows of some segments, read from disk one by one; memory holds one bit a row.

    most: Keep so many windows, evenly spaced; None keeps all.
    """

    def __init__(self, cutter: Cutter, segments: Segments, most: int | None = None) -> None:
        self.cutter = cutter
        sized = [(*segment, length) for segment in segments if (length := cutter.length(segment))]
        self.segments = np.array(sized, np.int64).reshape(-1, 4)
        self.edges = np.concatenate([[0], np.cumsum(self.segments[:, 2] - self.segments[:, 1])])
        self.owners: set[int] = set()  # series that have a window
        self.marks = Marks(self._begins(sized))
        self.size = len(self.marks) if most is None else min(most, len(self.marks))

    def _begins(self, sized: list[tuple[int, int, int, int]]) -> Iterator[np.ndarray]:
        for *segment, length in sized:
            for good in self.cutter.begins(tuple(segment), length):
                if good.any():
                    self.owners.add(segment[0])
                yield good

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        place = self.marks.find(index % len(self) * len(self.marks) // len(self))
        part = int(np.searchsorted(self.edges, place, "right")) - 1
        series, first, end, length = self.segments[part].tolist()
        row = first + place - int(self.edges[part])
        position = int(self.cutter.positions(series, row, row + 1)[0])
        return self.cutter.read(series, position, length, row, min(end, row + length))


class LastWindows(Sequence[Record]):
    """One window of each series with a value in its context, which ends at the last row at or before `until`.

    The horizon may lie after the end of the table.
    """

    def __init__(self, cutter: Cutter, segments: Segments, until: float) -> None:
        self.cutter = cutter
        self.ends: list[tuple[int, int]] = []
        for series, first, end in segments:
            row = first_after(cutter.store, first, end, until) - 1
            if row < first:
                continue
            begin = max(int(cutter.store.offsets[series]), row - cutter.context + 1)
            at = cutter.positions(series, begin, row + 1)
            if not np.isnan(cutter.store.read("value", begin, row + 1)[at > at[-1] - cutter.context]).all():
                self.ends.append((series, row))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]
        cutter, (series, row) = self.cutter, self.ends[index]
        length = cutter.context + cutter.horizon
        position = int(cutter.positions(series, row, row + 1)[0]) - cutter.context + 1
        first = max(int(cutter.store.offsets[series]), row - cutter.context + 1)
        return cutter.read(series, position, length, first, row + cutter.horizon + 1)


def grid_of(store: Store, options: Any) -> Grid:
    """The grid of the option `step`, or the one that fits the gaps between the rows of the first series.

    Some ten thousand rows are enough to see it. Raises ValueError where no grid fits, or no series has two rows.
    """
    if options.time_column is None or options.time_unit == "step":
        return Grid(1.0) if options.step is None else Grid.of(options.step)
    found: list[np.ndarray] = []
    for _, first, end in everything(store)[:1000]:
        found.append(store.read("time", first, min(end, first + ROWS)))
        if sum(map(len, found)) > ROWS:
            break
    return grid_of_stamps(found, options.step, store.facts.clock.zone)
