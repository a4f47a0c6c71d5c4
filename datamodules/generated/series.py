"""Series of many kinds, drawn at random: levels, trends, cycles, seasons, noise, jumps, and how they go together.

Shapes: B series of T steps. Every number that a series is made with has a wide distribution of its own; nothing is
taken from a real series.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BEFORE = 64  # steps that a process runs before a series begins
LONGEST = 60  # steps of a season
COMMON = (4, 4, 5, 7, 7, 12, 12, 12, 24, 48, 52)  # seasons of calendars
HARMONICS = 6


@dataclass(frozen=True)
class Draw:
    """Random numbers from one generator."""

    generator: torch.Generator

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def scale(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform in its logarithm."""
        return self.uniform(*shape, low=math.log(low), high=math.log(high)).exp()

    def chance(self, share: float, *shape: int) -> Tensor:
        return self.uniform(*shape) < share

    def common(self, size: int) -> Tensor:
        return torch.tensor(COMMON)[torch.randint(len(COMMON), (size,), generator=self.generator)]

    def some(self, share: float, values: Tensor) -> Tensor:
        """Values, with this chance each, else 0."""
        return values * self.chance(share, *values.shape)


def generate(size: int, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """B series of T steps, (B, T), and the season that is told of each (B,), 0 for none.

    Where a series has no season, half of those told are wrong ones, as calendars name them.
    """
    draw, total = Draw(generator), steps + BEFORE
    season = torch.where(
        draw.chance(0.25, size), torch.randint(2, LONGEST + 1, (size,), generator=generator), draw.common(size)
    )
    walks = draw.chance(0.12, size)  # nothing but a level
    seasonal = draw.chance(0.75, size) & ~walks
    volatility = _volatility(draw, size, total)
    parts = _levels(draw, size, total, volatility) + _cycles(draw, size, total)
    grown = (draw.some(0.3, 0.7 * draw.normal(size, 1)) * torch.linspace(-1, 0, total)).exp()
    parts = parts + (draw.scale(0.2, 12, size) * seasonal)[:, None] * grown * _seasons(draw, season, total)
    quiet = torch.where(draw.chance(0.3, size, 1), 0.05, 1.0) * ~walks[:, None]
    parts = parts + quiet * draw.scale(0.1, 1.5, size, 1) * _noise(draw, size, total, volatility)
    series = _transformed(draw, parts[:, BEFORE:])
    told = torch.where(seasonal, season, draw.some(0.5, draw.common(size)))
    return series, told


def _volatility(draw: Draw, size: int, total: int) -> Tensor:
    """The size of noise at each step (B, T): constant, wandering, or another one behind some step."""
    wanders, back = draw.some(0.3, draw.scale(0.05, 0.3, size)), draw.uniform(size, low=0.9)
    log, every = torch.zeros(size), []
    for shock in draw.normal(total, size):
        log = back * log + wanders * shock
        every.append(log)
    changed = torch.arange(total) > BEFORE + draw.uniform(size, 1) * (total - BEFORE)
    after = torch.where(draw.chance(0.2, size, 1), draw.scale(0.25, 4, size, 1), 1.0)
    return torch.stack(every, 1).exp() * torch.where(changed, after, 1.0)


def _levels(draw: Draw, size: int, total: int, volatility: Tensor) -> Tensor:
    """Local levels with local, damped or constant slopes, which may begin anew, or that return to 0; with jumps."""
    wide = draw.some(0.75, draw.scale(0.03, 1.5, size))
    stays = torch.where(draw.chance(0.6, size), 1.0, 1 - draw.scale(0.005, 0.7, size))
    bends = draw.some(0.4, draw.scale(0.002, 0.2, size))
    damped = torch.where(draw.chance(0.5, size) | (bends == 0), 1.0, draw.uniform(size, low=0.7))
    slope = draw.some(0.5, draw.normal(size) * draw.scale(0.003, 0.5, size)) * (stays == 1)
    usual = slope.abs() + bends
    anew = draw.uniform(total, size) < draw.some(0.3, 1 / draw.uniform(size, low=30, high=200))
    level, every = 2 * wide * draw.normal(size), []
    shocks, turns, starts = (draw.normal(total, size) for _ in range(3))
    for t in range(total):
        slope = torch.where(anew[t], usual * starts[t], damped * slope + bends * turns[t])
        level = stays * level + slope + wide * volatility[:, t] * shocks[t]
        every.append(level)
    jumps = draw.uniform(size, total) < draw.some(0.2, torch.full((size, 1), 2 / total))
    return torch.stack(every, 1) + (jumps * draw.normal(size, total) * draw.scale(1, 10, size, 1)).cumsum(1)


def _cycles(draw: Draw, size: int, total: int) -> Tensor:
    """Autoregressions of order 2 around a period that no calendar knows."""
    period, stays = draw.scale(3, 70, size), 1 - draw.scale(0.001, 0.15, size)
    angle = 2 * math.pi / period
    wide = draw.some(0.25, draw.scale(0.05, 1, size)) * (1 - stays).sqrt().clamp(min=0.05) * 2 * angle.sin().abs()
    last = before = wide * draw.normal(size)
    every = []
    for shock in draw.normal(total, size):
        last, before = 2 * stays * angle.cos() * last - stays.square() * before + wide * shock, last
        every.append(last)
    return torch.stack(every, 1)


def _seasons(draw: Draw, season: Tensor, total: int) -> Tensor:
    """Patterns of a season with deviation 1 that change a little from season to season (B, T).

    Smooth waves, a value of its own for each step, or a few peaks.
    """
    size, step = len(season), torch.arange(LONGEST)
    inside = step < season[:, None]
    order = torch.arange(1, HARMONICS + 1)
    used = order <= 1 + (draw.uniform(size, 1) * HARMONICS).floor()
    weight = draw.normal(2, size, HARMONICS) * used * order ** (-2 * draw.uniform(size, 1))
    angle = 2 * math.pi * order[:, None] * step / season[:, None, None]
    waves = (weight[0, ..., None] * angle.sin() + weight[1, ..., None] * angle.cos()).sum(1)
    own = draw.normal(size, LONGEST)
    peaks = 2 * draw.normal(size, LONGEST).abs() * draw.chance(0.15, size, LONGEST)
    kind = draw.uniform(size, 1)
    pattern = torch.where(kind < 0.5, waves, torch.where(kind < 0.85, own, peaks)) * inside
    pattern = (pattern - pattern.sum(1, keepdim=True) / season[:, None]) * inside
    pattern = pattern / (pattern.square().sum(1, keepdim=True) / season[:, None]).sqrt().clamp(min=1e-3)
    changes = draw.some(0.6, draw.scale(0.005, 0.3, size))
    found, shocks = torch.zeros(size, total), draw.normal(total, size)
    for t in range(total):
        earlier = found.gather(1, (t - season).clamp(min=0)[:, None])[:, 0] + changes * shocks[t]
        found[:, t] = torch.where(t >= season, earlier, pattern.gather(1, (t % season)[:, None])[:, 0])
    return found


def _noise(draw: Draw, size: int, total: int, volatility: Tensor) -> Tensor:
    """Autoregressive moving averages of order 1, some with heavy tails, and a few values that are far off."""
    freedom = draw.uniform(size, 1, low=3, high=9)
    gamma = torch._standard_gamma((freedom / 2).expand(size, total).contiguous(), generator=draw.generator)
    tails = (2 * gamma / freedom).clamp(min=0.05).sqrt()
    shocks = draw.normal(size, total) * volatility
    shocks = torch.where(draw.chance(0.25, size, 1), shocks / tails, shocks)
    again = draw.some(0.5, draw.uniform(size, low=-0.25, high=0.95))
    moving = draw.some(0.3, draw.uniform(size, low=-0.8, high=0.8))
    value, before, every = torch.zeros(size), torch.zeros(size), []
    for shock in shocks.T:
        value, before = again * value + shock + moving * before, shock
        every.append(value)
    off = draw.uniform(size, total) < draw.some(0.1, torch.full((size, 1), 0.02))
    return torch.stack(every, 1) + off * draw.normal(size, total) * draw.scale(2, 10, size, 1)


def _transformed(draw: Draw, parts: Tensor) -> Tensor:
    """As they are, or in logarithms, so that seasons and noise grow with the level; a few with a floor, or rounded."""
    size = len(parts)
    parts = parts - parts.mean(1, keepdim=True)
    parts = parts / parts.std(1, keepdim=True).clamp(min=1e-6)
    strength = draw.scale(0.1, 1.3, size, 1)
    grown = (strength * parts).clamp(-6, 6).exp() / strength
    series = torch.where(draw.chance(0.4, size, 1), grown, parts)
    floor = series.quantile(0.1, dim=1, keepdim=True)
    series = torch.where(draw.chance(0.05, size, 1), series.maximum(floor), series)
    unit = draw.scale(0.02, 0.4, size, 1)
    return torch.where(draw.chance(0.1, size, 1), (series / unit).round() * unit, series)
