"""Scores of forecasts and goals: plain functions of tensors, and torchmetrics metrics that accumulate them over
batches.

Shapes as in the legend of DESIGN.md: S rollouts, B sequences, H horizon steps, Y value dimensions. The functions keep
the axis of sequences, because errors of a score are bootstrapped over sequences; the metrics are their means over
everything seen. Goal bounds are NaN where a goal is silent. Nothing here knows a network, a batch or a data set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


def at_step(path: Tensor, step: Tensor) -> Tensor:
    """The values of `path` (..., B, H, Y) at one horizon step per sequence: `step` (B,) int64 from 0; returns (...,
    B, Y).

    Raises ValueError for a step outside the horizon.
    """
    horizon = path.shape[-2]
    if ((step < 0) | (step >= horizon)).any():
        raise ValueError(
            f"horizon steps {step.tolist()} must lie between 0 and {horizon - 1}; step 0 is the first after C"
        )
    index = step.view(-1, 1, 1).expand(*path.shape[:-2], 1, path.shape[-1])
    return path.gather(-2, index).squeeze(-2)


def outside(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Distance of `value` (..., B, Y) from [low, high] (B, Y), 0 inside and where the goal is silent."""
    return torch.relu(torch.maximum(low - value, value - high).nan_to_num(nan=0.0))


def goal_hits(value: Tensor, low: Tensor, high: Tensor, tolerance: float | Tensor) -> Tensor:
    """Whether `value` (..., B, Y) lies within `tolerance` (data units; a number or (Y)) of [low, high] (B, Y); (...,
    B) bool.

    Every dimension a goal speaks of must be reached. A goal that is silent everywhere is never hit: leave it out by
    `speaks`."""
    reached = (outside(value, low, high) <= tolerance) & ~value.isnan()
    silent = low.isnan() | high.isnan()
    return (reached | silent).all(-1) & speaks(low, high)


def speaks(low: Tensor, high: Tensor) -> Tensor:
    """Whether a goal with bounds (B, Y) has a known range in any dimension, (B,) bool."""
    return ~(low.isnan() | high.isnan()).all(-1)


def changes_beyond(path: Tensor, start: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Counts of one-step changes of a path that are larger than a threshold, per sequence and dimension.

    `path` (..., B, H, Y), decoded without value noise; `start` (B, Y) the last observed value, from which the first
    step is a change too: a path that jumps at once is not plausible either; `threshold` (Y) in data units per step. A
    change from or to a NaN is not counted. Returns two (..., B, Y): changes beyond (strictly), and changes that could
    be judged."""
    first = start.expand(*path.shape[:-2], path.shape[-1]).unsqueeze(-2)
    change = torch.cat([first, path], dim=-2).diff(dim=-2).abs()
    return (change > threshold).sum(-2), (~change.isnan()).sum(-2)


def plotting_quantiles(samples: Tensor, levels: Sequence[float]) -> Tensor:
    """Quantiles over axis 0 of `samples` (S, ...) at position p(S + 1) (Hyndman and Fan 1996, type 6), (Q, ...).

    Where truth and samples are exchangeable, an interval between two of these holds the truth with the nominal
    probability (exactly so at whole positions); that of the usual type 7 is too narrow: 0.775 for 0.8 with 64 samples.
    """
    ordered = samples.sort(dim=0).values
    size = len(samples)
    rows = []
    for level in levels:
        position = min(max(level * (size + 1) - 1, 0.0), size - 1.0)
        below = int(position)
        above = min(below + 1, size - 1)
        rows.append(torch.lerp(ordered[below], ordered[above], position - below))
    return torch.stack(rows)


def interval_covers(samples: Tensor, target: Tensor, level: float = 0.8) -> Tensor:
    """Whether the central interval of `samples` (S, ...) at `level` holds `target` (...), ends included; (...) bool."""
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval must lie between 0 and 1, got {level}")
    low, high = plotting_quantiles(samples, ((1 - level) / 2, (1 + level) / 2))
    return (low <= target) & (target <= high)


def fair_crps(samples: Tensor, target: Tensor) -> Tensor:
    """Continuous ranked probability score of an ensemble (S, ...) for `target` (...), unbiased in S; data units, (...).

    mean_i |x_i - y| - sum_ij |x_i - x_j| / (2 S (S - 1)) (Ferro 2014), the double sum by sorting; can be slightly
    negative.

    Raises ValueError for fewer than two samples.
    """
    size = len(samples)
    if size < 2:
        raise ValueError(f"the CRPS of an ensemble needs at least 2 samples, got {size}")
    ordered = samples.sort(dim=0).values
    # 2 i - S - 1 for the ranks i = 1..S
    weight = torch.arange(1 - size, size, 2, dtype=samples.dtype, device=samples.device)
    spread = torch.tensordot(weight, ordered, dims=1) / (size * (size - 1))
    return (samples - target).abs().mean(0) - spread


class _Mean(Metric):
    """Mean of what `_add` was given, over everything seen; NaN before anything was.

    torchmetrics turns a result with a single element into a scalar, whatever its shape.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(shape), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(shape), dist_reduce_fx="sum")

    def _add(self, score: Tensor, counts: Tensor, dim: int | tuple[int, ...]) -> None:
        """Sum `score` over `dim` where `counts` (a bool mask of its shape) holds; scores elsewhere may be NaN."""
        self.total += torch.where(counts, score, 0.0).sum(dim)
        self.count += counts.sum(dim)

    def compute(self) -> Tensor:
        return self.total / self.count


