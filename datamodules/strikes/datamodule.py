"""The data module of the bundled wildlife strikes: weekly counts with the week's remarks, goals about the count."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import yaml

from datamodules.sequence_data import SequenceData
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Record
from gssr.sequences.windows import cut

STRIKES_FILE = Path(__file__).parent / "strikes.csv.gz"
GOALS_FILE = Path(__file__).parent / "goals.yaml"

STEP_HOURS = 168.0
YEAR_WEEKS = 52
YEAR_DAYS = 365.25
# The years of the weeks' Mondays. 1996 is what the nano backbone was never trained on; it has no remark of 1997 at all.
YEARS = {"train": range(1990, 1996), "val": range(1996, 1997), "test": range(1997, 1998)}
FIRST_WEEK = date(1990, 4, 30)  # before, hardly any airport had begun to report


def strike_goal_writer() -> GoalWriter:
    """The writer of goals about a week's count, from `strike_goals.yaml`."""
    with open(GOALS_FILE, encoding="utf-8") as file:
        return GoalWriter(**yaml.safe_load(file))


def read_strikes(path: str | Path = STRIKES_FILE) -> dict[date, tuple[int, int, str | None]]:
    """{Monday: (strikes, those with an effect on the flight, remarks or None)} of a file made by `build_strikes.py`."""
    with gzip.open(path, "rt", encoding="ascii", newline="") as file:
        return {
            date.fromisoformat(row["week"]): (int(row["strikes"]), int(row["affected"]), row["remarks"] or None)
            for row in csv.DictReader(file)
        }


def season(monday: date) -> tuple[float, float]:
    """Sine and cosine of the time of year: known of every week, and what makes a year's end meet its beginning."""
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

    Values (Y = 4): strikes a week, those with an effect on the flight, and sine and cosine of the time of year; text: the
    remarks of the week's reports, shortened, None where there are none; goals: hindsight goals about the strikes of the
    week at `goal_step`. One series: weeks of 1990 to 1995 train, 1996 validates, 1997 tests, and no window crosses a new year
    from one of these to the next.

    Args:
        batch_size: Windows in a batch.
        context: Steps C that are observed.
        horizon: Steps H that are imagined; windows have T = C + H weeks.
        stride: Steps between the starts of two windows.
        goal: A goal typed by the user, for every window of `predict`; its bounds are unknown (NaN).
        goal_step: Step of the window, from 0, at which goals should hold; null means the window's last.
        seed: Seed of shuffling and of goals.
        num_workers: Processes that read windows.
        goal_cycle: Training goals repeat after this many epochs, so that their encodings can be kept; 0 means never.
        level_jitter: Each training window is seen at another level in each epoch, its values times exp(s z) with standard normal z
            and this s; for amounts whose level drifts away from what little there is to train on. 0: as they are.
        train_through: The last part that is trained on: train; val, once settings and length of training are chosen on it; or test,
            before forecasting what is not known yet.

    Raises ValueError for sizes that make no window, a goal step outside the horizon, an empty goal or a negative jitter.
    """

    value_names: tuple[str, ...] = ("strikes", "affected", "season_sin", "season_cos")
    value_units: tuple[str, ...] = ("a week", "a week", "", "")
    # A count has no resolution of its own: the chance in a week's reports is far larger than one.
    value_resolution: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    goal_dim: int = 0
    known_values: int = 2
    value_guides: tuple[tuple[float, str], ...] = ((25.0, "ordinary"), (45.0, "busy"), (65.0, "very busy"))
    season_steps: int = YEAR_WEEKS
    default_config = "../../configs/strikes.yaml"

    def __init__(
        self,
        batch_size: int = 16,
        context: int = 16,
        horizon: int = 8,
        stride: int = 1,
        goal: str | None = None,
        goal_step: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        goal_cycle: int = 0,
        level_jitter: float = 0.0,
        train_through: str = "train",
    ) -> None:
        sizes = (batch_size, context, horizon, stride, goal, goal_step, seed, num_workers, goal_cycle)
        super().__init__(*sizes, level_jitter, train_through)
        self.save_hyperparameters(logger=False)
        self.goal_writer = strike_goal_writer()

    def read_windows(self) -> dict[str, Sequence[Record]]:
        years = {split: [year for part in self.parts_of(split) for year in YEARS[part]] for split in YEARS}
        return {split: cut(year_record(years[split]), step=STEP_HOURS, **self.window) for split in YEARS}
