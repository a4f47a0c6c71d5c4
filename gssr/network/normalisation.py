"""The units in which the network sees values: of the training part, of a window's context, or of its last value."""

from typing import NamedTuple

import torch
from torch import Tensor

from gssr.sequences.context import context_length, last_observed
from gssr.sequences.record import Batch
from gssr.sequences.scaler import Scaler

LEAST_SPREAD = 0.02  # of a window, in standard deviations of the training part: a context may be constant


class WindowScale(NamedTuple):
    """What is 0 and what is 1 in each window, (B, 1, Y) each; transforms (B, T, Y) or (S, B, T, Y) as a Scaler does."""

    mean: Tensor
    spread: Tensor

    def transform(self, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Data units to units of the window; with a mask, exactly 0 where nothing was observed."""
        scaled = (value - self.mean) / self.spread
        return scaled if mask is None else torch.where(mask, scaled, torch.zeros_like(scaled))

    def inverse(self, value: Tensor) -> Tensor:
        """Units of the window to data units."""
        return value * self.spread + self.mean


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


SCALES = {"window": window_scale, "last": last_scale}
