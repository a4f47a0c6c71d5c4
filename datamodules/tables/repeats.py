"""Times that come more than once in a series: one row is made of their rows, or they are refused."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from datamodules.tables.facts import iso
from datamodules.tables.order import columns_of
from gssr.shown import quoted

# Of the rows of a table: a slip repeats a few, but series that nobody told apart repeat most.
MOST_REPEATED = 0.1


def explain(name: str, repeated: int, rows: int, first: str, same_time: str, several: str) -> str | None:
    """What is said about repeated times of a table, or None without any.

    Args:
        first: the first such time. several: what to do where the table holds several series.

    Raises ValueError where same_time refuses them, or where "last" would throw away many rows.
    """
    if not repeated:
        return None
    found = f"{repeated} of {rows} rows of {name} have the same time as another row, such as {first}"
    if same_time == "refuse":
        raise ValueError(f"{found}; merge such rows, or give same_time: last or mean")
    if same_time == "last" and repeated > MOST_REPEATED * rows:
        raise ValueError(f"{found}; {several}give same_time: mean for their means, or merge such rows")
    kept = "the last cell of each column" if same_time == "last" else "the mean of their numbers and the last text"
    return f"{found}; {kept} is used (same_time: {same_time})"


def merge(
    folder: Path, counts: Sequence[int], same_time: str, name: str, series: Sequence[str], unclear: set[float]
) -> tuple[list[int], str | None]:
    """Make one row of the rows of one time, in place, in a store whose series are in one piece and sorted.

    A series with such rows is copied into memory, column by column.

    Args:
        counts: rows of each series. series: their names; none where the table is one.
        same_time: "last": of each column the last cell that is not empty; "mean": the mean of numbers, and the last
            text and goal; "refuse".
        name: of the table, for messages.
        unclear: times in UTC of hours that a clock shows twice, whose rows may be of either.

    Returns:
        The rows of each series afterwards, and a note for the user.

    Raises ValueError for repeated times that are unclear, and as `explain` does.
    """
    columns, left, to, first = columns_of(folder, sum(counts)), [], 0, ""
    for code, (a, b) in enumerate(pairwise(np.cumsum([0, *counts]).tolist())):
        time = columns["time"][a:b, 0]
        new = np.concatenate([[True], np.diff(time) > 0])
        begins = np.flatnonzero(new)
        if len(begins) < b - a:
            again = float(time[~new][0])
            of = f" of series {quoted(series[code])}" if series else ""
            first = first or iso(again) + of
            if doubtful := unclear & set(time[~new].tolist()):
                raise ValueError(
                    f"two rows of {name}{of} have the same time, {iso(min(doubtful))} in UTC, in an hour that the "
                    "clock shows twice; write times with their offsets, in order"
                )
        left.append(len(begins))
        if to < a or len(begins) < b - a:
            merged = {part: _merged(part, columns, a, b, begins, same_time) for part in columns}
            for part, rows in merged.items():
                columns[part][to : to + len(begins)] = rows
        to += len(begins)
    rows = sum(counts)
    several = "" if series else "if the table holds several series, name their column with series_column; else "
    note = explain(name, rows - to, rows, first, same_time, several)
    if note:
        sizes = {part: column.strides[0] for part, column in columns.items()}
        columns.clear()
        for part, size in sizes.items():
            with open(folder / part, "r+b") as file:
                file.truncate(to * size)
    return left, note


def _merged(part: str, columns: dict[str, np.memmap], a: int, b: int, begins: np.ndarray, same_time: str) -> np.ndarray:
    """A column of rows a to b with one row for those from each of `begins` to the next."""
    cells = columns[part][a:b]
    if part == "value":
        seen = ~np.isnan(cells)
        if same_time == "mean":
            total = np.add.reduceat(np.where(seen, cells, 0).astype(np.float64), begins)
            count = np.add.reduceat(seen.astype(np.int64), begins)
            return np.where(count > 0, total / np.maximum(count, 1), np.nan)
        rows = _last(seen, begins)
        return np.take_along_axis(cells, rows, 0)
    told = {"text": "text", "goal": "goal", "bound": "goal"}.get(part)  # bounds belong to the goal of their row
    seen = np.ones((b - a, 1), bool) if told is None else columns[told][a:b, 1:] >= 0
    return cells[_last(seen, begins)[:, 0]]


def _last(seen: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """The last row (groups, width) of each group in which a cell (n, width) is seen, else the group's last."""
    rows = np.where(seen, np.arange(len(seen))[:, None], -1)
    found = np.maximum.reduceat(rows, begins)
    return np.where(found >= 0, found, np.append(begins[1:], len(seen))[:, None] - 1)


def merge_frame(table: pd.DataFrame, by: str, same_time: str, name: str) -> tuple[pd.DataFrame, str | None]:
    """The same for a data frame whose columns are dates and numbers, sorted by the column `by`.

    Raises ValueError as `explain` does.
    """
    twice = table[by].duplicated()
    if not twice.any():
        return table, None
    note = explain(name, int(twice.sum()), len(table), str(table[by][twice].iloc[0].date()), same_time, "")
    of_date = table.groupby(by, as_index=False)
    how = {
        column: "mean" if same_time == "mean" and pd.api.types.is_float_dtype(table[column]) else "last"
        for column in table
        if column != by
    }
    return of_date.agg(how)[list(table.columns)], note
