"""How a user's lengths of time are read, and how outputs write times, which are hours everywhere else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS = {"ms": 1 / 3.6e6, "s": 1 / 3600, "min": 1 / 60, "h": 1.0, "d": 24.0, "mo": 730.5, "y": 8766.0}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)?\s*([A-Za-z]+)")
_HOURS = {
    1 / 3.6e6: "ms millisecond milliseconds", 1 / 3600: "s sec secs second seconds",
    1 / 60: "min mins minute minutes", 1.0: "h H hr hrs hour hours", 24.0: "d D day days",
    168.0: "w W wk wks week weeks",
}  # fmt: skip
_MONTHS = {1: "M month months", 3: "Q quarter quarters", 12: "Y yr yrs year years"}
_HOURS_OF, _MONTHS_OF = (
    {word: size for size, words in sizes.items() for word in words.split()} for sizes in (_HOURS, _MONTHS)
)


class Length(NamedTuple):
    """A length of time: `hours`, or `months` of a calendar; the other one is 0."""

    hours: float
    months: float


def read_length(words: str) -> Length | None:
    """From a number (1 where it is missing) and a unit, such as 6h, 2 days, 1M or 3 months; None for other words."""
    found = _LENGTH.fullmatch(words.strip())
    if not found or found[2] not in _HOURS_OF.keys() | _MONTHS_OF.keys():
        return None
    count = float(found[1] or 1)
    return Length(count * _HOURS_OF.get(found[2], 0.0), count * _MONTHS_OF.get(found[2], 0))


def iso_time(hours: float) -> str:
    """Hours since 1970-01-01T00Z as ISO 8601 in UTC, such as 2017-09-18T06:00Z; beyond the calendar as hours.

    Seconds, milliseconds and microseconds are written where there are any.
    """
    try:
        micro = round(hours * 3.6e9)
        # From the 23rd century on, a float of hours is up to a microsecond off.
        nearest = round(micro / 1000) * 1000
        moment = EPOCH + timedelta(microseconds=nearest if abs(micro - nearest) <= 1 else micro)
    except (OverflowError, ValueError):
        return f"{hours:g} h"
    spec = "minutes" if moment.second == moment.microsecond == 0 else "auto"
    spec = "milliseconds" if moment.microsecond and moment.microsecond % 1000 == 0 else spec
    return moment.replace(tzinfo=None).isoformat(timespec=spec) + "Z"


def unit_of(time: Sequence[float] | np.ndarray) -> tuple[str, float]:
    """The unit in which to count times (T) in hours: its sign and its hours. Steps of one length are no months."""
    steps = np.diff(np.asarray(time, np.float64))
    step = float(np.median(steps)) if len(steps) else 1.0
    fits = [unit for unit, size in UNITS.items() if step >= 0.9 * size]
    unit = fits[-1] if fits else "ms"
    unit = "d" if unit == "mo" and np.ptp(steps) < 1 else unit
    return unit, UNITS[unit]


def count_of(hours: float, unit: str) -> str:
    """A length of time in a unit, with its sign: +6 h, −1.5 min; months and years as whole numbers."""
    count = hours / UNITS[unit]
    count = round(count) if UNITS[unit] > 24 and abs(count - round(count)) < 0.1 else count
    return f"{count:+.6g} {unit}".replace("-", "−")
