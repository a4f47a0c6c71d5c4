"""The base of all data modules of (value, text, goal) sequences: windows in three splits, goals, resumable loaders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from gssr import ranks
from gssr.domains import Count, CountOrNone, Items, Processes, Range, Seed, Steps, check, hints_of
from gssr.evaluation.forecast_report import evaluate_forecasts
from gssr.evaluation.report import Report
from gssr.sequences.batches import DealtBatches, EpochBatches, EpochLoader
from gssr.sequences.collate import collate
from gssr.sequences.dataset import WindowDataset
from gssr.sequences.goals import KINDS, GoalWriter
from gssr.sequences.record import Batch, Record
from gssr.sequences.scaler import Scaler
from gssr.sequences.windows import check_window, rows_once

SPLITS = ("train", "val", "test")
STAGES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


class SequenceData(LightningDataModule):
    """Windows of C context and H horizon steps, cut from series that are split in training, validation and test.

    It implements `gssr.sequences.source.SequenceSource`, which documents each attribute. A subclass returns its
    windows from `read_windows` and sets the attributes that differ, at the latest there. Its `__init__` names its own
    options and passes the window options below on (`**windows`); so only this class documents them. All options are
    hyper-parameters.

    Six attributes are not in that contract:

    default_config: a config that `--data` reads for this class when no `--config` is given, as a path relative to the
        file of the class; None: configs/default.yaml only.
    value_row: how `speech.row auto` puts the values of a step in words (see `RowInWords`); None: each by its name.
    shares_itself: the loaders deal windows to the processes of a run, so Lightning must add no sampler of its own.
    predicts_future: `predict` knows nothing after its contexts, so no goal is written from what came to pass.
    chosen: options that were auto, as they were chosen; there after `setup`.
    most_evaluated: most windows that `windows_evaluation` looks at, evenly spaced; None: all.

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
        level_jitter: Each epoch multiplies the values of a training window by exp(s z), with this s and a standard
            normal z. It helps amounts whose level drifts away from the few that training shows. 0 keeps values as
            they are.
        train_through: The last part that is trained on: train; val, once settings and length of training are chosen on
            it; or test, before a forecast of the unknown future.

    Raises ValueError for sizes that make no window, a goal step outside the horizon, an empty goal, a negative jitter
    or an unknown part.
    """

    default_config: str | None = None
    value_names: tuple[str, ...]
    value_units: tuple[str, ...]
    value_resolution: tuple[float, ...]
    value_row: str | None = None
    value_guides: tuple[tuple[float, str], ...] = ()
    goal_dim: int = 0
    known_values: int = 0
    season_steps: int | None = None
    step: str | None = None
    goal_writer: GoalWriter | None = None
    has_text: bool = True
    has_goals: bool = True
    scaler: Scaler
    shares_itself = True
    predicts_future = False
    most_evaluated: int | None = None

    def __init__(
        self,
        batch_size: Items = 64,
        context: Steps = 8,
        horizon: Steps = 8,
        stride: Count = 1,
        goal: str | None = None,
        goal_step: Count | None = None,
        seed: Seed = 0,
        num_workers: Processes = 0,
        goal_cycle: CountOrNone = 0,
        level_jitter: Annotated[float, Range(0, 10)] = 0.0,
        train_through: Literal["train", "val", "test"] = "train",
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # also those of the subclass that calls this
        check(hints_of(type(self)), self.hparams)
        check_window(context, horizon, stride, goal_step)
        if goal is not None and not goal.strip():
            raise ValueError(
                "the goal is empty; type a sentence such as 'Weaken to 35 knots in 48 hours', or leave it out"
            )
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.goal, self.goal_cycle, self.level_jitter = goal, goal_cycle, level_jitter
        self.train_through = train_through
        self.window = {"context": context, "horizon": horizon, "stride": stride, "goal_step": goal_step}
        self.chosen: dict[str, Any] = {}
        self._windows: dict[str, Sequence[Record]] = {}
        self._datasets: dict[str, WindowDataset] = {}

    def read_windows(self) -> dict[str, Sequence[Record]]:
        """The windows of "train", "val" and "test", each cut from its `parts_of` (`gssr.sequences.windows.cut`).

        No step of a series may be in two parts.
        """
        raise NotImplementedError

    def predict_windows(self) -> Sequence[Record]:
        """The windows of `predict`: the last one of each series of the test part."""
        return list({window.series: window for window in self._windows["test"]}.values())

    def fit_scaler(self, windows: Sequence[Record]) -> Scaler:
        """The scaler of the training windows, each step of a series counted once."""
        return Scaler(len(self.value_names)).fit(rows_once(windows))

    def evaluate(self, network: Any, split: str = "test", samples: int = 64, quick: bool = False) -> Report:
        """The report that `test` prints and writes: forecasts beside their baselines, and goals that came true.

        A subclass that measures more returns a report of its own, with pictures if it has any. Arguments as in
        `SequenceSource.evaluate`.
        """
        return evaluate_forecasts(network, self, split, samples=samples, quick=quick)

    def parts_of(self, split: str) -> tuple[str, ...]:
        """The parts that a split is cut from, in order; "train" has all parts up to `train_through`."""
        return SPLITS[: SPLITS.index(self.train_through) + 1] if split == "train" else (split,)

    def setup(self, stage: str | None = None) -> None:
        """Cut the windows of a stage (None: all); training windows always, because the scaler is fitted on them.

        Raises ValueError for a stage that would score windows that are trained on, and for a part without windows.
        """
        if stage in ("validate", "test") and (part := STAGES[stage][0]) in self.parts_of("train"):
            raise ValueError(
                f"train_through is {self.train_through}: the {part} part is trained on, so its scores would "
                "not hold for new data"
            )
        self._read()
        for name in STAGES.get(stage, ("train", "val", "test", "predict")):
            self._datasets.setdefault(name, self._dataset(name))

    def _read(self) -> None:
        """Read all windows and fit the scaler, once."""
        if self._windows:
            return
        windows = self.read_windows()
        if self.goal_writer is not None and self.goal_writer.dimension >= len(self.value_names):
            raise ValueError(
                f"goals speak of the dimension {self.goal_writer.dimension}; expected the index of one of "
                f"{list(self.value_names)}, from 0"
            )
        for split in SPLITS:
            if not len(windows[split]):
                raise ValueError(
                    f"no series of the {split} part has {self.window['context']} + {self.window['horizon']} "
                    "steps in a row; choose a shorter context or horizon, or another split"
                )
        self.scaler = self.fit_scaler(windows["train"])
        self._windows = windows

    def _dataset(self, name: str) -> WindowDataset:
        if name == "train":
            how = (self.goal_writer, "train", self.seed, self.goal_cycle, self.level_jitter, self.known_values)
            return WindowDataset(self._windows["train"], *how)
        windows = self.predict_windows() if name == "predict" else self._windows[name]
        if name == "predict" and self.goal is not None:
            unknown = np.full(len(self.value_names), np.nan, np.float32)
            return WindowDataset(
                [replace(w, goal=self.goal.strip(), goal_low=unknown, goal_high=unknown) for w in windows]
            )
        writer = None if name == "predict" and self.predicts_future else self.goal_writer
        return WindowDataset(windows, writer, "combinations", self.seed)

    def _ready(self, name: str) -> WindowDataset:
        if name not in self._datasets:
            raise RuntimeError(f"the {name} windows are not set up; call setup() first")
        return self._datasets[name]

    def windows(self, split: str) -> Sequence[Record]:
        """The windows of a split ("train", "val", "test") as they were cut, before a goal is written."""
        self._read()
        return self._windows[split]

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
        """Windows of a split ("train", "val", "test") with goals that training leaves out; the same for a seed.

        "combinations": forms, numbers and classes of training in combinations that training leaves out;
        "numbers": the numbers that training leaves out, in training forms, so only windows that end at one;
        "forms": sentence forms that training leaves out. Windows without a goal are dropped. Without a goal writer the
        goals are those that windows bring.

        Raises ValueError for another split or kind.
        """
        if split not in SPLITS or goals not in KINDS:
            raise ValueError(
                f"windows_evaluation was asked for split {split!r} with goals {goals!r}; expected one "
                f"of {SPLITS} and one of {tuple(KINDS)}"
            )
        dataset = WindowDataset(self.windows(split), self.goal_writer, goals, self.seed)
        size = len(dataset)
        most = size if self.most_evaluated is None else min(size, self.most_evaluated)
        records = (dataset[i * size // most] for i in range(most))
        return [record for record in records if record.goal is not None]
