"""The split of a table's rows into parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from datamodules.tables.facts import iso
from datamodules.tables.store import ROWS, Store

SPLITS = ("train", "val", "test")
Segments = list[tuple[int, int, int]]  # series, first row and end of a part


def everything(store: Store) -> Segments:
    return [(s, int(a), int(b)) for s, (a, b) in enumerate(zip(store.offsets, store.offsets[1:], strict=False))]


def split(store: Store, options: Any, read_time: Callable[[str, str], float]) -> tuple[bool, dict[str, Segments]]:
    """Whether the split is by series, and the segments of each part.

    Args:
        options: of `TableSequences`. read_time: a time in hours from its words and the option that holds them.

    Raises ValueError for dates that leave no part, and for less than three series to be split.
    """
    by = options.split_by
    if by == "auto":
        single = len(store.facts.series) == 1
        by = "time" if options.time_column is not None or options.split_dates is not None or single else "series"
    if by == "series":
        return True, _by_series(store, options.split_shares)
    if options.split_dates is None:
        return False, _at(store, _cuts(store, options.split_shares))
    cuts = [read_time(date, "split_dates") for date in options.split_dates]
    ends = [(store.read("time", a, a + 1)[0], store.read("time", b - 1, b)[0]) for _, a, b in everything(store)]
    first, last = min(a for a, _ in ends), max(b for _, b in ends)
    zone = store.facts.clock.zone
    if not first < cuts[0] < cuts[1] <= last:
        raise ValueError(
            f"split_dates are {list(options.split_dates)}; expected an earlier and a later time within the table, "
            f"which goes from {iso(first, zone)} to {iso(last, zone)}"
        )
    return False, _at(store, cuts)


def first_after(store: Store, first: int, end: int, hours: float, inclusive: bool = False) -> int:
    """The first row of a sorted range whose time is after `hours` (`inclusive`: or at it), `end` if there is none."""
    while first < end:
        middle = (first + end) // 2
        time = store.read("time", middle, middle + 1)[0]
        if time > hours or (inclusive and time == hours):
            end = middle
        else:
            first = middle + 1
    return first


def _at(store: Store, cuts: Sequence[float]) -> dict[str, Segments]:
    """Rows before the first time are training, those before the second validation, the others test."""
    parts: dict[str, Segments] = {split: [] for split in SPLITS}
    for series, first, end in everything(store):
        edges = [first, *(first_after(store, first, end, cut, inclusive=True) for cut in cuts), end]
        for split, a, b in zip(SPLITS, edges, edges[1:], strict=False):
            if b > a:
                parts[split].append((series, a, b))
    return parts


def _cuts(store: Store, shares: Sequence[float]) -> list[float]:
    """The two times before which the shares of training, and of training and validation, of all rows lie."""
    every = max(1, len(store) // 100_000)
    picked = [store.read("time", a, min(len(store), a + ROWS))[::every].copy() for a in range(0, len(store), ROWS)]
    times = np.sort(np.concatenate(picked))
    return [float(times[min(len(times) - 1, int(share * len(times)))]) for share in (shares[0], shares[0] + shares[1])]


def _by_series(store: Store, shares: Sequence[float]) -> dict[str, Segments]:
    """Parts of whole series, drawn by a fixed seed, at least one in each part.

    Raises ValueError for less than three series.
    """
    every = everything(store)
    if len(every) < len(SPLITS):
        raise ValueError(
            f"the table has {len(every)} series, a split by series needs at least 3 (training, validation, "
            "test); split by time"
        )
    order = np.random.default_rng(0).permutation(len(every)).tolist()
    first = min(max(1, round(shares[0] * len(every))), len(every) - 2)
    second = min(max(first + 1, round((shares[0] + shares[1]) * len(every))), len(every) - 1)
    bounds = {"train": (0, first), "val": (first, second), "test": (second, len(every))}
    return {split: [every[i] for i in sorted(order[a:b])] for split, (a, b) in bounds.items()}


def together(parts: Iterable[Segments]) -> Segments:
    """The segments of several parts in order of series and row.

    Segments that follow each other become one, so that windows cross their border.
    """
    joined: Segments = []
    for series, first, end in sorted(segment for part in parts for segment in part):
        if joined and joined[-1][0] == series and joined[-1][2] == first:
            first = joined.pop()[1]
        joined.append((series, first, end))
    return joined
