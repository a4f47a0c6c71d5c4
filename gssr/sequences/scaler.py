"""Standardise values by the mean and standard deviation of the training part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

WAVES = 18  # of the calendar


class Scaler(nn.Module):
    """Per-dimension standardisation with the observed range, all buffers, so that a checkpoint carries it.

    Buffers (Y) float32: `mean`, `std` (population), `low`, `high` (smallest and largest value seen). Before `fit` or
    loading a state it is the identity with an infinite range. `usual_spread`, `usual_change`: deviation and change of a
    usual window, 1, and `waves` (W, Y) of the calendar, 0, until a network that needs them fits them.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    usual_spread: Tensor
    usual_change: Tensor
    waves: Tensor

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        if dimensions < 1:
            raise ValueError(f"a scaler needs at least 1 value dimension, got {dimensions}")
        self.register_buffer("mean", torch.zeros(dimensions))
        self.register_buffer("std", torch.ones(dimensions))
        self.register_buffer("low", torch.full((dimensions,), -torch.inf))
        self.register_buffer("high", torch.full((dimensions,), torch.inf))
        self.register_buffer("usual_spread", torch.ones(dimensions))
        self.register_buffer("usual_change", torch.ones(dimensions))
        self.register_buffer("waves", torch.zeros(WAVES, dimensions))

    def fit(self, values: Tensor | np.ndarray, mask: Tensor | np.ndarray | None = None) -> Scaler:
        """Fit on the training part: `values` (..., Y), `mask` (..., Y) True where observed. NaN is never observed.

        Raises ValueError for a wrong number of dimensions, and as `fit_chunks` does.
        """
        values, width = torch.as_tensor(values), len(self.mean)
        if values.shape[-1] != width:
            raise ValueError(f"scaler of {width} value dimensions was given values of shape {tuple(values.shape)}")
        if mask is not None:
            values = values.masked_fill(~torch.as_tensor(mask).to(torch.bool), torch.nan)
        return self.fit_chunks([values.reshape(-1, width)], [f"value dimension {y}" for y in range(width)])

    def fit_chunks(self, chunks: Iterable[Tensor], names: Sequence[str]) -> Scaler:
        """The same from many chunks (n, Y) in one pass, whose moments are merged (Chan et al. 1979).

        Raises ValueError, with the column's name, for one that is constant, was never observed, or varies by less than
        float32 can tell.
        """
        width = len(self.mean)
        count, mean, square = (torch.zeros(width, dtype=torch.float64) for _ in range(3))
        low, high = torch.full((width,), torch.inf), torch.full((width,), -torch.inf)
        for chunk in chunks:
            values = chunk.to(torch.float64)
            seen = ~values.isnan()
            n = seen.sum(0)
            own = torch.where(seen, values, 0.0).sum(0) / n.clamp(min=1)
            own_square = torch.where(seen, (values - own).square(), 0.0).sum(0)
            total, gap = (count + n).clamp(min=1), own - mean
            square += own_square + torch.where(n > 0, gap.square() * count * n / total, 0.0)
            mean += torch.where(n > 0, gap * n / total, 0.0)
            count += n
            low = torch.minimum(low, torch.where(seen, chunk, torch.inf).amin(0))
            high = torch.maximum(high, torch.where(seen, chunk, -torch.inf).amax(0))
        std = (square / count.clamp(min=1)).sqrt()
        for y, name in enumerate(names):
            if count[y] == 0 or low[y] == high[y]:
                seen = f"always {low[y]:g}" if count[y] else "never observed"
                raise ValueError(f"{name} is {seen} in the training part (as float32); leave it out of the values")
            if not 1e-30 < std[y] < 1e30 or std[y] < 1e-5 * mean[y].abs():
                raise ValueError(
                    f"{name} has the mean {mean[y]:g} and the standard deviation {std[y]:g}, which float32 cannot tell "
                    "apart well; subtract a constant from it, or scale it"
                )
        for buffer, moment in ((self.mean, mean), (self.std, std), (self.low, low), (self.high, high)):
            buffer.copy_(moment)
        return self

    def transform(self, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Data units to standard units, (..., Y); with a mask, exactly 0 (the mean) where nothing was observed."""
        scaled = (value - self.mean) / self.std
        return scaled if mask is None else torch.where(mask, scaled, torch.zeros_like(scaled))

    def inverse(self, value: Tensor) -> Tensor:
        """Standard units to data units, (..., Y)."""
        return value * self.std + self.mean
