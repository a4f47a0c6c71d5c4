"""What becomes of each series of a table that holds several: one line names those that are not used in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow.compute as pc

from datamodules.tables import cells
from datamodules.tables.build import Columns
from datamodules.tables.grid import Grid, length
from datamodules.tables.source import Source
from datamodules.tables.splits import Segments, everything
from datamodules.tables.stamps import grid_of_stamps
from datamodules.tables.windows import Cutter, LastWindows, TableWindows
from gssr.shown import listed, quoted

FEWEST_GAPS = 3  # between rows, from which the step of a series is seen
FAR = 0.25  # share of a step by which a gap may differ from it
ALIKE, MOST = 0.15, 0.9  # the same between gaps of a series with a step, such as months, and the share of such gaps
NAMES_OF_SERIES = {"id", "unique_id", "item_id", "series_id", "ts_id", "series", "item"}


@dataclass
class Panel:
    """Series of a table by what becomes of them; `other_step` maps those that are left out to their own steps.

    by_series: each series is in one part only.
    """

    other_step: dict[int, Grid]
    few_rows: list[int]
    ends_early: list[int]
    begins_late: list[int]
    by_series: bool

    @classmethod
    def of(cls, cutter: Cutter, windows: Mapping[str, TableWindows], by_series: bool) -> Panel:
        """From the windows of "train", "val" and "test"."""
        trained, val, tested = (windows[split].owners for split in ("train", "val", "test"))
        scored = val | tested
        unused = [segment for segment in everything(cutter.store) if segment[0] not in trained | scored]
        other_step = {segment[0]: step for segment in unused if (step := _other_step(cutter, segment)) is not None}
        few = [series for series, _, _ in unused if series not in other_step]
        early, late = (set(), set()) if by_series else (trained - tested, scored - trained)
        return cls(other_step, few, sorted(early), sorted(late), by_series)

    def line(self, cutter: Cutter, path: str) -> str | None:
        """The line for the user, None where all series are used in full."""
        names = cutter.store.facts.series

        def shown(series: Sequence[int]) -> str:
            return listed(series, show=lambda one: quoted(names[one]))

        def with_step(one: int) -> str:
            return f"{quoted(names[one])} ({self.other_step[one]})"

        few = "in no window" if self.by_series else "only predicted"
        parts = {
            f"left out, since their step is not {cutter.grid} (give them a table of their own)": listed(
                list(self.other_step), show=with_step
            ),
            f"{few}, with too few rows for {cutter.context} steps and a horizon": shown(self.few_rows),
            "trained on and predicted, but not tested, since they end too early": shown(self.ends_early),
            "scored and predicted, but not trained on, since they begin too late": shown(self.begins_late),
        }
        told = [f"{what}: {those}" for what, those in parts.items() if those]
        return f"of the {len(names):,} series of {path}, {'; '.join(told)}" if told and len(names) > 1 else None


def not_predicted(windows: LastWindows, segments: Segments) -> str | None:
    """A line that names the series of some segments that have no window, None where all have."""
    known, names = {series for series, _ in windows.ends}, windows.cutter.store.facts.series
    absent = [names[series] for series, _, _ in segments if series not in known]
    steps = f"the last {windows.cutter.context} steps"
    return f"not predicted, since nothing is known of {steps}: {listed(absent)}" if absent else None


def _other_step(cutter: Cutter, segment: tuple[int, int, int]) -> Grid | None:
    """The step of a series no two rows of which are neighbours on the grid, where it has a step of its own."""
    series, first, end = segment
    if end - first <= FEWEST_GAPS or np.diff(cutter.positions(series, first, end)).min() < 2:
        return None
    time = cutter.store.read("time", first, end)
    gaps = np.diff(time)
    is_regular = (np.abs(gaps / np.median(gaps) - 1) <= ALIKE).mean() >= MOST
    return grid_of_stamps([time], zone=cutter.store.facts.clock.zone) if is_regular else None


def check_step(cutter: Cutter, segment: tuple[int, int, int], path: str) -> None:
    """Raises ValueError for a history whose rows do not lie one step of the grid, that of training, apart."""
    time, grid = cutter.store.read("time", *segment[1:]), cutter.grid
    gaps, origin = np.diff(time), grid.origin(time)
    at = grid.position(time, origin)
    steps = gaps / (grid.time(at[:-1] + 1, origin) - grid.time(at[:-1], origin))
    in_one = (np.diff(at) < 1).mean() > 1 - MOST
    if not in_one and np.median(steps) >= 1 - FAR and (np.abs(steps - 1) <= FAR).any():
        return
    try:
        own = str(grid_of_stamps([time], zone=cutter.store.facts.clock.zone))
    except ValueError:
        own = length(float(np.median(gaps)))
    raise ValueError(
        f"the rows of {path} lie {own} apart, and the network was trained on steps of {grid}; give rows of that step, "
        "with an empty cell where nothing is known"
    )


def column_of_series(source: Source, columns: Columns, chunks: int | None = None) -> str | None:
    """A column that is named like one of series and holds several of them, each with several rows; None without one.

    A table that names its series has none. chunks: how many are looked at, None: all.
    """
    for name in source.columns if columns.series is None else ():
        if name.lower() not in NAMES_OF_SERIES or name in columns.all or source.columns.count(name) > 1:
            continue
        seen: set[str | None] = set()
        rows = 0
        with suppress(ValueError):  # a column that cannot be read names no series
            for chunk in islice(source.chunks([name]), chunks):
                seen |= set(pc.unique(cells.as_strings(chunk[name], name, ("",))).to_pylist()) - {None}
                rows += len(chunk[name])
                if 1 < len(seen) <= rows / 2:
                    return name
    return None
