"""A parser of storm advisories: what a text says of a storm, and whether a row of values says the same.

Shapes: N plans of H steps; rows of values are wind (kt), pressure (hPa), latitude and longitude (degrees, west
negative), as `datamodules.storms.Storms` has them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.storms.best_tracks import COMPASS
from datamodules.storms.plan_texts import named_level, wind_level

STATUS = (
    r"(?:sub)?tropical (?:depression|storm)|extratropical cyclone|tropical wave|post-tropical cyclone"
    r"|hurricane|low|disturbance"
)
NAME = re.compile(rf"\s*(?:{STATUS})\s+(?P<name>(?-i:[A-Z])[\w'-]*)", re.IGNORECASE)
PLACE = re.compile(
    r"(?P<latitude>\d+(?:\.\d+)?) (?P<ns>north|south),? (?P<longitude>\d+(?:\.\d+)?) (?P<ew>east|west)\b"
)
PRESSURE = re.compile(r"(?P<pressure>\d{3,4}) ?(?:hPa|mb|millibars)\b")
WIND = re.compile(r"\bwinds?\b[^.\d]{0,30}(?P<wind>\d+) ?(?:kt|knots)\b", re.IGNORECASE)
MOTION = re.compile(rf"\bmoving (?P<direction>{'|'.join(sorted(COMPASS, key=len, reverse=True))})\b")

DEGREES, HECTOPASCAL, KNOTS, ANGLE = 1.5, 5.0, 10.0, 45.0  # how far a text may be from its row
LEAST_MOVE = 0.05  # degrees of arc in a step; what moves less has no direction


@dataclass(frozen=True)
class Said:
    """What an advisory says; None where it says nothing. `direction`: of the motion, in degrees from north."""

    name: str | None
    level: int | None
    place: tuple[float, float] | None
    pressure: float | None
    wind: float | None
    direction: float | None


def read(text: str) -> Said:
    """The name and status at the start of a text, and the first place, pressure, wind and motion in it."""
    name = NAME.match(text)
    place, pressure, wind, motion = (pattern.search(text) for pattern in (PLACE, PRESSURE, WIND, MOTION))
    where = None
    if place is not None:
        latitude, longitude = float(place["latitude"]), float(place["longitude"])
        where = (-latitude if place["ns"] == "south" else latitude, -longitude if place["ew"] == "west" else longitude)
    return Said(
        None if name is None else name["name"],
        named_level(text),
        where,
        None if pressure is None else float(pressure["pressure"]),
        None if wind is None else float(wind["wind"]),
        None if motion is None else COMPASS.index(motion["direction"]) * 360 / len(COMPASS),
    )


def bearing(before: np.ndarray, after: np.ndarray) -> float | None:
    """Direction in degrees from north of a rhumb line between places (latitude, longitude); None for hardly any move.

    As `datamodules.storms.best_tracks.motion` computes it.
    """
    north = after[0] - before[0]
    east = (after[1] - before[1]) * np.cos(np.radians((before[0] + after[0]) / 2))
    if not np.hypot(north, east) >= LEAST_MOVE:  # also where a place is not known
        return None
    return float(np.degrees(np.arctan2(east, north)) % 360)


def agreement(
    texts: Sequence[Sequence[str | None]], rows: np.ndarray, before: np.ndarray, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Whether each text agrees with its row, 1 or 0, by what it speaks of; (N, H) each, NaN where it cannot be judged.

    Args:
        texts: N lists of H.
        rows: (N, H, 4), NaN where unknown. before: (N, 4), the row before the first step.
        names: of the N storms, as advisories speak of them.

    Returns:
        ``name``, ``place``, ``pressure``, ``wind``, ``status``, ``motion``; and ``new``: the text differs from the one
        before it, judged where the values differ, too.
    """
    count, steps = rows.shape[:2]
    found = {
        part: np.full((count, steps), np.nan)
        for part in ("name", "place", "pressure", "wind", "status", "motion", "new")
    }
    for n in range(count):
        last, previous = before[n], None
        for h in range(steps):
            row, text = rows[n, h], texts[n][h]
            if text is not None:
                for part, right in _judged(read(text), row, last, names[n]).items():
                    found[part][n, h] = right
                if previous is not None and not np.array_equal(np.round(row, 1), np.round(last, 1), equal_nan=True):
                    found["new"][n, h] = text != previous
            last, previous = row, text
    return found


def _judged(said: Said, row: np.ndarray, last: np.ndarray, name: str) -> dict[str, bool]:
    wind, pressure, *place = row
    right: dict[str, bool] = {}
    if said.name is not None:
        right["name"] = said.name.lower() == name.lower()
    if said.place is not None and np.isfinite(place).all():
        away = np.abs(np.array(said.place) - place)
        away[1] = min(away[1], 360 - away[1])
        right["place"] = bool((away <= DEGREES).all())
    if said.pressure is not None and np.isfinite(pressure):
        right["pressure"] = bool(abs(said.pressure - pressure) <= HECTOPASCAL)
    if said.wind is not None and np.isfinite(wind):
        right["wind"] = bool(abs(said.wind - wind) <= KNOTS)
    if said.level is not None and np.isfinite(wind):
        right["status"] = said.level == wind_level(wind)
    if said.direction is not None and (own := bearing(last[2:], row[2:])) is not None:
        turned = abs(said.direction - own) % 360
        right["motion"] = min(turned, 360 - turned) <= ANGLE
    return right
