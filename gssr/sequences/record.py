"""One sequence of values, texts and a goal, and a padded batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class Record:
    """A sequence of T steps: measured values, texts, and perhaps a goal.

    Shapes: `time` (T) float64 hours since 1970-01-01T00Z, strictly increasing; `value` (T, Y) float32, NaN = not
    observed; `text` T strings, None = no text; `goal_low`, `goal_high` (Y) float32, NaN where the goal is
    silent, equal for an exact number. The goal acts on the steps goal_start < t <= goal_step and should hold at
    `goal_step`; `goal_start` is the last step before it acts. `goal_step` None means the last step; bounds None mean
    silent everywhere. `step_label`: an optional class of each step, read by evaluation only.

    Raises ValueError when shapes, types, order of time or steps do not fit together.
    """

    series: str
    time: np.ndarray
    value: np.ndarray
    text: list[str | None]
    goal: str | None = None
    goal_low: np.ndarray = field(default=None)  # type: ignore[assignment]
    goal_high: np.ndarray = field(default=None)  # type: ignore[assignment]
    goal_start: int = 0
    goal_step: int = field(default=None)  # type: ignore[assignment]
    step_label: list[str] | None = None

    def __post_init__(self) -> None:
        self.time = np.asarray(self.time, dtype=np.float64)
        self.value = np.asarray(self.value, dtype=np.float32)
        if self.time.ndim != 1 or self.value.ndim != 2 or len(self.time) == 0 or len(self.time) != len(self.value):
            raise ValueError(
                f"record of {self.series!r}: time has shape {self.time.shape} and value {self.value.shape}; expected "
                "(T,) and (T, Y) with one T of at least 1"
            )
        steps, dimensions = self.value.shape
        if not np.all(np.diff(self.time) > 0):
            raise ValueError(
                f"record of {self.series!r}: time must be finite and increase at every step; sort its rows"
            )
        if np.isinf(self.value).any():
            raise ValueError(f"record of {self.series!r}: value holds infinities; write NaN where nothing was observed")
        self.text = list(self.text)
        if len(self.text) != steps:
            raise ValueError(
                f"record of {self.series!r}: {len(self.text)} texts for {steps} steps; None stands for no text"
            )
        if self.step_label is not None and len(self.step_label) != steps:
            raise ValueError(f"record of {self.series!r}: {len(self.step_label)} step labels for {steps} steps")
        if self.goal_step is None:
            self.goal_step = steps - 1
        if not 0 <= self.goal_start <= self.goal_step < steps:
            raise ValueError(
                f"record of {self.series!r}: goal_start {self.goal_start} and goal_step {self.goal_step} must satisfy "
                f"0 <= goal_start <= goal_step < {steps}"
            )
        if self.goal is not None and self.goal_start == self.goal_step:
            raise ValueError(
                f"record of {self.series!r}: a goal needs goal_step after goal_start, both are {self.goal_step}"
            )
        self.goal_low, self.goal_high = (
            np.full(dimensions, np.nan, np.float32) if bound is None else np.asarray(bound, dtype=np.float32)
            for bound in (self.goal_low, self.goal_high)
        )
        if self.goal_low.shape != (dimensions,) or self.goal_high.shape != (dimensions,):
            raise ValueError(
                f"record of {self.series!r}: goal bounds have shapes {self.goal_low.shape} and {self.goal_high.shape}; "
                f"expected one number for each of {dimensions} value dimensions, NaN where the goal is silent"
            )
        if (self.goal_low > self.goal_high).any() or (np.isnan(self.goal_low) != np.isnan(self.goal_high)).any():
            raise ValueError(
                f"record of {self.series!r}: goal_low {self.goal_low} and goal_high {self.goal_high} must be silent "
                "(NaN) together and goal_low <= goal_high elsewhere"
            )

    def __len__(self) -> int:
        return len(self.time)


@dataclass
class Batch:
    """B records padded on the right to T steps; not frozen, so that Lightning can move its tensors.

    Shapes: `time` (B, T) float64 (padding repeats the last time); `value` (B, T, Y) float32, 0 where missing or
    padding; `value_mask` (B, T, Y) bool, True where observed; `step_mask` (B, T) bool, False at padding; `text` B lists
    of T; `goal` B; `goal_low`, `goal_high` (B, Y) float32, NaN where silent; `goal_start`, `goal_step` (B,) int64;
    `step_label` B lists of T ("" at padding) or None.
    """

    series: list[str]
    time: Tensor
    value: Tensor
    value_mask: Tensor
    step_mask: Tensor
    text: list[list[str | None]]
    goal: list[str | None]
    goal_low: Tensor
    goal_high: Tensor
    goal_start: Tensor
    goal_step: Tensor
    step_label: list[list[str]] | None = None

    def __len__(self) -> int:
        return len(self.series)

    @property
    def context(self) -> Tensor:
        """Number of context steps C of each sequence, (B,) int64."""
        return self.goal_start + 1

    def to(self, device: torch.device | str, **options: Any) -> Batch:
        """A batch with its tensors on a device; Lightning calls this instead of walking through every text."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: tensor.to(device, **options) for name, tensor in tensors.items()})

    def select(self, indices: Sequence[int] | Tensor) -> Batch:
        """A new batch of the sequences at `indices` (in that order, repeats allowed); T is kept."""
        index = torch.as_tensor(indices, dtype=torch.int64, device=self.value.device).reshape(-1)
        rows = index.tolist()
        picked = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                picked[item.name] = value[index]
            else:
                picked[item.name] = None if value is None else [value[row] for row in rows]
        return Batch(**picked)

    def with_goals(self, goal: Sequence[str | None], goal_low: Tensor, goal_high: Tensor) -> Batch:
        """A copy with other goals: `goal` B strings or None, bounds (B, Y); the rest is shared with this batch.

        Raises ValueError when the sizes do not fit.
        """
        if len(goal) != len(self) or goal_low.shape != self.goal_low.shape or goal_high.shape != self.goal_high.shape:
            raise ValueError(
                f"with_goals was given {len(goal)} goals with bounds {tuple(goal_low.shape)} and "
                f"{tuple(goal_high.shape)}; expected {len(self)} goals with bounds {tuple(self.goal_low.shape)}"
            )
        like = self.goal_low
        return replace(self, goal=list(goal), goal_low=goal_low.to(like), goal_high=goal_high.to(like))
