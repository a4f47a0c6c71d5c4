"""Clocks of time zones: between hours since 1970 in UTC and the hours that a clock shows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import lru_cache
from zoneinfo import available_timezones

import numpy as np
import pandas as pd

from gssr.shown import quoted

OFFSET = re.compile(r"[+-](?:0\d|1[0-4]):[0-5]\d")
# Of zones whose clocks were alike, the first of these is named.
_KNOWN = (
    *("Europe/Berlin", "Europe/London", "Europe/Athens", "Australia/Sydney"),
    *("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles"),
)


def check_zone(zone: str) -> None:
    """Raises ValueError for what is neither the name of a zone nor an offset."""
    if OFFSET.fullmatch(zone) or zone in available_timezones():
        return
    folded = {name.lower(): name for name in sorted(available_timezones())}
    near = difflib.get_close_matches(zone[:100].lower(), folded, n=1, cutoff=0.5)
    hint = f"; did you mean {folded[near[0]]}?" if near else ""
    raise ValueError(
        f"time_zone is {quoted(zone)}; expected a name such as Europe/Berlin, UTC, or an offset such as +01:00{hint}"
    )


def offset_words(hours: float) -> str:
    """An offset of some hours: +01:00; UTC for none."""
    minutes = round(abs(hours) * 60)
    return f"{'-' if hours < 0 else '+'}{minutes // 60:02d}:{minutes % 60:02d}" if minutes else "UTC"


def shown(hours: np.ndarray, zone: str) -> np.ndarray:
    """What the clock of a zone ("" and "UTC" are UTC) shows at times (n) in UTC; both in hours since 1970."""
    if zone in ("", "UTC"):
        return np.asarray(hours, np.float64)
    return _hours(_index(hours).tz_localize("UTC").tz_convert(zone).tz_localize(None)).reshape(np.shape(hours))


def when(clock: np.ndarray, zone: str) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last time (n) in UTC at which the clock of a zone shows hours (n).

    They differ where clocks go back. What a clock never shows, since it goes forward, is when it goes forward.
    """
    if zone in ("", "UTC"):
        return (np.asarray(clock, np.float64),) * 2
    index = _index(clock)
    first, last = (
        index.tz_localize(zone, ambiguous=np.full(len(index), summer), nonexistent="shift_forward")
        for summer in (True, False)
    )
    return _hours(first.tz_convert("UTC").tz_localize(None)), _hours(last.tz_convert("UTC").tz_localize(None))


def changes(zone: str) -> bool:
    """Whether the clock of a zone goes forward and back, in these decades."""
    return zone != "" and _offsets_of_half_years(zone) > 1


@lru_cache
def _offsets_of_half_years(zone: str) -> int:
    hours = _hours(pd.date_range("1990-01-01", "2030-01-01", freq="91D"))
    return len(np.unique(np.rint((shown(hours, zone) - hours) * 60)))


def zone_with(offsets: Sequence[tuple[float, float]]) -> str:
    """A zone whose clock had these offsets, given as (hours in UTC, offset in hours); "" where there is none."""
    for zone in (*_KNOWN, *sorted(name for name in available_timezones() if "/" in name and "Etc" not in name)):
        if all(abs(float(shown(np.array([at]), zone)[0]) - at - offset) < 1e-6 for at, offset in offsets):
            return zone
    return ""


def _index(hours: np.ndarray) -> pd.DatetimeIndex:
    micro = np.rint(np.asarray(hours, np.float64).reshape(-1) * 3.6e9).astype(np.int64)
    return pd.DatetimeIndex(micro.astype("datetime64[us]"))


def _hours(index: pd.DatetimeIndex) -> np.ndarray:
    return index.to_numpy().astype("datetime64[us]").astype(np.int64) / 3.6e9
