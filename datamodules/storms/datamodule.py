"""The data module of the bundled Atlantic storms: windows, splits by year, goals about the wind."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from datamodules.sequence_data import SequenceData
from datamodules.storms.best_tracks import Storm, advisories, read_storms
from datamodules.storms.report import evaluate_storms
from gssr.domains import Fraction, Range
from gssr.evaluation.report import Report
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Record
from gssr.sequences.windows import cut

GOALS_FILE = Path(__file__).parent / "goals.yaml"

STEP, STEP_HOURS = "6h", 6.0
YEARS = {"train": range(0, 2010), "val": range(2010, 2016), "test": range(2016, 10_000)}  # by the storm's year


Knots = Annotated[int, Range(0, 100)]


def storm_record(storm: Storm) -> Record:
    """A track as a record without a goal: values wind, pressure, latitude, longitude; the status as step label."""
    value = np.stack([storm.wind, storm.pressure, storm.latitude, storm.longitude], axis=1)
    return Record(storm.series, storm.time, value, advisories(storm), step_label=storm.status)


class Storms(SequenceData):
    """Windows of Atlantic storms with goals about their wind.

    Values (Y = 4): wind in knots, pressure in hPa, latitude and longitude in degrees (west negative), six-hourly. Text:
    an advisory a step. Goals: hindsight goals about the wind at `goal_step`. Storms before 2010 train, those of 2010 to
    2015 validate, those from 2016 on test. Validation, test and prediction use goals in combinations of form and number
    that training leaves out.

    Args:
        storm: Predict all windows of this storm of the test years, by name and year ("Ian 2022"). Without it, `predict`
            has one window of each storm: the one whose context ends at the strongest wind.
        goal_jitter: A training goal's number differs from the best track (rounded to 5 kt) by up to this many knots.
        class_share: Share of goals that name a class although they could name a number. A fifth of the windows ends at
            a number held out of training and gets a class goal in any case, so 0.15 makes a third of all goals classes.

    Raises ValueError for an unknown storm, and as `SequenceData` does.
    """

    value_names: tuple[str, ...] = ("wind", "pressure", "latitude", "longitude")
    value_units: tuple[str, ...] = ("kt", "hPa", "deg", "deg")
    value_resolution: tuple[float, ...] = (5.0, 1.0, 0.1, 0.1)
    value_row = "wind {wind} kt, pressure {pressure} hPa, {latitude:north|south} {longitude:east|west}:"
    step: str | None = STEP
    # Saffir-Simpson scale, for charts of the wind.
    value_guides: tuple[tuple[float, str], ...] = (
        (34.0, "tropical storm"),
        (64.0, "cat 1"),
        (83.0, "cat 2"),
        (96.0, "cat 3"),
        (113.0, "cat 4"),
        (137.0, "cat 5"),
    )

    def __init__(
        self,
        *,
        storm: str | None = None,
        goal_jitter: Knots = 2,
        class_share: Fraction = 0.15,
        **windows: Any,
    ) -> None:
        super().__init__(**windows)
        self.storm = storm
        self.goal_writer = GoalWriter.read(GOALS_FILE, jitter=goal_jitter, class_share=class_share)

    def read_windows(self) -> dict[str, Sequence[Record]]:
        records = [(storm.year, storm_record(storm)) for storm in read_storms()]
        windows = {}
        for split in YEARS:
            years = [YEARS[part] for part in self.parts_of(split)]
            chosen = [record for year, record in records if any(year in span for span in years)]
            windows[split] = [window for record in chosen for window in cut(record, step=STEP_HOURS, **self.window)]
        return windows

    def evaluate(self, network: Any, split: str = "test", samples: int = 64, quick: bool = False) -> Report:
        """The report on storms: beside forecasts, borrowed goals, plausibility, the belief, and plans in words."""
        return evaluate_storms(network, self, split, samples=samples, quick=quick)

    def predict_windows(self) -> Sequence[Record]:
        windows = self._windows["test"]
        if self.storm is None:
            best: dict[str, Record] = {}
            for window in windows:
                if window.series not in best or _last_wind(window) > _last_wind(best[window.series]):
                    best[window.series] = window
            return list(best.values())
        found = [window for window in windows if window.series.lower() == self.storm.strip().lower()]
        if not found:
            known = sorted({window.series for window in windows})
            near = difflib.get_close_matches(self.storm.strip().title(), known, n=3, cutoff=0.3)
            raise ValueError(
                f"no storm {self.storm!r} among the {len(known)} of the test years that are long enough; expected name "
                f"and year, such as {', '.join(map(repr, near or known[-3:]))}"
            )
        return found


def _last_wind(window: Record) -> float:
    """The wind in knots at the end of the context, 0 where it is missing."""
    return float(np.nan_to_num(window.value[window.goal_start, 0]))
