"""Facts about a table that one pass over its rows finds: series, ranges, rounding."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from datamodules.tables.zones import offset_words, shown
from gssr.sequences.clock import iso_time
from gssr.sequences.phrases import decimals


@dataclass
class Column:
    """Statistics of a value column, from one pass over it; a resolution of 0 is unknown."""

    name: str
    observed: int = 0
    infinite: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    digits: int = 0
    common: int = 0  # greatest common divisor of all values times 10 ** digits

    MOST_DIGITS = 6

    def add(self, values: np.ndarray) -> np.ndarray:
        """Count a chunk (n,) float64 in; returns it with infinities as NaN."""
        infinite = np.isinf(values)
        self.infinite += int(infinite.sum())
        values = np.where(infinite, np.nan, values)
        seen = values[~np.isnan(values)]
        if len(seen):
            self.observed += len(seen)
            self.low, self.high = min(self.low, float(seen.min())), max(self.high, float(seen.max()))
            self._round(seen)
        return values

    def _round(self, seen: np.ndarray) -> None:
        while self.digits <= self.MOST_DIGITS:
            scaled = seen * 10.0**self.digits
            if np.abs(scaled).max() > 2**53:
                self.digits = self.MOST_DIGITS + 1
            elif np.abs(scaled - np.round(scaled)).max() <= 1e-9 * np.abs(scaled).max() + 1e-9:
                self.common = int(np.gcd(self.common, np.gcd.reduce(np.round(scaled).astype(np.int64))))
                return
            else:
                self.digits += 1
                self.common *= 10

    @property
    def resolution(self) -> float:
        if self.digits > self.MOST_DIGITS or not self.common:
            return 0.0
        step = self.common / 10**self.digits
        return round(step, decimals(step))


@dataclass(frozen=True)
class Clock:
    """The clock of a column of times.

    zone: a name, an offset such as +01:00, or "" where times have none, which counts as UTC.
    offsets: of times that have several; `likely` is a zone whose clock has them.
    """

    zone: str = ""
    offsets: tuple[str, ...] = ()
    likely: str = ""


@dataclass
class Facts:
    """Statistics of a table: its series with their numbers of rows, and its value columns."""

    series: list[str]
    counts: list[int]
    columns: list[Column]
    has_text: bool = False
    has_goal: bool = False
    notes: list[str] = field(default_factory=list)  # warnings for the user
    clock: Clock = field(default_factory=Clock)


def iso(hours: float, zone: str = "") -> str:
    """A time as the clock of a zone shows it, with its offset if there is a zone; a date where it is midnight."""
    if not zone:
        return iso_time(hours).removesuffix("Z").removesuffix("T00:00")
    clock = float(shown(np.array([hours]), zone)[0])
    offset = offset_words(clock - hours)
    return iso_time(clock).removesuffix("Z") + ("Z" if offset == "UTC" else offset)
