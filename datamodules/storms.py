"""The data module of the bundled Atlantic storms: windows, splits by year, goals about the wind."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning import LightningDataModule
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from datamodules.best_tracks import Storm, advisories, read_storms
from gssr.sequences.collate import collate
from gssr.sequences.dataset import EpochSampler, WindowDataset
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Batch, Record
from gssr.sequences.scaler import Scaler
from gssr.sequences.windows import check_window, cut, rows_once

GOALS_FILE = Path(__file__).parent / "data" / "storm_goals.yaml"

STEP_HOURS = 6.0
SPLITS = {"train": range(0, 2010), "val": range(2010, 2016), "test": range(2016, 10_000)}  # by the storm's year


def storm_goal_writer(**changes: object) -> GoalWriter:
    """The writer of goals about a storm's wind, from `storm_goals.yaml`; `changes` replace single arguments."""
    with open(GOALS_FILE, encoding="utf-8") as file:
        return GoalWriter(**(yaml.safe_load(file) | changes))


def storm_record(storm: Storm) -> Record:
    """The whole track as a record without a goal: values wind, pressure, latitude, longitude; labels are the status."""
    value = np.stack([storm.wind, storm.pressure, storm.latitude, storm.longitude], axis=1)
    return Record(storm.series, storm.time, value, advisories(storm), step_label=storm.status)


