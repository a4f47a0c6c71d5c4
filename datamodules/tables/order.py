"""The columns of a store while it is written: each series in one piece, sorted by time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

DTYPES = {"time": "<f8", "value": "<f4", "text": "<i8", "goal": "<i8", "bound": "<f4"}
ROWS = 50_000  # of a pass over the whole table


def columns_of(folder: Path, rows: int) -> dict[str, np.memmap]:
    """The columns that a store has, (rows, width) each, to be changed in place."""
    return {
        part: np.memmap(folder / part, dtype, "r+").reshape(rows, -1)
        for part, dtype in DTYPES.items()
        if (folder / part).stat().st_size
    }


def gather(folder: Path, counts: Sequence[int]) -> None:
    """Write the columns again, each series in one piece, in order of appearance; strings stay in place.

    counts: rows of each series.
    """
    total = sum(counts)
    for part, rows in columns_of(folder, total).items():
        gathered = np.memmap(folder / "gathered", DTYPES[part], "w+", shape=rows.shape)
        following = np.cumsum([0, *counts])[:-1]  # where the next row of each series goes
        for start in range(0, total, ROWS):
            codes = np.fromfile(folder / "series", "<i4", ROWS, offset=4 * start)
            order = np.argsort(codes, kind="stable")
            found, firsts, sizes = np.unique(codes[order], return_index=True, return_counts=True)
            places = np.empty(len(codes), np.int64)
            places[order] = np.arange(len(codes)) + np.repeat(following[found] - firsts, sizes)
            gathered[places] = rows[start : start + ROWS]
            following[found] += sizes
        gathered.flush()
        del rows, gathered
        os.replace(folder / "gathered", folder / part)


def sort(folder: Path, counts: Sequence[int]) -> tuple[int, bool]:
    """Sort the rows of each series by time, in place; rows of one time keep their order.

    An unsorted series is copied into memory, column by column. Returns how many rows moved, and whether a time comes
    twice.
    """
    columns, moved, repeats = columns_of(folder, sum(counts)), 0, False
    for a, b in pairwise(np.cumsum([0, *counts]).tolist()):
        time = columns["time"][a:b, 0]
        if _ascends(time):
            continue
        order = np.argsort(time, kind="stable")
        moved += int((order != np.arange(b - a)).sum())
        for rows in columns.values():
            rows[a:b] = rows[a:b][order]
        repeats |= not _ascends(time)
    return moved, repeats


def _ascends(time: np.ndarray) -> bool:
    """Whether each time (n) is later than the one before."""
    return all((np.diff(time[start : start + ROWS + 1]) > 0).all() for start in range(0, len(time), ROWS))
