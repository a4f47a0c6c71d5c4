"""What all data modules of (value, text, goal) sequences share: windows in three splits, goals, loaders that can resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from gssr import ranks
from gssr.sequences.batches import DealtBatches, EpochBatches, EpochLoader
from gssr.sequences.collate import collate
from gssr.sequences.dataset import WindowDataset, check_jitter
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Batch, Record
from gssr.sequences.scaler import Scaler
from gssr.sequences.windows import check_window, rows_once

SPLITS = ("train", "val", "test")
STAGES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}
KINDS = ("combinations", "numbers", "forms")


class SequenceData(LightningDataModule):
    """Windows of C context and H horizon steps, cut from series that are split in training, validation and test.

    A subclass sets the attributes below, in `__init__` or in `read_windows`, and says in `read_windows` what its windows are.

    value_names, value_units, value_resolution: the Y value dimensions; a resolution of 0 is unknown.
    goal_dim: the dimension that goals speak of and charts show.
    known_values: how many of the last dimensions are known of every step beforehand, as the time of year is, and not worth a score.
    value_guides: named levels of that dimension for charts.
    goal_writer: writes hindsight goals; None keeps the goals that windows bring, if any.
    shares_itself: the loaders deal windows out to the processes of a run; train.py then keeps Lightning's own sampler away.
    has_text, has_goals: False where no window has a text or a goal, so that what would read them is not expected to learn.
    default_config: a config that train.py reads when `--data` names the class and no `--config` is given, as a path relative to
        the file of the class; None: configs/default.yaml only.
    most_evaluated: windows of a split that `windows_evaluation` looks at, evenly spaced; None: all.

    Args:
        batch_size: Windows in a batch.
        context: Steps C that are observed.
        horizon: Steps H that are imagined; windows have T = C + H steps.
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

    Raises ValueError for sizes that make no window, a goal step outside the horizon, an empty goal, a negative jitter or an unknown part.
    """

    value_names: tuple[str, ...]
    value_units: tuple[str, ...]
    value_resolution: tuple[float, ...]
    goal_dim: int = 0
    known_values: int = 0
    value_guides: tuple[tuple[float, str], ...] = ()
    goal_writer: GoalWriter | None = None
    default_config: str | None = None
    shares_itself = True
    has_text: bool = True
    has_goals: bool = True
    most_evaluated: int | None = None

    def __init__(
        self,
        batch_size: int,
        context: int,
        horizon: int,
        stride: int,
        goal: str | None,
        goal_step: int | None,
        seed: int,
        num_workers: int,
        goal_cycle: int = 0,
        level_jitter: float = 0.0,
        train_through: str = "train",
    ) -> None:
        super().__init__()
        check_window(context, horizon, stride, goal_step)
        if batch_size < 1 or num_workers < 0 or seed < 0:
            raise ValueError(
                f"batch_size {batch_size} must be at least 1, num_workers {num_workers} and seed {seed} at least 0"
            )
        check_jitter(level_jitter)
        if goal is not None and not goal.strip():
            raise ValueError(
                "the goal is empty; type a sentence such as 'Weaken to 35 knots in 48 hours', or leave it out"
            )
        if train_through not in SPLITS:
            raise ValueError(f"train_through is {train_through!r}; expected the last part to train on, one of {SPLITS}")
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.goal, self.goal_cycle, self.level_jitter = goal, goal_cycle, level_jitter
        self.train_through = train_through
        self.window = {"context": context, "horizon": horizon, "stride": stride, "goal_step": goal_step}
        self._windows: dict[str, Sequence[Record]] = {}
        self._datasets: dict[str, WindowDataset] = {}

    # ------------------------------------------------------------------ what a subclass says

    def read_windows(self) -> dict[str, Sequence[Record]]:
        """The windows of "train", "val" and "test" (`gssr.sequences.windows.cut`), each of its `parts_of`; no step of a series is in two
        parts."""
        raise NotImplementedError

    def parts_of(self, split: str) -> tuple[str, ...]:
        """The parts that windows of a split are cut from, in order: its own; those of "train" from all that are trained on."""
        return SPLITS[: SPLITS.index(self.train_through) + 1] if split == "train" else (split,)

    def predict_windows(self) -> Sequence[Record]:
        """The windows of `predict`: the last one of each series of the test part."""
        return list({window.series: window for window in self._windows["test"]}.values())

    def fit_scaler(self, windows: Sequence[Record]) -> Scaler:
        """The scaler of the training windows, each step of a series counted once."""
        return Scaler(len(self.value_names)).fit(rows_once(windows))

    # ------------------------------------------------------------------ what follows

    def setup(self, stage: str | None = None) -> None:
        """Cut the windows of a stage (None: all); training windows always, because the scaler is fitted on them.

        Raises ValueError for a stage whose scores would be of windows that are trained on, and for a part without windows.
        """
        if stage in ("validate", "test") and (part := STAGES[stage][0]) in self.parts_of("train"):
            raise ValueError(
                f"train_through is {self.train_through}: the {part} part is trained on, and scores of it would say nothing of new data"
            )
        if not self._windows:
            windows = self.read_windows()
            for split in SPLITS:
                if not len(windows[split]):
                    raise ValueError(
                        f"no series of the {split} part has {self.window['context']} + {self.window['horizon']} "
                        "steps in a row; choose a shorter context or horizon, or another split"
                    )
            self.scaler = self.fit_scaler(windows["train"])
            self._windows = windows
        for name in STAGES.get(stage, ("train", "val", "test", "predict")):
            self._datasets.setdefault(name, self._dataset(name))

    def _dataset(self, name: str) -> WindowDataset:
        if name == "train":
            how = (self.goal_writer, "train", self.seed, self.goal_cycle, self.level_jitter, self.known_values)
            return WindowDataset(self._windows["train"], *how)
        windows = self.predict_windows() if name == "predict" else self._windows[name]
        if name == "predict" and self.goal is not None:
            silent = np.full(len(self.value_names), np.nan, np.float32)
            return WindowDataset(
                [replace(w, goal=self.goal.strip(), goal_low=silent, goal_high=silent) for w in windows]
            )
        return WindowDataset(windows, self.goal_writer, "combinations", self.seed)

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

    def train_dataloader(self) -> EpochLoader:
        """Shuffled batches; the loader's state resumes in the middle of an epoch with identical batches."""
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0
        batches = EpochBatches(
            len(self.train_records), self.batch_size, self.seed, not overfit, ranks.rank(), ranks.world()
        )
        return EpochLoader(self.train_records, batches, **self._loading())

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation(self.val_records)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation(self.test_records)

    def predict_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.predict_records, batch_size=self.batch_size, **self._loading())

    def _evaluation(self, records: WindowDataset) -> DataLoader[Batch]:
        batches = DealtBatches(len(records), self.batch_size, ranks.rank(), ranks.world())
        return DataLoader(records, batch_sampler=batches, **self._loading())

    def _loading(self) -> dict[str, Any]:
        # Without its own generator a loader draws from torch's global state at every start.
        generator = torch.Generator().manual_seed(self.seed)
        return {"collate_fn": collate, "num_workers": self.num_workers, "generator": generator}

    def texts(self) -> list[str]:
        """All distinct texts of the splits that are set up, in order of first appearance."""
        records = [record for dataset in self._datasets.values() for record in dataset.records]
        return list(dict.fromkeys(text for record in records for text in record.text if text is not None))

    def windows_evaluation(self, split: str, goals: str = "combinations") -> list[Record]:
        """Windows of a split ("train", "val", "test") with goals of a kind not trained on, always the same for a seed.

        goals "combinations": forms, numbers and classes of training in combinations that training leaves out;
        "numbers": the numbers that training leaves out, in training forms, so only windows that end at one;
        "forms": sentence forms that training leaves out. Windows without a goal are left out; where there is no goal writer
        the goals are those that windows bring.

        Raises ValueError for another split or kind.
        """
        if split not in SPLITS or goals not in KINDS:
            raise ValueError(
                f"windows_evaluation was asked for split {split!r} with goals {goals!r}; expected one "
                f"of {SPLITS} and one of {KINDS}"
            )
        if not self._windows:
            self.setup("validate")
        dataset = WindowDataset(self._windows[split], self.goal_writer, goals, self.seed)
        size = len(dataset)
        most = size if self.most_evaluated is None else min(size, self.most_evaluated)
        records = (dataset[i * size // most] for i in range(most))
        return [record for record in records if record.goal is not None]
