"""The data module of the bundled wildlife strikes: weekly counts with the week's remarks, goals about the count."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.sequence_data import SequenceData
from gssr.domains import Items, Steps
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Record
from gssr.sequences.windows import cut

STRIKES_FILE = Path(__file__).parent / "strikes.csv.gz"
GOALS_FILE = Path(__file__).parent / "goals.yaml"

STEP, STEP_HOURS = "7D", 168.0
YEAR_WEEKS = 52
YEAR_DAYS = 365.25
# The years of the weeks' Mondays. The nano backbone was not trained on 1996; 1997 has no remark at all.
YEARS = {"train": range(1990, 1996), "val": range(1996, 1997), "test": range(1997, 1998)}
FIRST_WEEK = date(1990, 4, 30)  # hardly any airport reported before


def read_strikes(path: str | Path = STRIKES_FILE) -> dict[date, tuple[int, int, str | None]]:
    """{Monday: (strikes, those with an effect on the flight, remarks or None)} of a file made by `build.py`."""
    with gzip.open(path, "rt", encoding="ascii", newline="") as file:
        return {
            date.fromisoformat(row["week"]): (int(row["strikes"]), int(row["affected"]), row["remarks"] or None)
            for row in csv.DictReader(file)
        }


def season(monday: date) -> tuple[float, float]:
    """Sine and cosine of the time of year, so that the end of a year meets its beginning."""
    angle = 2 * np.pi * (monday.timetuple().tm_yday - 1) / YEAR_DAYS
    return float(np.sin(angle)), float(np.cos(angle))


def year_record(years: Collection[int]) -> Record:
    """The weeks that begin in some years as one record without a goal."""
    weeks = {day: row for day, row in read_strikes().items() if day.year in years and day >= FIRST_WEEK}
    time = [datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() / 3600 for day in weeks]
    value = [(strikes, affected, *season(day)) for day, (strikes, affected, _) in weeks.items()]
    return Record("wildlife strikes", np.array(time), np.array(value), [remarks for _, _, remarks in weeks.values()])


class Strikes(SequenceData):
    """Windows of weekly wildlife strikes in the United States with goals about their number.

    Values (Y = 4): strikes a week, those with an effect on the flight, and sine and cosine of the time of year. Text:
    the shortened remarks of the week's reports, None where there are none. Goals: hindsight goals about the strikes of
    the week at `goal_step`. There is one series: the weeks of 1990 to 1995 train, 1996 validates, 1997 tests, and no
    window crosses from one part to the next.

    `level_jitter` helps here: there are more strikes each year, and what six years teach has to hold at the level of
    the seventh.
    """

    default_config = "../../configs/strikes.yaml"
    value_names: tuple[str, ...] = ("strikes", "affected", "season_sin", "season_cos")
    value_units: tuple[str, ...] = ("a week", "a week", "", "")
    # The chance in a week's reports is far larger than one strike, so the resolution of a count says nothing.
    value_resolution: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    known_values: int = 2
    value_guides: tuple[tuple[float, str], ...] = ((25.0, "ordinary"), (45.0, "busy"), (65.0, "very busy"))
    season_steps: int | None = YEAR_WEEKS
    step: str | None = STEP

    def __init__(self, *, batch_size: Items = 16, context: Steps = 16, **windows: Any) -> None:
        super().__init__(batch_size, context, **windows)
        self.goal_writer = GoalWriter.read(GOALS_FILE)

    def read_windows(self) -> dict[str, Sequence[Record]]:
        years = {split: [year for part in self.parts_of(split) for year in YEARS[part]] for split in YEARS}
        return {split: cut(year_record(years[split]), step=STEP_HOURS, **self.window) for split in YEARS}
