"""The windows that score every forecast, and what is known at each of their origins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gssr.evaluation.baselines import horizon_truth
from gssr.evaluation.forecast_report import stretches
from gssr.evaluation.imagining import pick_evenly
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record

MOST_TRAINING = 20_000


@dataclass
class Origins:
    """Windows of one part ("val", "test") without goals; scores are of one value dimension.

    Attributes:
        batch: B windows of C + H steps. truth: (B, H), NaN where not observed.
        clusters: B names of what errors are over: a series or a stretch of time.
        history: B arrays of the dimension's values, from the series' first step to the window's origin.
        training, validation: the windows to fit a method on, and those to choose one by.
    """

    data: Any
    part: str
    batch: Batch
    truth: Tensor
    clusters: list[str]
    history: list[np.ndarray]
    training: Batch
    validation: Batch
    dimension: int
    period: int | None

    @property
    def context(self) -> int:
        return int(self.batch.context[0])

    @property
    def horizon(self) -> int:
        return self.truth.shape[1]

    @property
    def step_hours(self) -> float:
        return float((self.batch.time[:, 1:] - self.batch.time[:, :-1]).median())

    @property
    def jittered(self) -> bool:
        """Whether every epoch of training sees the windows at other levels."""
        return self.data.level_jitter > 0

    def training_at(self, epoch: int) -> Batch:
        """`training` at the levels of one epoch, those that the network sees."""
        dataset = self.data.train_records
        length = self.training.value.shape[1]
        whole = [i for i, window in enumerate(dataset.records) if len(window) == length]
        return collate([dataset[epoch, whole[i]] for i in pick_evenly(len(whole), MOST_TRAINING)])

    @property
    def every(self) -> list[Record]:
        """The windows of all parts; the caller must use nothing that lies behind an origin."""
        return [window for part in ("train", "val", "test") for window in self.data.windows(part)]


def find_origins(data: Any, part: str, most: int) -> Origins:
    """At most `most` windows of a part, evenly picked; sets the data module up.

    Raises ValueError for another part.
    """
    if part not in ("val", "test"):
        raise ValueError(f"scores are of the parts val and test, not of {part!r}")
    for stage in ("fit", "test"):
        data.setup(stage)
    windows = {name: list(data.windows(name)) for name in ("train", "val", "test")}
    length = max(map(len, windows["train"]))
    scored = [window for window in windows[part] if len(window) == length]
    scored = [scored[i] for i in pick_evenly(len(scored), most)]
    training = [window for window in windows["train"] if len(window) == length]
    dimension = data.goal_dim
    batch = collate(scored)
    return Origins(
        data=data,
        part=part,
        batch=batch,
        truth=horizon_truth(batch)[..., dimension],
        clusters=stretches(batch),
        history=histories([w for name in windows for w in windows[name]], scored, dimension),
        training=collate([training[i] for i in pick_evenly(len(training), MOST_TRAINING)]),
        validation=collate([window for window in windows["val"] if len(window) == length]),
        dimension=dimension,
        period=data.season_steps,
    )


def histories(known: Sequence[Record], windows: Sequence[Record], dimension: int) -> list[np.ndarray]:
    """For each window the values of its series up to its origin (goal_start), in order of time.

    A missing value repeats the last one before it; steps before the first observation are left out. Only steps in a
    window of `known` can be found.
    """
    rows: dict[str, dict[float, float]] = {}
    for window in known:
        rows.setdefault(window.series, {}).update(zip(window.time.tolist(), window.value[:, dimension], strict=True))
    series = {}
    for name, values in rows.items():
        times = np.array(sorted(values))
        series[name] = times, np.array([values[time] for time in times.tolist()], dtype=float)
    found = []
    for window in windows:
        times, values = series[window.series]
        past = values[: np.searchsorted(times, window.time[window.goal_start], side="right")]
        found.append(_filled(past))
    return found


def _filled(values: np.ndarray) -> np.ndarray:
    seen = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(seen, np.arange(len(values)), -1))
    return values[last[last >= 0]]


def rows_once(batch: Batch, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Times (N,) and values (N,) of a batch's observed steps, each once although windows overlap."""
    seen = batch.value_mask[..., dimension] & batch.step_mask
    series = np.unique(np.asarray(batch.series), return_inverse=True)[1]
    owner = torch.from_numpy(series)[:, None].expand_as(seen)[seen].numpy()
    time, value = batch.time[seen].numpy(), batch.value[..., dimension][seen].numpy()
    once = np.unique(np.stack([owner, time]), axis=1, return_index=True)[1]
    return time[once], value[once]
