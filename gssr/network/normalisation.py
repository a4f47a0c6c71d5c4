"""The units in which the network sees values: of the training part, of a window's context, or of its last value."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gssr.sequences.context import context_length, last_observed
from gssr.sequences.record import Batch
from gssr.sequences.scaler import Scaler

LEAST_SPREAD = 0.02  # of a window, in standard deviations of the training part: a context may be constant
FLOOR = 0.3  # of a mixed spread, in usual ones: a quiet context does not tell how quiet its horizon is


class WindowScale(NamedTuple):
    """What is 0 and what is 1 in each window, (B, 1, Y) each, or 0 (B, T, Y) by the calendar.

    It transforms (B, T, Y) or (S, B, T, Y) as a Scaler does.
    """

    mean: Tensor
    spread: Tensor

    def transform(self, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Data units to units of the window; with a mask, exactly 0 where nothing was observed."""
        scaled = (value - self.mean) / self.spread
        return scaled if mask is None else torch.where(mask, scaled, torch.zeros_like(scaled))

    def inverse(self, value: Tensor) -> Tensor:
        """Units of the window to data units."""
        return value * self.spread + self.mean

    def steps(self, first: int, end: int | None = None) -> WindowScale:
        """The scale of some steps of the window, where the calendar gives each step a mean of its own."""
        return self._replace(mean=self.mean[:, first:end]) if self.mean.shape[1] > 1 else self

    def at(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """What is 0 and what is 1 at one step (B,) of each window, (B, Y) each."""
        rows = torch.arange(len(step), device=step.device)
        return self.mean[rows, step] if self.mean.shape[1] > 1 else self.mean[:, 0], self.spread[:, 0]


def window_scale(batch: Batch, scaler: Scaler) -> WindowScale:
    """Reversible instance normalisation (Kim et al. 2022) by the observed values of the C context steps.

    The horizon has no part in it, so no forecast is known. A dimension that the context never observes has the mean and
    spread of the training part.
    """
    steps = context_length(batch)
    seen = batch.value_mask[:, :steps]
    count = seen.sum(1, keepdim=True)
    value = torch.where(seen, batch.value[:, :steps], torch.zeros_like(batch.value[:, :steps]))
    mean = value.sum(1, keepdim=True) / count.clamp(min=1)
    away = torch.where(seen, batch.value[:, :steps] - mean, torch.zeros_like(value))
    spread = (away.square().sum(1, keepdim=True) / count.clamp(min=1)).sqrt()
    known = count > 0
    return WindowScale(
        torch.where(known, mean, scaler.mean),
        torch.where(known, torch.maximum(spread, LEAST_SPREAD * scaler.std), scaler.std),
    )


def last_scale(batch: Batch, scaler: Scaler) -> WindowScale:
    """By the last observed value of the C context steps and the standard deviation of the training part.

    Levels are distances from where the forecast starts, and changes keep their size. A dimension that the context never
    observes has the mean of the training part.
    """
    last = last_observed(batch, context_length(batch), scaler.mean)
    return WindowScale(last, scaler.std.expand_as(last))


def mixed_scale(batch: Batch, scaler: Scaler) -> WindowScale:
    """By the mean of the C context steps, and by how large their changes are beside the usual ones of training windows.

    Changes tell the size of what is to come better than deviations from a mean do: those of few steps that wander are
    large or small by chance. A floor of the training part's is mixed in.
    """
    steps = context_length(batch)
    seen = batch.value_mask[:, 1:steps] & batch.value_mask[:, : steps - 1]
    change, count = batch.value[:, :steps].diff(dim=1), seen.sum(1, keepdim=True)
    square = torch.where(seen, change.square(), torch.zeros_like(change)).sum(1, keepdim=True) / count.clamp(min=1)
    beside = torch.where(count > 0, square / scaler.usual_change.square(), torch.ones_like(square))
    spread = scaler.usual_spread * ((beside + FLOOR**2) / (1 + FLOOR**2)).sqrt()
    return WindowScale(window_scale(batch, scaler).mean, spread)


def fit_usual(batch: Batch, scaler: Scaler) -> None:
    """Take the medians over training windows of the deviation and of the root mean square change of contexts."""
    steps = context_length(batch)
    value = batch.value[:, :steps].masked_fill(~batch.value_mask[:, :steps], torch.nan)
    change = value.diff(dim=1).square().nanmean(1).sqrt().nanmedian(0).values
    spread = window_scale(batch, scaler).spread[:, 0].median(0).values
    least = LEAST_SPREAD * scaler.std
    scaler.usual_change.copy_(torch.maximum(torch.where(change.isnan(), least, change), 1e-3 * scaler.std))
    scaler.usual_spread.copy_(torch.maximum(spread, least))


SCALES: dict[str, Callable[[Batch, Scaler], Scaler | WindowScale]] = {
    "training": lambda batch, scaler: scaler,
    "window": window_scale,
    "last": last_scale,
    "mixed": mixed_scale,
}
