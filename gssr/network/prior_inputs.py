"""What a forecaster of any series reads of a context: values, their differences over a season, and how they move.

All values here are differences from the last one, in units of the context's spread. A season of 0 steps is none: what
lies a season before is then missing, and missing values are 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

RECENT = 24  # last values, and last differences over a season
BACK = 4  # seasons
LAGS = 12  # of autocorrelations
NEAR = (-2, -1, 1, 2)  # steps around a step of earlier seasons
NEVER = 10**6  # steps of a season that there is not
LEAST = 1e-4  # of a spread, below which all are alike

OF_CONTEXT = 2 * RECENT + BACK + 4  # K values of a context
ABOUT_CONTEXT = 2 * RECENT + BACK + 2 * LAGS + 4 + 1 + 8 + 3
OF_STEP = (2 + len(NEAR)) * BACK  # K values of a step ahead
ABOUT_STEP = 2 * BACK + 12


class Inputs(NamedTuple):
    """Values (…, K), differences that a forecast is a weighted sum of, and what else is known about them (…, A)."""

    values: Tensor
    about: Tensor


def of_context(y: Tensor, season: Tensor) -> Inputs:
    """Of contexts (B, C) with seasons of so many steps (B,): (B, K) and (B, A)."""
    (size, length), far = y.shape, _far(season)
    place = (length - 1 - torch.arange(RECENT, device=y.device)).expand(size, -1)
    recent, known = _at(y, place)
    before, both = _at(y, place - far)
    both = both & known
    level, whole = _season_means(y, far)
    grown = whole[:, 1:] & whole[:, :-1]
    quarters = [y[:, length - (i + 1) * (length // 4) : length - i * (length // 4)] for i in range(4)]
    values = [
        recent[:, 1:],
        torch.where(both, recent - before, torch.zeros_like(recent)),
        level[:, :1],
        torch.where(grown, level[:, :-1] - level[:, 1:], torch.zeros_like(level[:, 1:])),
        torch.stack([part.mean(1) for part in quarters], 1),
    ]
    there = torch.cat([known[:, 1:], both, whole[:, :1], grown], 1)
    step = torch.arange(length, device=y.device, dtype=y.dtype) - (length - 1) / 2
    away = y - y.mean(1, keepdim=True)
    slope = away @ step / (step @ step)
    straight = away - slope[:, None] * step
    alike = [_autocorrelation(part) for part in (straight, straight.diff(dim=1))]
    seasonal = [
        torch.where(far * k < length - 1, each.gather(1, (far * k).clamp(max=each.shape[1] - 1)), 0.0)
        for each in alike
        for k in (1, 2)
    ]
    sizes = [torch.stack([part.diff(dim=1).abs().mean(1) for part in quarters], 1)]
    sizes += [torch.stack([(part - part.mean(1, keepdim=True)).abs().mean(1) for part in quarters], 1)]
    facts = torch.stack([season.log1p(), torch.full_like(slope, math.log(length)), season.sign().to(y)], 1)
    about = [
        there.to(y),
        *(_lags(each) for each in alike),
        *seasonal,
        length * slope[:, None],
        *map(_log, sizes),
        facts,
    ]
    return Inputs(torch.cat(values, 1), torch.cat(about, 1))


def of_steps(y: Tensor, season: Tensor, ahead: Tensor) -> tuple[Inputs, Tensor]:
    """Of steps ahead (B, Q), from 1, of contexts (B, C): (B, Q, K) and (B, Q, A), and an error to expect (B, Q).

    That is the mean absolute one within the context of the best of three simple forecasts, so many steps ahead: the
    last value, the value a season before, and that with the change since a season before.
    """
    length, far = y.shape[1], _far(season)
    seasons = (ahead + far - 1) // far  # until the same step of one that is known
    back = far[..., None] * (seasons[..., None] + torch.arange(BACK, device=y.device))
    place = length - 1 + ahead[..., None] - back
    earlier, known = _at(y, place)
    origin, both = _at(y, length - 1 - back)
    both = both & known
    change = torch.where(both, earlier - origin, torch.zeros_like(earlier))
    around = place[..., None] + torch.tensor(NEAR, device=y.device)
    near, there = _at(y, torch.where(around < length, around, -1))
    near = torch.where(there & known[..., None], near - earlier[..., None], torch.zeros_like(near))
    errors, compared = _simple_errors(y, ahead, back[..., 0])
    least = 0.02 * (moves := y.diff(dim=1).abs().mean(1)[:, None])
    expected = torch.where(compared, errors, torch.inf).amin(-1)
    expected = torch.maximum(torch.where(expected.isinf(), moves, expected), least).clamp(min=LEAST)
    has = season.sign()[:, None]
    facts = [ahead.log(), ahead / 24, seasons * has / BACK, (ahead - 1) % far / far * has, 1 / ahead, expected.log()]
    about = [known.to(y), both.to(y), torch.where(compared, _log(errors), torch.zeros_like(errors)), compared.to(y)]
    about += [torch.stack([fact.to(y) for fact in facts], -1)]
    return Inputs(torch.cat([earlier, change, near.flatten(2)], -1), torch.cat(about, -1)), expected


def _far(season: Tensor) -> Tensor:
    return torch.where(season > 0, season, NEVER)[:, None]


def _log(size: Tensor) -> Tensor:
    return size.clamp(min=LEAST).log()


def _at(y: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Values (B, …) at places (B, …) of contexts (B, C), 0 outside, and whether they lie inside."""
    inside = (place >= 0) & (place < y.shape[1])
    found = y.gather(1, place.clamp(0, y.shape[1] - 1).flatten(1)).view(place.shape)
    return torch.where(inside, found, torch.zeros_like(found)), inside


