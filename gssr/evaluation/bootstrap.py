"""Errors of mean scores when windows overlap: whole series are drawn with replacement, never single windows.

Windows of one series share steps, so they are not independent. The cluster bootstrap (Field and Welsh 2007) keeps all
windows of a drawn series together. Quantities with the same clusters and seed share their draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Clusters = Sequence[str] | np.ndarray
LEVEL = 0.95  # of intervals


@dataclass(frozen=True)
class Estimate:
    """A score, its bootstrap standard error, its percentile interval [low, high], and the windows and series behind it.

    All are NaN where there was nothing to score; `error` and the interval are NaN where there was only one series.
    """

    value: float
    error: float
    low: float
    high: float
    windows: int
    series: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, None for NaN, so that strict JSON can hold it."""
        return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in asdict(self).items()}


def cluster_mean(values: np.ndarray, clusters: Clusters, draws: int = 2000, seed: int = 0) -> Estimate:
    """The mean of `values` (N), one a window, NaN where not scored, as `cluster_ratio` estimates it."""
    values = np.asarray(values, dtype=np.float64)
    return cluster_ratio(values, np.where(np.isnan(values), np.nan, 1.0), clusters, draws, seed)


def cluster_difference(a: np.ndarray, b: np.ndarray, clusters: Clusters, draws: int = 2000, seed: int = 0) -> Estimate:
    """The paired mean of a - b over the windows where both are scored."""
    return cluster_mean(np.asarray(a, np.float64) - np.asarray(b, np.float64), clusters, draws, seed)


def cluster_ratio(
    numerator: np.ndarray,
    denominator: np.ndarray,
    clusters: Clusters,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """sum(numerator) / sum(denominator) over windows (N each; NaN in either: left out), both drawn together by series.

    Raises ValueError for sizes that differ and for fewer than 2 draws.
    """
    numerator, denominator = (np.asarray(part, dtype=np.float64).reshape(-1) for part in (numerator, denominator))
    if not len(numerator) == len(denominator) == len(clusters):
        raise ValueError(
            f"bootstrap was given {len(numerator)} and {len(denominator)} values for {len(clusters)} windows; expected "
            "one each"
        )
    if draws < 2:
        raise ValueError(f"bootstrap needs at least 2 draws, got {draws}")
    scored = ~(np.isnan(numerator) | np.isnan(denominator))
    names, index = np.unique(np.asarray(clusters, dtype=str)[scored], return_inverse=True)
    above = np.bincount(index, numerator[scored], len(names))
    below = np.bincount(index, denominator[scored], len(names))
    value = _divide(above.sum(), below.sum())
    error = low = high = float("nan")
    if len(names) > 1:
        times = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
        drawn = _divide(times @ above, times @ below)
        drawn = drawn[np.isfinite(drawn)]  # a draw without any denominator has no ratio
        if len(drawn) > 1:
            error = float(drawn.std(ddof=1))
            low, high = (float(q) for q in np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Estimate(float(value), error, low, high, int(scored.sum()), len(names))


def _divide(above: np.ndarray | float, below: np.ndarray | float) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(above, below)
