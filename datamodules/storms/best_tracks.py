"""The bundled Atlantic hurricane best tracks: reading them, and an advisory in words for each step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

STORMS_FILE = Path(__file__).parent / "storms.csv.gz"

COMPASS = [
    "north",
    "north-northeast",
    "northeast",
    "east-northeast",
    "east",
    "east-southeast",
    "southeast",
    "south-southeast",
    "south",
    "south-southwest",
    "southwest",
    "west-southwest",
    "west",
    "west-northwest",
    "northwest",
    "north-northwest",
]
_MAX_MOTION_HOURS = 24.0  # positions further apart do not give the motion now
# How an advisory of each status begins, and what it calls the pressure.
_PHRASES = {
    "tropical depression": ("Tropical depression {name}", "Central pressure"),
    "tropical storm": ("Tropical storm {name}", "Central pressure"),
    "hurricane": ("Hurricane {name}", "Minimum central pressure"),
    "subtropical depression": ("Subtropical depression {name}", "Central pressure"),
    "subtropical storm": ("Subtropical storm {name}", "Central pressure"),
    "extratropical": ("Extratropical cyclone {name} centered", "Central pressure"),
    "other low": ("Low {name}", "Lowest pressure"),
    "tropical wave": ("Tropical wave {name}", "Lowest pressure"),
    "disturbance": ("Disturbance {name}", "Lowest pressure"),
}
_NUMBER_WORDS = [
    "Zero",
    "One",
    "Two",
    "Three",
    "Four",
    "Five",
    "Six",
    "Seven",
    "Eight",
    "Nine",
    "Ten",
    "Eleven",
    "Twelve",
    "Thirteen",
    "Fourteen",
    "Fifteen",
    "Sixteen",
    "Seventeen",
    "Eighteen",
    "Nineteen",
    "Twenty",
]


@dataclass
class Storm:
    """The best track of one storm, T six-hourly steps (with gaps in the 1970s).

    `time` (T) hours since 1970-01-01T00Z; `latitude`, `longitude` (T) degrees north and east (west is negative); `wind`
    (T) knots and `pressure` (T) hPa, NaN where missing; `status` T words. `year` is that of the first record.
    """

    name: str
    year: int
    time: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray
    status: list[str]
    wind: np.ndarray
    pressure: np.ndarray

    @property
    def series(self) -> str:
        return f"{self.name} {self.year}"

    def __len__(self) -> int:
        return len(self.time)


def read_storms(path: str | Path = STORMS_FILE, years: range | None = None) -> list[Storm]:
    """The storms of a file made by `build.py`, in order of their first record, of all or of some years."""
    table = pd.read_csv(path)
    hours = (pd.to_datetime(table["time"]) - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(hours=1)
    storms = []
    for (name, year), rows in table.assign(hours=hours).groupby(["name", "year"], sort=False):
        if years is None or year in years:
            latitude, longitude, wind, pressure = rows[["lat", "long", "wind", "pressure"]].to_numpy(float).T
            longitude = np.unwrap(longitude, period=360.0)  # continuous should a track cross the date line
            status = rows["status"].tolist()
            storms.append(Storm(name, year, rows["hours"].to_numpy(), latitude, longitude, status, wind, pressure))
    return storms


def motion(latitude: np.ndarray, longitude: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Speed in knots (T - 1) and compass direction of 16 points (T - 1) from each of T positions to the next.

    Great-circle distance (haversine formula), and the bearing of a rhumb line by the cosine of the mean latitude; both
    are finer than the tenth of a degree that positions are given in. `time` (T) in hours.
    """
    phi, lam = np.radians(latitude), np.radians(longitude)
    d_phi, d_lam = np.diff(phi), np.diff(lam)
    a = np.sin(d_phi / 2) ** 2 + np.cos(phi[:-1]) * np.cos(phi[1:]) * np.sin(d_lam / 2) ** 2
    nautical_miles = np.degrees(2 * np.arcsin(np.sqrt(a))) * 60
    bearing = np.degrees(np.arctan2(d_lam * np.cos((phi[:-1] + phi[1:]) / 2), d_phi)) % 360
    points = np.round(bearing / 22.5).astype(int) % 16
    return nautical_miles / np.diff(time), [COMPASS[point] for point in points]


def spoken_name(name: str) -> str:
    """The name in an advisory; unnamed depressions ("AL031987", third cyclone of 1987) go by their number, "Three"."""
    if name[:2].upper() == "AL" and name[2:].isdigit():
        return _NUMBER_WORDS[int(name[2:4])]
    return name


def advisories(storm: Storm) -> list[str]:
    """One advisory a step from name, position, motion since the previous step, status and pressure, without the wind.

    "Tropical storm Amy near 34.0 north 77.5 west, moving north-northeast at 9 knots. Central pressure 1002 hPa."
    """
    name = spoken_name(storm.name)
    hours = np.diff(storm.time)
    speed, direction = motion(storm.latitude, storm.longitude, storm.time)
    east = (storm.longitude + 180) % 360 - 180
    texts = []
    for t in range(len(storm)):
        opening, pressure = _PHRASES[storm.status[t]]
        text = f"{opening.format(name=name)} near"
        text += f" {abs(storm.latitude[t]):.1f} {'south' if storm.latitude[t] < 0 else 'north'}"
        text += f" {abs(east[t]):.1f} {'east' if east[t] > 0 else 'west'}"
        if t > 0 and hours[t - 1] <= _MAX_MOTION_HOURS:
            still = round(speed[t - 1]) == 0
            text += ", stationary" if still else f", moving {direction[t - 1]} at {speed[t - 1]:.0f} knots"
        text += "."
        if np.isfinite(storm.pressure[t]):
            text += f" {pressure} {storm.pressure[t]:.0f} hPa."
        texts.append(text)
    return texts
