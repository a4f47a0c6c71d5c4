"""Baselines without a library: persistence, climatology, seasonal naive and linear autoregression.

A method without a distribution gets one from its own errors on training windows. Whole paths of residuals are drawn, so
that every step has its own spread.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.origins import Origins, rows_once
from benchmarks.quality.scores import Forecast
from gssr.evaluation.baselines import LinearAutoregression, horizon_truth, persistence, seasonal_naive
from gssr.evaluation.forecast_report import RIDGE
from gssr.sequences.record import Batch

YEAR_HOURS, DAY_HOURS = 365.25 * 24, 24.0
LEAST_DAYS = 10.0  # on either side of a day of the year
MANY = 1000  # training windows; with fewer, least squares needs a penalty


def simple(origins: Origins, samples: int, seed: int = 0) -> dict[str, Callable[[], Forecast]]:
    """Each method by name; a call computes its forecast."""
    generator = torch.Generator().manual_seed(seed)
    y = origins.dimension

    def with_residuals(path: Callable[[Batch], Tensor]) -> Forecast:
        point = path(origins.batch)[..., y]
        residuals = (horizon_truth(origins.training) - path(origins.training))[..., y]
        return Forecast(point + draw_paths(residuals, samples, len(point), generator), point)

    def linear() -> Forecast:
        ridge = RIDGE if len(origins.training) < MANY else 0.0
        return with_residuals(LinearAutoregression(ridge).fit(origins.training).predict)

    methods = {"persistence": lambda: with_residuals(persistence)}
    methods["climatology"] = lambda: climatology(origins, samples, seed)
    if origins.period:
        known = origins.every
        methods["seasonal naive"] = lambda: with_residuals(
            lambda batch: _or_persistence(seasonal_naive(known, batch, origins.period), batch)
        )
    return methods | {"linear autoregression": linear}


def draw_paths(residuals: Tensor, samples: int, windows: int, generator: torch.Generator) -> Tensor:
    """Residual paths (S, B, H), each of one training window (N, H) without a missing step."""
    whole = residuals[~residuals.isnan().any(1)]
    if not len(whole):
        raise ValueError(f"no training window of {tuple(residuals.shape)} is observed in all of its horizon")
    index = torch.randint(len(whole), (samples, windows), generator=generator)
    return whole[index]


def climatology(origins: Origins, samples: int, seed: int = 0) -> Forecast:
    """Values of the training part at the same position in the calendar, whatever the context.

    The position is the time of year within ten days (or a step), and for steps shorter than a day the time of day.
    """
    time, value = rows_once(origins.training, origins.dimension)
    step = origins.step_hours
    reach = max(LEAST_DAYS * DAY_HOURS, step)
    generator = np.random.default_rng(seed)
    wanted = origins.batch.time[:, origins.context :].numpy()
    out = np.empty((samples, *wanted.shape), dtype=np.float32)
    for row, column in np.ndindex(wanted.shape):
        at = wanted[row, column]
        fits = circular(time - at, YEAR_HOURS) <= reach
        if step < DAY_HOURS:
            fits &= circular(time - at, DAY_HOURS) <= step / 2
        out[:, row, column] = generator.choice(value[fits] if fits.any() else value, samples)
    return Forecast(torch.from_numpy(out))


def circular(difference: np.ndarray, period: float) -> np.ndarray:
    """Distance on a circle whose length is the period."""
    rest = np.abs(difference) % period
    return np.minimum(rest, period - rest)


def _or_persistence(path: Tensor, batch: Batch) -> Tensor:
    """The path, with the last value where a season ago nothing was observed."""
    return torch.where(path.isnan(), persistence(batch), path)
