"""Scores of a forecast: errors, CRPS and coverage of every window and step, and their means.

Shapes: S samples, B windows, H steps; one value dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional import mean_absolute_error, mean_squared_error

from benchmarks.quality.cells import numbers
from gssr.evaluation.intervals import Estimate, cluster_mean, cluster_ratio
from gssr.metrics import fair_crps, interval_covers

LEVELS = (0.5, 0.8, 0.95)


@dataclass
class Forecast:
    """A predictive distribution.

    Attributes:
        samples: (S, B, H).
        point: (B, H), scored by the absolute error; the median of the samples if the method has no point of its own.
        mean: (B, H), scored by the squared error; the mean of the samples if the method has no point of its own.
    """

    samples: Tensor
    point: Tensor | None = None

    def __post_init__(self) -> None:
        self.samples = self.samples.float()
        self.mean = self.samples.mean(0) if self.point is None else self.point
        self.point = self.samples.quantile(0.5, dim=0) if self.point is None else self.point


def score(forecast: Forecast, truth: Tensor) -> dict[str, Any]:
    """Scores by step over the windows, and of each window and step.

    Returns:
        ``by_step``: `mae`, `rmse`, `crps`, `covered_50` …, H numbers each; ``windows``: `absolute`, `crps` and
        `covered_80`, (B, H) each, NaN where the truth was not observed.
    """
    seen = ~truth.isnan()
    covered = {
        f"covered_{round(100 * level)}": interval_covers(forecast.samples, truth, level).float() for level in LEVELS
    }
    each = {"crps": fair_crps(forecast.samples, truth), "absolute": (forecast.point - truth).abs(), **covered}
    each = {name: value.masked_fill(~seen, torch.nan) for name, value in each.items()}
    by_step = {name: value.nanmean(0) for name, value in each.items() if name != "absolute"}
    for name, error, path in (("mae", mean_absolute_error, forecast.point), ("rmse", _rmse, forecast.mean)):
        by_step[name] = [error(path[seen[:, h], h], truth[seen[:, h], h]).item() for h in range(truth.shape[1])]
    return {"by_step": by_step, "windows": {name: each[name] for name in ("absolute", "crps", "covered_80")}}


def _rmse(prediction: Tensor, target: Tensor) -> Tensor:
    return mean_squared_error(prediction, target, squared=False)


def of_window(cells: Sequence[dict[str, Any]], metric: str, step: int | None) -> np.ndarray:
    """A score of each window (B,), the mean over cells (seeds): at one step, or the mean over the horizon."""
    every = np.stack([numbers(cell["windows"][metric]) for cell in cells])
    picked = every[..., step] if step is not None else _row_mean(every)
    return picked.mean(0)


def estimate(cells: Sequence[dict[str, Any]], metric: str, step: int | None, clusters: Sequence[str]) -> Estimate:
    """The mean of a score over windows, with its error by series or stretch of time."""
    return cluster_mean(of_window(cells, metric, step), clusters)


def relative(
    ours: Sequence[dict[str, Any]],
    other: Sequence[dict[str, Any]],
    metric: str,
    step: int | None,
    clusters: Sequence[str],
) -> Estimate:
    """The share by which our score is larger than another one on the same windows; negative is better.

    It is paired: both are scored with the same series left out.
    """
    a, b = of_window(ours, metric, step), of_window(other, metric, step)
    return cluster_ratio(a - b, np.where(np.isnan(a), np.nan, b), clusters)


def _row_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the numbers of the last axis, NaN where there is none."""
    seen = ~np.isnan(values)
    return np.where(seen, values, 0).sum(-1) / np.where(seen.any(-1), seen.sum(-1), np.nan)
