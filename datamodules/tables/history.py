"""Read the history that a plan goes on from, with the reader that training has."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from datamodules.tables.build import Reading
from datamodules.tables.earlier import earlier_windows
from datamodules.tables.grid import Grid
from datamodules.tables.opening import open_table
from datamodules.tables.panels import check_step, column_of_series
from datamodules.tables.splits import everything
from datamodules.tables.store import Store
from datamodules.tables.windows import Cutter, LastWindows, grid_of
from gssr.domains import Characters, Rows, checked
from gssr.sequences.record import Record
from gssr.shown import listed, quoted

MOST_STEPS = 1_000_000  # that are observed where no context is given
SHORTEST = 2  # rows, from which a step can be inferred


@checked
@dataclass(frozen=True)
class HistoryOptions:
    """The options of `TableSequences` that apply to a history; the defaults are for networks of other data modules."""

    time_column: str | None = "time"
    series_column: str | None = None
    text_column: str | None = "text"
    step: str | None = None
    time_unit: str | None = None
    time_format: str | None = None
    time_zone: str | None = None
    text_lag: Rows = 0
    max_text_chars: Characters = 2000
    missing: Sequence[str] | None = None
    delimiter: str | None = None
    sort_rows: bool = False
    same_time: Literal["last", "mean", "refuse"] = "last"

    @classmethod
    def of(cls, trained: Mapping[str, Any], given: Mapping[str, Any]) -> HistoryOptions:
        """Options that are given win over those of training, which count if they are of tables."""
        of_tables = trained if "time_column" in trained else {"step": trained.get("step")}
        return cls(**{item.name: of_tables[item.name] for item in fields(cls) if item.name in of_tables} | dict(given))


def read_history(
    path: str | Path,
    value_names: Sequence[str],
    horizon: int,
    context: int | None = None,
    *,
    goal: str | None = None,
    goal_step: int | None = None,
    series: str | None = None,
    trained: Mapping[str, Any] | None = None,
    **given: Any,
) -> Record:
    """The last C steps of a table as a record whose H further steps are unknown, see `read_histories`."""
    return read_histories(
        path, value_names, horizon, context, goal=goal, goal_step=goal_step, series=series, trained=trained, **given
    )[0]


def read_histories(
    path: str | Path,
    value_names: Sequence[str],
    horizon: int,
    context: int | None = None,
    before: Sequence[int] = (),
    *,
    goal: str | None = None,
    goal_step: int | None = None,
    series: str | None = None,
    trained: Mapping[str, Any] | None = None,
    **given: Any,
) -> tuple[Record, dict[int, Record]]:
    """The last C steps of a table as a record whose H further steps are unknown, and windows from earlier origins.

    Args:
        path: The table, as of `TableSequences`: a row a step.
        value_names: Columns of the Y values, those of the network.
        horizon: Steps H to imagine.
        context: Steps C to observe, at most; all by default.
        before: By how many steps the contexts of the windows end before the record's. Those that the table has not are
            left out, and all where the series of training do not go on from its training part to its test part.
        goal: A goal in words.
        goal_step: Step of the horizon, from 1, at which the goal should hold; its last by default.
        series: The series, where the table has several.
        trained: Options of the data module of training (`datamodule_hyper_parameters` of its checkpoint).
        given: `HistoryOptions` that win over those of training.

    Raises ValueError for a table that cannot be read, a history of less than 2 rows, of another step than that of
    training or of several series, no value among the last C steps, and a goal step outside the horizon.
    """
    if goal_step is not None and not 1 <= goal_step <= horizon:
        raise ValueError(f"goal_step is {goal_step}; expected a step of the horizon, from 1 to {horizon}")
    options, step = HistoryOptions.of(trained or {}, given), (trained or {}).get("step")
    if step is not None and Grid.of(options.step) != Grid.of(step):
        raise ValueError(
            f"step is {quoted(options.step)}, and the network was trained on steps of {step}; leave step out, and give "
            "rows of that step"
        )
    source = open_table(str(path), options.delimiter)
    # A history may lack texts and a name of its series, unless the user names their columns.
    for name in {"text_column", "series_column"} - given.keys():
        if getattr(options, name) not in source.columns:
            options = replace(options, **{name: None})
    reading = Reading.of(source, options, value_names)
    if name := column_of_series(source, reading.columns):
        raise ValueError(
            f"{source.path} has a column {quoted(name)} of several series, and a plan goes on from one; name it with "
            "series_column, and the one with series"
        )
    with TemporaryDirectory(prefix="gssr-history-") as folder:
        reading.write(source, Path(folder) / "store")
        store = Store(Path(folder) / "store")
        segment = _segment(store, source.path, series)
        cutter = Cutter(store, grid_of(store, options), context or 1, horizon, 1, None, options.text_lag, None)
        if step is not None:
            check_step(cutter, segment, source.path)
        for note in (*store.facts.notes, *cutter.check(source.path)):
            warnings.warn(note, stacklevel=2)
        number, first, end = segment
        steps = int(np.ptp(cutter.positions(number, first, end)[[0, -1]])) + 1
        if context is None and steps > MOST_STEPS:
            raise ValueError(
                f"{source.path} spans {steps:,} steps of {cutter.grid}; give context, the last steps to observe, or "
                "another step"
            )
        cutter.context = min(context or steps, steps)
        windows = LastWindows(cutter, [segment], np.inf)
        if not len(windows):
            raise ValueError(
                f"{source.path} has no value in its last {cutter.context} rows; a plan goes on from values"
            )
        record = windows[0]
        before = before if _goes_on(trained or {}) else ()
        earlier = earlier_windows(cutter, [], record.series, float(record.time[record.goal_start]), before)
    start = record.goal_start
    record = replace(
        record,
        series=record.series if options.series_column else Path(path).stem,
        goal=None if goal is None else goal.strip(),
        goal_step=start + (goal_step or horizon),
    )
    return record, earlier


def _goes_on(trained: Mapping[str, Any]) -> bool:
    """Whether a network was trained on a table that is split by time."""
    by = trained.get("split_by")
    counted = trained.get("time_column") is None and trained.get("series_column") is not None
    return by == "time" or (by == "auto" and not counted)


def _segment(store: Store, path: str, series: str | None) -> tuple[int, int, int]:
    names = store.facts.series
    if series is None and len(names) > 1:
        raise ValueError(
            f"{path} has {len(names):,} series, {listed(names)}; a plan goes on from one; name it with series"
        )
    if series is not None and series not in names:
        raise ValueError(f"series is {quoted(series)}; expected one of {listed(names)}")
    segment = everything(store)[0 if series is None else names.index(series)]
    if segment[2] - segment[1] < SHORTEST:
        raise ValueError(f"{path} has {segment[2] - segment[1]} row of the series; a history needs at least {SHORTEST}")
    return segment
