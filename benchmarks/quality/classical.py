"""AutoETS, AutoARIMA and AutoTheta of statsforecast, fitted at every origin to the series up to it.

Their distribution is a Gaussian at each step, with the width of their 80 % interval. STL removes a long season first
(MSTL): more than 24 steps for ETS, as is usual; more than 4 for ARIMA, whose search among seasonal models takes seconds
an origin. Theta decomposes any season itself. A history shorter than two seasons has none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.quality.origins import Origins
from benchmarks.quality.scores import Forecast

LONGEST_SEASON = {"ets": 24, "arima": 4}
MOST_HISTORY = 600  # last steps to fit; older ones cost time and change no forecast
SHORT = 150  # beyond, ARIMA compares its candidates by conditional sums of squares, as R's auto.arima does
Z80 = 1.2815515655446004


def classical(
    origins: Origins, samples: int, seed: int = 0, theta: bool = False
) -> dict[str, Callable[[Callable[[], Any]], Forecast]]:
    """Each method by name, a function of what to call after each origin (a progress bar); with or without Theta.

    Empty if statsforecast is not installed.
    """
    try:
        from statsforecast.models import MSTL, AutoARIMA, AutoETS, AutoTheta
    except ImportError:
        return {}

    def ets(season: int, length: int) -> Any:
        if season > LONGEST_SEASON["ets"]:
            return MSTL(season_length=season, trend_forecaster=AutoETS(model="ZZN"))
        return AutoETS(season_length=season)

    def arima(season: int, length: int) -> Any:
        approximate = length > SHORT
        if season > LONGEST_SEASON["arima"]:
            return MSTL(season_length=season, trend_forecaster=AutoARIMA(approximation=approximate))
        return AutoARIMA(season_length=season, approximation=approximate)

    def run(build: Callable[[int, int], Any], tick: Callable[[], Any]) -> Forecast:
        mean, spread = (np.empty((len(origins.history), origins.horizon), np.float32) for _ in range(2))
        for row, history in enumerate(origins.history):
            mean[row], spread[row] = gaussian(build, history, origins.period, origins.horizon)
            tick()
        noise = torch.randn(samples, *mean.shape, generator=torch.Generator().manual_seed(seed))
        point = torch.from_numpy(mean)
        return Forecast(point + noise * torch.from_numpy(spread), point)

    found = {"AutoETS": ets, "AutoARIMA": arima}
    if theta:
        found["AutoTheta"] = lambda season, length: AutoTheta(season_length=season)
    return {name: lambda tick, build=build: run(build, tick) for name, build in found.items()}


def gaussian(
    build: Callable[[int, int], Any], history: np.ndarray, period: int | None, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each step (H,) from one history; a random walk if the library cannot fit it."""
    history = np.ascontiguousarray(history[-MOST_HISTORY:], dtype=np.float64)
    season = period if period and len(history) >= 2 * period else 1
    moves = np.diff(history)
    # A walk with the history's own changes, for constant and short histories, which nothing can be fitted to.
    walk = (moves.std() if len(moves) > 1 else 0.0) * np.sqrt(np.arange(1, horizon + 1))
    if len(history) < 4 or np.ptp(history) == 0:
        return np.full(horizon, history[-1]), walk
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = build(season, len(history)).forecast(y=history, h=horizon, level=[80])
        mean, low, high = (np.asarray(found[key], dtype=float) for key in ("mean", "lo-80", "hi-80"))
        spread = (high - low) / (2 * Z80)
    except Exception as error:  # the library raises errors of many kinds
        warnings.warn(f"a history of {len(history)} steps could not be fitted: {error}", stacklevel=2)
        mean = spread = np.full(horizon, np.nan)
    usable = np.isfinite(mean) & np.isfinite(spread)
    return np.where(usable, mean, history[-1]), np.where(usable, spread, walk)
