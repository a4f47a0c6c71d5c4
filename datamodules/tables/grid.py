"""A regular grid of steps: a fixed length of time, or days, business days and months of a calendar."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from datamodules.tables.zones import shown, when
from gssr.sequences.clock import read_length
from gssr.shown import quoted

_SIZES = {"D": 24.0, "h": 1.0, "min": 1 / 60, "s": 1 / 3600, "ms": 1 / 3.6e6}
# Months as pandas writes them at their first and last days, with the unit that they are; the last on business days.
_ENDS = {f"{unit}{end}": unit for unit in "MQY" for end in "SE"}
_ROLLED = {f"B{end}": unit for end, unit in _ENDS.items()}
SHORTEST, LONGEST = 1 / 3.6e6, 876_600.0  # hours of a step
EXAMPLES = "such as 10min, 1h, 6h, 1D, 1B (business day), 1W, 1M (month), 1Q or 1Y"
BUSINESS = "1111100"
NEAR = 1e-3  # part of a step, or of a day of a calendar, that is no distance
HALF_MONTH = 360.0  # hours
YEAR = 365.25 * 24  # hours
MOST_STEPS = 1440  # of a season: minutes of a day
_FIRST_DAY = np.datetime64("1600-01-03")  # before all times


@dataclass(frozen=True)
class Grid:
    """Steps of `hours`, or of `months` where that is not 0. A position counts steps from an origin of the series.

    week: the days of a week, from Monday, that have steps ("" is all of them); months move to the nearest one: from the
        first half of a month to a later one, from its second half to an earlier one.
    zone: whose clock the steps follow, "" for UTC. Its days are longer and shorter where the clock changes.
    loose: a month's row may lie anywhere in it.
    """

    hours: float
    months: int = 0
    week: str = ""
    zone: str = ""
    loose: bool = False

    @classmethod
    def of(cls, step: str) -> Grid:
        """From words such as "6h". Raises ValueError for others."""
        found = re.fullmatch(r"\s*([\d.]*)\s*([A-Za-z]+?)(?:-[A-Z]{3})?\s*", step)
        count, unit = found.groups() if found else ("", step)
        if unit == "B" and count in ("", "1"):
            return cls(24.0, week=BUSINESS)
        given = read_length(count + (_ENDS | _ROLLED).get(unit, unit))
        if given and SHORTEST <= given.hours <= LONGEST:
            return cls(given.hours)
        if given and 1 <= given.months <= LONGEST // 730 and given.months.is_integer():
            return cls(0.0, int(given.months), BUSINESS if unit in _ROLLED else "")
        raise ValueError(
            f"step is {quoted(step)}; expected a number and a unit, {EXAMPLES}, from a millisecond to a century"
        )

    def __str__(self) -> str:
        """Words that `of` reads."""
        if self.months:
            return f"{self.months} months" if self.months > 1 else "1 month"
        return "1B" if self.week else length(self.hours)

    @property
    def alias(self) -> str:
        """The step as pandas writes it."""
        return f"{self.months}MS" if self.months else str(self)

    @property
    def tolerance(self) -> float:
        """Hours by which a stamp may lie beside its step unnoticed: stamps are rounded, to milliseconds for one."""
        hours = self.hours or 24.0
        return max(NEAR * hours, min(0.6 * SHORTEST, 0.05 * hours))

    def position(self, time: np.ndarray, origin: float) -> np.ndarray:
        """The nearest step of times (n) in hours, int64; that of the origin is 0."""
        at, start = shown(time, self.zone), float(shown(origin, self.zone)[()])
        if self.months:
            first = _month(start)
            # Half a month to each side of the origin's day of a month belongs to it.
            ahead = 0.0 if self.loose else HALF_MONTH - (start - _start(first))
            return (_month(at + ahead) - first + (0 if self.loose else self.months // 2)) // self.months
        if self.week:
            day = _day(np.floor(at / 24 - start % 24 / 24 + 0.5))
            return np.busday_count(_FIRST_DAY, day, self.week) - np.busday_count(
                _FIRST_DAY, _day(start // 24), self.week
            )
        return np.rint((at - start) / self.hours).astype(np.int64)

    def time(self, position: np.ndarray, origin: float) -> np.ndarray:
        """Times in hours of steps (n); of months at the origin's day of the month, or at their last day."""
        start, position = float(shown(origin, self.zone)[()]), np.asarray(position, np.int64)
        if self.months:
            first = _month(start)
            into, month = start - _start(first), first + position * self.months
            last_day = _start(month + 1) - 24.0 - _start(month) + into % 24
            at = _start(month) + np.minimum(into, last_day)
            if self.week:
                roll = "following" if into < HALF_MONTH else "preceding"
                at = _hours(np.busday_offset(_day(at // 24), 0, roll, self.week)) + at % 24
        elif self.week:
            at = _hours(np.busday_offset(_day(start // 24), position, "forward", self.week)) + start % 24
        else:
            at = start + position * self.hours
        return when(at, self.zone)[0]

    def origin(self, time: np.ndarray) -> float:
        """A time to count from, of which most times (n) of a series are steps away; the first, if it is such a one."""
        at = shown(time, self.zone)
        if self.months:
            return float(when(np.array([self._day_of_months(at)]), self.zone)[0][0])
        if self.week:
            beside, usable = at % 24, np.is_busday(_day(at // 24), self.week)
        else:
            beside, usable = at - at[0] - np.rint((at - at[0]) / self.hours) * self.hours, True
        chosen = np.flatnonzero(usable & (np.abs(beside - _usual(beside)) <= self.tolerance))
        return float(time[chosen[0] if 2 * len(chosen) >= len(time) else 0])

    def _day_of_months(self, at: np.ndarray) -> float:
        """What `origin` is for months: the day on which most clocks (n) are, the last day where all of them are."""
        if self.loose:
            return float(at[0])
        days = ((at - _start(_month(at))) // 24 + 1).astype(np.int64)
        found, most = float(at[0]), -1.0
        for day in dict.fromkeys(
            (31, 1, int(days[0]), int(_usual(days))) if self.week else (31, days[0], _usual(days))
        ):
            into = 24.0 * (int(day) - 1) + _usual(at % 24)
            months = _month(at + HALF_MONTH - into)
            month = int(months[0] - (months[0] - _usual(months % self.months)) % self.months)
            while month > months[0] - 96 * self.months and _start(month + 1) - _start(month) <= into:
                month -= self.months  # a shorter month, which does not tell the day
            origin, plain = _start(month) + into, replace(self, zone="")
            exact = float(np.mean(np.abs(at - plain.time(plain.position(at, origin), origin)) <= self.tolerance))
            if exact > most:
                found, most = float(origin), exact
            if most == 1:
                break
        return found

    @property
    def season(self) -> int | None:
        """Steps after which values likely repeat: those of a day, else of a week, else of a year; None without any."""
        if self.months:
            return 12 // self.months if 12 % self.months == 0 and self.months < 12 else None
        if self.week:
            return self.week.count("1")
        for span in (24.0, 168.0):
            steps = span / self.hours
            if 1.5 < steps <= MOST_STEPS and abs(steps - round(steps)) < 1e-6 * steps:
                return round(steps)
        year = YEAR / self.hours
        return round(year) if 4 <= year <= MOST_STEPS else None

    @property
    def span(self) -> tuple[str | None, int]:
        """The noun in which goals count time, and how many of it a step is; None: the units of `time_spans`."""
        if self.months:
            return ("year", self.months // 12) if self.months % 12 == 0 else ("month", self.months)
        if self.week:
            return "business day", 1
        if self.hours and self.hours % 24 == 0:
            return ("week", round(self.hours / 168)) if self.hours % 168 == 0 else ("day", round(self.hours / 24))
        return None, 1


def length(hours: float) -> str:
    """A length of time as `Grid.of` reads it, in its longest unit."""
    for unit, size in _SIZES.items():
        if round(hours / size) and abs(hours / size - round(hours / size)) < 1e-6:
            return f"{round(hours / size)}{unit}"
    unit = next((unit for unit, size in _SIZES.items() if hours >= size), "ms")
    return f"{hours / _SIZES[unit]:.10g}{unit}"


def _usual(values: np.ndarray) -> float:
    """The most frequent of some values (n), to a microsecond if they are hours; of equally frequent ones the first."""
    found, first, counts = np.unique(np.rint(values * 3.6e9), return_index=True, return_counts=True)
    return float(values[first[counts == counts.max()].min()]) if len(found) else 0.0


def _month(time: np.ndarray | float) -> np.ndarray:
    """Months since 1970-01 of times in hours."""
    seconds = np.asarray(np.rint(np.asarray(time) * 3600), np.int64)
    return seconds.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)


def _start(month: np.ndarray | int) -> np.ndarray:
    """The hour at which a month begins."""
    return np.asarray(month, np.int64).astype("datetime64[M]").astype("datetime64[h]").astype(np.float64)


def _day(day: np.ndarray | float) -> np.ndarray:
    return np.asarray(day, np.int64).astype("datetime64[D]")


def _hours(day: np.ndarray) -> np.ndarray:
    return day.astype(np.int64) * 24.0
