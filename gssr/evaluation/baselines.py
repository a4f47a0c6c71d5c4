"""What a goal network is compared with: persistence, a year ago, linear autoregression, a straight line to the goal.

All take a `Batch` whose sequences share one context length C and return paths (B, H, Y) in data units, H = T - C.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gssr.sequences.collate import collate
from gssr.sequences.context import context_length, last_observed
from gssr.sequences.record import Batch, Record


def filled_context(batch: Batch) -> Tensor:
    """The context (B, C, Y) with missing values replaced by the last observation before; NaN before the first one."""
    length = context_length(batch)
    value = batch.value[:, :length].masked_fill(~batch.value_mask[:, :length], torch.nan)
    for t in range(1, length):
        value[:, t] = torch.where(value[:, t].isnan(), value[:, t - 1], value[:, t])
    return value


def horizon_truth(batch: Batch) -> Tensor:
    """What happened, (B, H, Y), NaN where not observed."""
    length = context_length(batch)
    return batch.value[:, length:].masked_fill(~batch.value_mask[:, length:], torch.nan)


def persistence(batch: Batch) -> Tensor:
    """The last observed value at every step, (B, H, Y); NaN where the context holds none."""
    length = context_length(batch)
    unknown = torch.full_like(batch.value[0, 0], torch.nan)
    return last_observed(batch, length, unknown).repeat(1, batch.value.shape[1] - length, 1)


def seasonal_naive(windows: Sequence[Record], batch: Batch, period: int) -> Tensor:
    """The value one period (`period` steps) before each step of the horizon, (B, H, Y); NaN where no window holds it.

    `windows` hold all that is known of the series. Where the period is shorter than the horizon, the value comes from
    several periods before, so that no step of the horizon forecasts another.

    Raises ValueError for a period below 1.
    """
    if period < 1:
        raise ValueError(f"a season needs a period of at least 1 step, got {period}")
    known: dict[str, dict[float, np.ndarray]] = {}
    for window in windows:
        known.setdefault(window.series, {}).update(zip(window.time.tolist(), window.value, strict=True))
    length = context_length(batch)
    path = torch.full_like(batch.value[:, length:], torch.nan)
    for row, series in enumerate(batch.series):
        rows = known.get(series, {})
        times = np.array(sorted(rows))
        step = float(batch.time[row, length] - batch.time[row, 0]) / length
        for h in range(path.shape[1]):
            wanted = float(batch.time[row, length + h]) - period * (h // period + 1) * step
            # The nearest, because months are steps of different lengths.
            nearest = times[np.abs(times - wanted).argmin()] if len(times) else np.inf
            if abs(nearest - wanted) <= 0.6 * step:
                path[row, h] = torch.from_numpy(rows[nearest])
    return path


def straight_line(batch: Batch) -> Tensor:
    """From the last context value straight to the goal's range at goal_step, and staying there, (B, H, Y).

    The line ends at the point of [goal_low, goal_high] that is nearest to its start: the number, the nearest bound of a
    class, or the start itself where it lies inside. Dimensions without bounds persist.
    """
    path = persistence(batch)
    start = path[:, 0]
    end = torch.minimum(torch.maximum(start, batch.goal_low), batch.goal_high)
    end = torch.where(end.isnan(), start, end)
    steps = (batch.goal_step - batch.goal_start).clamp(min=1)
    time = torch.arange(1, path.shape[1] + 1, device=path.device)
    share = (time / steps.unsqueeze(1)).clamp(max=1.0).unsqueeze(-1)
    return path + share * (end - start).unsqueeze(1)


class LinearAutoregression:
    """Least squares from the C·Y values of the context (and 1) straight to each value of the horizon; no recursion.

    Inputs are standardised and missing ones filled by the last observation (before the first: by the training mean).
    Where a target is missing, only the fit of that target leaves the window out. `ridge` is the penalty, as a share of
    the number of windows, on the coefficients of standardised inputs; 0 is plain least squares.
    """

    def __init__(self, ridge: float = 0.0) -> None:
        if ridge < 0:
            raise ValueError(f"ridge must not be negative, got {ridge}")
        self.ridge = ridge
        self.coefficients: Tensor | None = None  # (C·Y + 1, H·Y) float64

    def fit(self, windows: Sequence[Record] | Batch) -> LinearAutoregression:
        """Fit on windows, which must be of the training part. Raises ValueError for no windows."""
        batch = windows if isinstance(windows, Batch) else collate(windows)
        context = filled_context(batch).double()
        self.mean = context.nanmean((0, 1))
        self.std = ((context - self.mean) ** 2).nanmean((0, 1)).sqrt().clamp(min=1e-12)
        inputs = self._inputs(context)
        targets = horizon_truth(batch).double().flatten(1)
        observed = ~targets.isnan()
        self.coefficients = torch.zeros(inputs.shape[1], targets.shape[1], dtype=torch.float64)
        patterns, group = torch.unique(observed.T, dim=0, return_inverse=True)
        for g, rows in enumerate(patterns):
            columns = group == g
            self.coefficients[:, columns] = self._solve(inputs[rows], targets[rows][:, columns])
        return self

    def predict(self, batch: Batch) -> Tensor:
        """The forecast (B, H, Y) float32. Raises ValueError before `fit` and for other shapes than those fitted on."""
        length, width = context_length(batch), batch.value.shape[-1]
        horizon = batch.value.shape[1] - length
        if self.coefficients is None:
            raise ValueError(
                "linear autoregression was asked for a forecast before it was fitted; call fit(windows) first"
            )
        if self.coefficients.shape != (length * width + 1, horizon * width):
            raise ValueError(
                f"linear autoregression with coefficients {tuple(self.coefficients.shape)} was given windows of "
                f"{length} + {horizon} steps of {width} values; fit it on windows of the same lengths"
            )
        inputs = self._inputs(filled_context(batch).double().cpu())
        return (inputs @ self.coefficients).float().unflatten(1, (horizon, width)).to(batch.value.device)

    def _inputs(self, context: Tensor) -> Tensor:
        scaled = ((context - self.mean) / self.std).nan_to_num(nan=0.0).flatten(1)
        return torch.cat([scaled, torch.ones(len(scaled), 1, dtype=scaled.dtype)], dim=1)

    def _solve(self, inputs: Tensor, targets: Tensor) -> Tensor:
        if self.ridge:  # the penalty as extra rows; none on the intercept, which is the last input
            penalty = torch.eye(inputs.shape[1], dtype=inputs.dtype)[:-1] * (self.ridge * len(inputs)) ** 0.5
            inputs = torch.cat([inputs, penalty])
            targets = torch.cat([targets, torch.zeros(len(penalty), targets.shape[1], dtype=targets.dtype)])
        return torch.linalg.lstsq(inputs, targets, driver="gelsd").solution  # gelsd: inputs may be collinear