def _season_means(y: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """Means of the last season and of those before (B, BACK + 1), 0 where it is not whole, and whether it is."""
    total = F.pad(y.cumsum(1), (1, 0))
    end = y.shape[1] - far * torch.arange(BACK + 1, device=y.device)
    begin = end - far
    mean = (total.gather(1, end.clamp(min=0)) - total.gather(1, begin.clamp(min=0))) / far
    return torch.where(begin >= 0, mean, torch.zeros_like(mean)), begin >= 0


def _autocorrelation(away: Tensor) -> Tensor:
    """Of rows (B, N) around 0: (B, N) at lags 0, 1, …"""
    power = torch.fft.rfft(away, 2 * away.shape[1]).abs().square()
    found = torch.fft.irfft(power, 2 * away.shape[1])[:, : away.shape[1]]
    return found / found[:, :1].clamp(min=1e-12)


def _lags(alike: Tensor) -> Tensor:
    """Lags 1 to LAGS, 0 where the context is shorter."""
    found = alike[:, 1 : LAGS + 1]
    return F.pad(found, (0, LAGS - found.shape[1]))


def _simple_errors(y: Tensor, ahead: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute errors (B, Q, 3) of the three simple forecasts, and whether any step had one."""
    step = torch.arange(y.shape[1], device=y.device).expand(*ahead.shape, -1)
    every = y[:, None].expand_as(step)

    def lagged(lag: Tensor) -> tuple[Tensor, Tensor]:
        place = step - lag[..., None]
        return every.gather(2, place.clamp(min=0)), place >= 0

    last, some = lagged(ahead)
    season, seasonal = lagged(back)
    older, both = lagged(ahead + back)
    found = []
    for error, known in ((every - last, some), (every - season, seasonal), (every - season - last + older, both)):
        count = known.sum(2)
        found.append(((error.abs() * known).sum(2) / count.clamp(min=1), count > 0))
    errors, compared = (torch.stack(parts, -1) for parts in zip(*found, strict=True))
    return errors, compared