class Storms(LightningDataModule):
    """Windows of Atlantic storms with goals about their wind.

    Values (Y = 4): wind in knots, pressure in hPa, latitude and longitude in degrees (west negative); text: an advisory
    a step; goals: hindsight goals about the wind at `goal_step`. Storms before 2010 train, 2010-2015 validate, from
    2016 on test. Validation, test and prediction use goals in combinations of form and number that training leaves out.

    Args:
        batch_size: Windows in a batch.
        context: Steps C that are observed.
        horizon: Steps H that are imagined; windows have T = C + H six-hourly steps.
        stride: Steps between the starts of two windows.
        goal: A goal typed by the user, for every window of `predict`; its bounds are unknown (NaN).
        goal_step: Step of the window, from 0, at which goals should hold; null means the window's last.
        storm: Predict all windows of this storm of the test years, by name and year ("Ian 2022"). Without it, predict takes
            one window of each: the one whose context ends at the storm's strongest wind.
        seed: Seed of shuffling and of goals.
        num_workers: Processes that read windows.
        goal_jitter: A training goal's number differs from the best track (rounded to 5 kt) by up to this many knots.
        class_share: Share of goals that name a class although a number could be named. A fifth of the windows ends at a
            number held out of training and has a class goal in any case, so 0.15 makes a third of all goals classes.
        goal_cycle: Training goals repeat after this many epochs, so that their encodings can be kept; 0 means never.

    Raises ValueError for sizes that make no window, a goal step outside the horizon, an empty goal or an unknown storm.
    """

    value_names: tuple[str, ...] = ("wind", "pressure", "latitude", "longitude")
    value_units: tuple[str, ...] = ("kt", "hPa", "deg", "deg")
    value_resolution: tuple[float, ...] = (5.0, 1.0, 0.1, 0.1)
    goal_dim: int = 0
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
        batch_size: int = 64,
        context: int = 8,
        horizon: int = 8,
        stride: int = 1,
        goal: str | None = None,
        goal_step: int | None = None,
        storm: str | None = None,
        seed: int = 0,
        num_workers: int = 0,
        goal_jitter: int = 2,
        class_share: float = 0.15,
        goal_cycle: int = 0,
    ) -> None:
        super().__init__()
        check_window(context, horizon, stride, goal_step)
        if batch_size < 1 or num_workers < 0 or seed < 0:
            raise ValueError(
                f"batch_size {batch_size} must be at least 1, num_workers {num_workers} and seed {seed} at least 0"
            )
        if goal is not None and not goal.strip():
            raise ValueError(
                "the goal is empty; type a sentence such as 'Weaken to 35 knots in 48 hours', or leave it out"
            )
        self.save_hyperparameters(logger=False)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.goal, self.storm, self.goal_cycle = goal, storm, goal_cycle
        self._window = {"context": context, "horizon": horizon, "stride": stride, "goal_step": goal_step}
        self.goal_writer = storm_goal_writer(jitter=goal_jitter, class_share=class_share)
        self.scaler = Scaler(len(self.value_names))
        self._windows: dict[str, list[Record]] = {}
        self._datasets: dict[str, WindowDataset] = {}

    def setup(self, stage: str | None = None) -> None:
        """Cut the windows of a stage (None: all); training windows always, because the scaler is fitted on them."""
        if not self._windows:
            records = [(storm.year, storm_record(storm)) for storm in read_storms()]
            for split, years in SPLITS.items():
                own = [record for year, record in records if year in years]
                self._windows[split] = [w for record in own for w in cut(record, step=STEP_HOURS, **self._window)]
                if not self._windows[split]:
                    raise ValueError(
                        f"no storm of the {split} years has {self._window['context']} + {self._window['horizon']} "
                        "six-hourly steps in a row; choose a shorter context or horizon"
                    )
            self.scaler.fit(rows_once(self._windows["train"]))
        stages = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}
        for name in stages.get(stage, ("train", "val", "test", "predict")):
            self._datasets.setdefault(name, self._dataset(name))

    def _dataset(self, name: str) -> WindowDataset:
        windows = self._windows["test" if name == "predict" else name]
        if name == "train":
            return WindowDataset(windows, self.goal_writer, "train", self.seed, self.goal_cycle)
        if name == "predict":
            windows = _strongest(windows) if self.storm is None else self._of_storm(self.storm, windows)
        if name == "predict" and self.goal is not None:
            silent = np.full(len(self.value_names), np.nan, np.float32)
            return WindowDataset(
                [replace(w, goal=self.goal.strip(), goal_low=silent, goal_high=silent) for w in windows]
            )
        return WindowDataset(windows, self.goal_writer, "combinations", self.seed)

    def _of_storm(self, storm: str, windows: list[Record]) -> list[Record]:
        found = [window for window in windows if window.series.lower() == storm.strip().lower()]
        if not found:
            known = sorted({window.series for window in windows})
            near = difflib.get_close_matches(storm.strip().title(), known, n=3, cutoff=0.3)
            raise ValueError(
                f"no storm {storm!r} among the {len(known)} of the test years that are long enough; expected name and "
                f"year, such as {', '.join(map(repr, near or known[-3:]))}"
            )
        return found

    def _ready(self, name: str) -> WindowDataset:
        if name not in self._datasets:
            raise RuntimeError(f"the {name} windows are not set up; call setup() first")
        return self._datasets[name]

    @property
    def train_records(self) -> WindowDataset:
        return self._ready("train")

    @property
    def val_records(self) -> WindowDataset:
        return self._ready("val")

    @property
    def test_records(self) -> WindowDataset:
        return self._ready("test")

    @property
    def predict_records(self) -> WindowDataset:
        return self._ready("predict")

    def train_dataloader(self) -> StatefulDataLoader:
        """Shuffled batches; its state resumes in the middle of an epoch with identical batches."""
        sampler = EpochSampler(len(self.train_records), self.seed)
        return StatefulDataLoader(self.train_records, sampler=sampler, **self._loading())

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.val_records, **self._loading())

    def test_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.test_records, **self._loading())

    def predict_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.predict_records, **self._loading())

    def _loading(self) -> dict[str, Any]:
        # A generator of its own: a loader would otherwise draw from torch's global state at every start.
        generator = torch.Generator().manual_seed(self.seed)
        return {
            "batch_size": self.batch_size,
            "collate_fn": collate,
            "num_workers": self.num_workers,
            "generator": generator,
        }

    def texts(self) -> list[str]:
        """All distinct advisories of the splits that are set up, in order of first appearance."""
        records = [record for dataset in self._datasets.values() for record in dataset.records]
        return list(dict.fromkeys(text for record in records for text in record.text if text is not None))

    def goal_texts(self) -> list[str]:
        """All distinct goals of the splits that are set up, but for those of training, which are new in every epoch."""
        datasets = [dataset for name, dataset in self._datasets.items() if name != "train"]
        return list(dict.fromkeys(record.goal for dataset in datasets for record in dataset if record.goal is not None))

    def windows_evaluation(self, split: str, goals: str = "combinations") -> list[Record]:
        """Windows of a split ("train", "val", "test") with goals of a kind not trained on, always the same for a seed.

        goals "combinations": forms, numbers and classes of training in combinations that training leaves out;
        "numbers": the numbers that training leaves out, in training forms, so only windows that end at one;
        "forms": sentence forms that training leaves out. Windows without a wind at the goal step are left out.

        Raises ValueError for another split or kind.
        """
        if split not in SPLITS or goals not in ("combinations", "numbers", "forms"):
            raise ValueError(
                f"windows_evaluation was asked for split {split!r} with goals {goals!r}; expected one "
                f"of {tuple(SPLITS)} and one of ('combinations', 'numbers', 'forms')"
            )
        if not self._windows:
            self.setup("validate")
        dataset = WindowDataset(self._windows[split], self.goal_writer, goals, self.seed)
        return [record for record in dataset if record.goal is not None]


def _strongest(windows: list[Record]) -> list[Record]:
    """One window of each storm, the one with the most wind at the end of its context."""
    best: dict[str, Record] = {}
    for window in windows:
        now = best.get(window.series)
        wind = np.nan_to_num(window.value[window.goal_start, 0])
        if now is None or wind > np.nan_to_num(now.value[now.goal_start, 0]):
            best[window.series] = window
    return list(best.values())
