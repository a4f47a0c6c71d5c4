"""What the calendar says of values: waves of the year, the week and the day, fitted before training."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from gssr.network.normalisation import SCALES, WindowScale
from gssr.sequences.record import Batch
from gssr.sequences.scaler import WAVES, Scaler

PERIODS = {"year": 365.25 * 24, "week": 168.0, "day": 24.0}  # hours
EACH = WAVES // (2 * len(PERIODS))  # waves of a period, as sine and cosine
TIMES = 3  # that training must hold a period
PENALTY = 1e-3  # of a ridge, as a share of the number of steps


def waves(time: Tensor) -> Tensor:
    """Sines and cosines (B, T, W) of times (B, T) in hours since 1970."""
    found = []
    for period in PERIODS.values():
        for k in range(1, EACH + 1):
            angle = 2 * math.pi * k * (time.double() % period) / period
            found += [angle.sin(), angle.cos()]
    return torch.stack(found, -1)


def fit_waves(batch: Batch, scaler: Scaler, known: int = 0) -> list[str]:
    """Fit the waves of a scaler to training windows, beside a level and a trend, and name the periods that fit.

    A wave is at least two steps long, and its period comes three times in training. Without one, all are 0. So are
    those of the last ``known`` values, which are the calendar itself.
    """
    time, seen = batch.time, batch.value_mask & batch.step_mask[..., None]
    step, span = float((time[:, 1:] - time[:, :-1]).median()), float(time.max() - time.min())
    usable = [
        2 * step <= 1.01 * period / k and span >= TIMES * period
        for period in PERIODS.values()
        for k in range(1, EACH + 1)
        for _ in range(2)
    ]
    scaler.waves.zero_()
    named = [name for i, name in enumerate(PERIODS) if usable[2 * EACH * i]]
    if not named:
        return []
    inputs = waves(time) * torch.tensor(usable)
    ahead = ((time - time.min()) / max(span, 1.0))[..., None]
    inputs = torch.cat([inputs, torch.ones_like(ahead), ahead], -1).flatten(0, 1)
    scaled = scaler.transform(batch.value, seen).double()
    for y in range(seen.shape[-1] - known):
        rows = seen[..., y].flatten()
        x, target = inputs[rows], scaled[..., y].flatten()[rows]
        square = x.T @ x + PENALTY * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        scaler.waves[:, y] = torch.linalg.solve(square, x.T @ target)[:WAVES] * scaler.std[y]
    return named


def scale_of(kind: str, calendar: bool, batch: Batch, scaler: Scaler) -> Scaler | WindowScale:
    """From data units to those that the network sees: by a normalisation, of what the calendar leaves of the values."""
    if not calendar:
        return SCALES[kind](batch, scaler)
    mean = expected(batch, scaler)
    scale = SCALES[kind](replace(batch, value=batch.value - mean), scaler)
    if isinstance(scale, WindowScale):
        return scale._replace(mean=scale.mean + mean)
    return WindowScale(scaler.mean + mean, scaler.std.expand(len(batch), 1, -1))


def level_of(scale: Scaler | WindowScale) -> Tensor | None:
    """What the calendar takes from each step (B, T, Y), in units of the window, the first one's apart; None without."""
    if isinstance(scale, Scaler) or scale.mean.shape[1] == 1:
        return None
    return (scale.mean - scale.mean[:, :1]) / scale.spread


def expected(batch: Batch, scaler: Scaler) -> Tensor:
    """What the calendar says of each step (B, T, Y), in data units around 0."""
    return (waves(batch.time) @ scaler.waves.double()).to(batch.value)
