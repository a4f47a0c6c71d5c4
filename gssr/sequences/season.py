"""The season of a series, found in its values."""

from __future__ import annotations

import numpy as np

LEAST = 0.2  # autocorrelation of changes at a season
SURE, SURER = 3.0, 4.5  # standard errors that it must be above 0, where the calendar names it and where many are tried
AS_HIGH = 0.9  # of the highest peak: its multiples are nearly as high as a season
PERIODS = 3  # that a series must hold
LONGEST = 400  # steps of a season that is looked for


def find_season(value: np.ndarray, named: int | None = None) -> int | None:
    """Steps after which the changes of values (T) are alike; NaN is missing. None where they never are.

    The season that the calendar names is taken where changes are alike so many steps later; otherwise that of the
    highest peak of their autocorrelation, or of an earlier one nearly as high. Such a season has at least 3 steps.
    """
    seen = np.maximum.accumulate(np.where(np.isnan(value), -1, np.arange(len(value))))
    change = np.diff(value[seen[seen >= 0]].astype(float))
    change = change - change.mean() if len(change) else change
    # A few jumps must not decide.
    size = 5 * np.median(np.abs(change)) if len(change) else 0.0
    change = np.clip(change, -size, size) if size else change
    most = min(LONGEST, len(change) // PERIODS)
    if most < 3 or not change.any():
        return None
    power = np.abs(np.fft.rfft(change, 2 * len(change))) ** 2
    alike = np.fft.irfft(power)[: most + 2] / power.mean()
    error = 1 / np.sqrt(len(change))
    if named is not None and 1 < named <= most and alike[named] >= max(LEAST, SURE * error):
        return named
    highest = (lag for lag in range(3, most + 1) if alike[lag] == alike[max(1, lag - 2) : lag + 3].max())
    sure = [lag for lag in highest if alike[lag] >= max(LEAST, SURER * error)]
    return min((lag for lag in sure if alike[lag] >= AS_HIGH * max(alike[sure])), default=None)
