"""The regular grid that rows are put on: a fixed number of hours, or calendar months."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from gssr.shown import quoted

_HOURS = {"ms": 1 / 3.6e6, "s": 1 / 3600, "min": 1 / 60, "h": 1.0, "d": 24.0, "w": 168.0}
_HOURS |= {unit.upper(): _HOURS[unit] for unit in "hdw"}
_SIZES = {"D": 24.0, "h": 1.0, "min": 1 / 60, "s": 1 / 3600}
_MONTHS = {"M": 1, "MS": 1, "ME": 1, "Q": 3, "QS": 3, "QE": 3, "Y": 12, "YS": 12, "YE": 12}
_CALENDAR = {1: (28, 31), 3: (89, 92), 12: (365, 366)}  # months: fewest and most days between two rows
SHORTEST, LONGEST = 1 / 3.6e6, 876_600.0  # hours of a step
EXAMPLES = "such as 10min, 1h, 6h, 1D, 1W, 1M (month), 1Q or 1Y"


@dataclass(frozen=True)
class Grid:
    """Steps of `hours`, or of `months` where that is not 0. A position counts steps from the first row of a series."""

    hours: float
    months: int = 0

    @classmethod
    def of(cls, step: str) -> Grid:
        """From words such as "6h". Raises ValueError for others."""
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)?\s*([A-Za-z]+)\s*", step)
        count = float(found[1] or 1) if found else 0.0
        hours = count * _HOURS.get(found[2], 0.0) if found else 0.0
        if SHORTEST <= hours <= LONGEST:
            return cls(hours)
        months = count * _MONTHS.get(found[2], 0) if found else 0.0
        if 1 <= months <= LONGEST // 730 and count >= 1 and count.is_integer():
            return cls(0.0, int(months))
        raise ValueError(
            f"step is {quoted(step)}; expected a number and a unit, {EXAMPLES}, from a millisecond to a century"
        )

    def __str__(self) -> str:
        if self.months:
            return f"{self.months} months" if self.months > 1 else "1 month"
        for unit, size in _SIZES.items():
            if self.hours >= size and abs(self.hours / size - round(self.hours / size)) < 1e-6:
                return f"{round(self.hours / size)}{unit}"
        return f"{self.hours:g}h"

    def position(self, time: np.ndarray, origin: float) -> np.ndarray:
        """The nearest step (the month that a time lies in) of times (n) in hours, int64; the origin's is 0."""
        if not self.months:
            return np.rint((time - origin) / self.hours).astype(np.int64)
        return (_month(time) - _month(np.asarray(origin))) // self.months

    def time(self, position: np.ndarray, origin: float) -> np.ndarray:
        """Times in hours of steps (n); of calendar steps at the origin's day of the month, or at its last day."""
        if not self.months:
            return origin + position * self.hours
        first = _month(np.asarray(origin))
        into = origin - _start(first)
        month = first + position * self.months
        last_day = _start(month + 1) - 24.0 - _start(month) + into % 24
        return _start(month) + np.minimum(into, last_day)

    @property
    def span(self) -> tuple[str | None, int]:
        """The noun in which goals count time, and how many of it a step is; None: hours, days and weeks."""
        if not self.months:
            return None, 1
        return ("year", self.months // 12) if self.months % 12 == 0 else ("month", self.months)


def infer(gaps: np.ndarray) -> Grid:
    """The grid of the most frequent of the gaps (n) between rows of a series, in hours; n at least 1.

    Raises ValueError where no gap makes up at least half, nor nearly all are multiples of one.
    """
    days = gaps / 24
    for months, (fewest, most) in _CALENDAR.items():
        if (
            months * 28 <= np.median(days)
            and ((days >= fewest - 0.1) & (days <= most + 0.1)).mean() >= 0.9
            and len(np.unique(days)) > 1
        ):
            return Grid(0.0, months)
    rounded = np.round(gaps * 3600) / 3600 if gaps.max() > 1 / 360 else gaps
    sizes, counts = np.unique(rounded[rounded > 0], return_counts=True)
    if len(sizes) and counts.max() >= 0.5 * len(gaps):
        return Grid(float(sizes[counts.argmax()]))
    # Clocks that run unevenly: nearly all gaps are whole multiples of the median, give or take a quarter.
    median = _whole(float(np.median(gaps)))
    steps = gaps / median
    if np.mean((np.abs(steps - np.rint(steps)) <= 0.25) & (steps > 0.5)) >= 0.9:
        return Grid(median)
    raise ValueError(
        f"times are irregular: gaps between rows go from {Grid(float(gaps.min()))} to {Grid(float(gaps.max()))}, with "
        f"a median of {Grid(median)}, and are no multiples of it; give the grid with step, {EXAMPLES}; each step holds "
        "at most one row"
    )


def _whole(hours: float) -> float:
    """A length of time rounded to whole days, hours, minutes or seconds, the longest of these that is within 5 %."""
    for size in _SIZES.values():
        near = round(hours / size) * size
        if near and abs(near - hours) <= 0.05 * hours:
            return near
    return hours


def _month(time: np.ndarray) -> np.ndarray:
    """Months since 1970-01 of times in hours."""
    seconds = np.asarray(np.rint(np.asarray(time) * 3600), np.int64)
    return seconds.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)


def _start(month: np.ndarray) -> np.ndarray:
    """The hour at which a month begins."""
    return np.asarray(month, np.int64).astype("datetime64[M]").astype("datetime64[h]").astype(np.float64)