class HorizonMAE(_Mean):
    """Mean absolute error at each of H horizon steps for each of Y dimensions, data units; computes to (H, Y).

    torchmetrics' MeanAbsoluteError knows no mask.
    """

    higher_is_better = False

    def __init__(self, horizon: int, dimensions: int) -> None:
        super().__init__(horizon, dimensions)

    def update(self, prediction: Tensor, target: Tensor, mask: Tensor) -> None:
        """`prediction`, `target` (B, H, Y), `mask` (B, H, Y) True where the target was observed."""
        self._add((prediction - target).abs(), mask, 0)


class GoalHit(_Mean):
    """Share of goals that are hit at their step: by the mean of the rollouts, or (`single`) by single rollouts.

    A hit lies within `tolerance` (data units) of [low, high]. Goals with unknown bounds do not count.
    """

    higher_is_better = True

    def __init__(self, tolerance: float, single: bool = False) -> None:
        super().__init__()
        if tolerance < 0:
            raise ValueError(f"the tolerance of a goal hit must not be negative, got {tolerance}")
        self.tolerance, self.single = tolerance, single

    def update(self, rollouts: Tensor, goal_low: Tensor, goal_high: Tensor, step: Tensor) -> None:
        """`rollouts` (S, B, H, Y); bounds (B, Y), NaN where silent; `step` (B,) the horizon step of the goal, 0 =
        first.
        """
        reached = at_step(rollouts, step)
        hits = goal_hits(reached if self.single else reached.mean(0, keepdim=True), goal_low, goal_high, self.tolerance)
        self._add(hits.float().mean(0), speaks(goal_low, goal_high), 0)


class ChangesBeyond(_Mean):
    """Plausibility: share of one-step changes of single rollouts (decoded without value noise) beyond a threshold,
    (Y).
    """

    higher_is_better = False
    threshold: Tensor

    def __init__(self, threshold: Sequence[float] | Tensor) -> None:
        threshold = torch.as_tensor(threshold, dtype=torch.float32)
        super().__init__(len(threshold))
        self.register_buffer("threshold", threshold)

    def update(self, rollouts: Tensor, start: Tensor) -> None:
        """`rollouts` (S, B, H, Y) or (B, H, Y); `start` (B, Y) the last value of the context."""
        beyond, judged = changes_beyond(rollouts, start, self.threshold)
        axes = tuple(range(beyond.dim() - 1))
        self.total += beyond.sum(axes)
        self.count += judged.sum(axes)


class IntervalCoverage(_Mean):
    """Share of observed values inside the rollouts' central interval at `level`, by step and dimension, (H, Y)."""

    def __init__(self, horizon: int, dimensions: int, level: float = 0.8) -> None:
        super().__init__(horizon, dimensions)
        self.level = level

    def update(self, rollouts: Tensor, target: Tensor, mask: Tensor) -> None:
        """`rollouts` (S, B, H, Y) with value noise; `target`, `mask` (B, H, Y)."""
        self._add(interval_covers(rollouts, target, self.level).float(), mask, 0)


class FairCRPS(_Mean):
    """Mean unbiased CRPS by horizon step and dimension, data units, (H, Y)."""

    higher_is_better = False

    def __init__(self, horizon: int, dimensions: int) -> None:
        super().__init__(horizon, dimensions)

    def update(self, rollouts: Tensor, target: Tensor, mask: Tensor) -> None:
        """`rollouts` (S, B, H, Y) with value noise, S at least 2; `target`, `mask` (B, H, Y)."""
        self._add(fair_crps(rollouts, target), mask, 0)
