"""Errors and intervals of mean scores when windows overlap: whole series are the unit, never single windows.

Windows of one series share steps, so they are not independent. Each series is left out once: the cluster jackknife
gives the standard error. The interval has quantiles of Student's t, with the degrees of freedom of Bell and McCaffrey
(2002), which are one less than the number of series where all are of one size, and fewer where they are not. `python -m
benchmarks.intervals` shows how often it misses, beside percentiles of a bootstrap and a wild bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

Clusters = Sequence[str] | np.ndarray
LEVEL = 0.95  # of intervals
FEWEST = 5  # series; fewer tell nothing about chance
TOO_FEW = f"below {FEWEST} of them nothing can be said about chance, and no error is given"
MOST_FREEDOM = 10_000  # from here on, t is normal to four digits


@dataclass(frozen=True)
class Estimate:
    """A score, its standard error, its interval [low, high], and the windows and series behind it.

    All are NaN where there was nothing to score; `error` and the interval are NaN below `FEWEST` series.
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


def cluster_mean(values: np.ndarray, clusters: Clusters) -> Estimate:
    """The mean of `values` (N), one a window, NaN where not scored, as `cluster_ratio` estimates it."""
    values = np.asarray(values, dtype=np.float64)
    return cluster_ratio(values, np.where(np.isnan(values), np.nan, 1.0), clusters)


def cluster_difference(a: np.ndarray, b: np.ndarray, clusters: Clusters) -> Estimate:
    """The paired mean of a - b over the windows where both are scored."""
    return cluster_mean(np.asarray(a, np.float64) - np.asarray(b, np.float64), clusters)


def cluster_ratio(numerator: np.ndarray, denominator: np.ndarray, clusters: Clusters) -> Estimate:
    """sum(numerator) / sum(denominator) over windows (N each; NaN in either: left out).

    Denominators must not be negative. Raises ValueError for sizes that differ.
    """
    numerator, denominator = (np.asarray(part, dtype=np.float64).reshape(-1) for part in (numerator, denominator))
    if not len(numerator) == len(denominator) == len(clusters):
        raise ValueError(
            f"an estimate was given {len(numerator)} and {len(denominator)} values for {len(clusters)} windows; "
            "expected one each"
        )
    scored = ~(np.isnan(numerator) | np.isnan(denominator))
    names, index = np.unique(np.asarray(clusters, dtype=str)[scored], return_inverse=True)
    above = np.bincount(index, numerator[scored], len(names))
    below = np.bincount(index, denominator[scored], len(names))
    value = float(_divide(above.sum(), below.sum()))
    error = reach = math.nan
    if len(names) >= FEWEST and math.isfinite(value):
        without = _divide(above.sum() - above, below.sum() - below)
        shrink = (len(names) - 1) / len(names)
        error = float(np.sqrt(shrink * ((without - value) ** 2).sum()))
        if math.isfinite(error):
            reach = t_quantile((1 + LEVEL) / 2, _freedom(below / below.sum())) * error
    return Estimate(value, error, value - reach, value + reach, int(scored.sum()), len(names))


def _freedom(share: np.ndarray) -> float:
    """Degrees of freedom of the jackknife's variance for series with these shares (K) of the denominator.

    The variance is a quadratic form m' M m of the means of series, where M = (I - s 1') C (I - 1 s') for the shares s
    and C = diag(c). A chi-square of the same mean and variance has tr(M)² / tr(M²) degrees, here for independent means
    of one spread.
    """
    c = (share / (1 - share)) ** 2
    total, cs, ss, cc = c.sum(), c @ share, share @ share, c @ c
    trace = total - 2 * cs + total * ss
    square = cc - 4 * (c * c) @ share + 2 * total * (c @ share**2) + 2 * cc * ss + 2 * cs**2
    square += -4 * total * cs * ss + (total * ss) ** 2
    return float(np.clip(trace**2 / square, 1, len(share) - 1))


@lru_cache
def t_quantile(p: float, freedom: float) -> float:
    """The quantile of Student's t: it is √f · tan(a), where the density of the angle a goes with cos(a)^(f - 1)."""
    edges = np.linspace(-np.pi / 2, np.pi / 2, 20_001)
    freedom = min(freedom, MOST_FREEDOM)
    below = np.cumsum(np.cos((edges[1:] + edges[:-1]) / 2) ** (freedom - 1))
    return float(np.sqrt(freedom) * np.tan(np.interp(p, below / below[-1], edges[1:])))


def _divide(above: np.ndarray | float, below: np.ndarray | float) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(above, below)
