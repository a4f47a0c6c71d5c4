"""Which linear autoregression fits windows best: lags, penalty and base, chosen by its forecasts at rolling origins."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

SHORT = (1, 2, 3, 6)  # lags from 1 on that are tried
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of standardised inputs, as shares of the number of steps that are fitted
MANY = 32  # dimensions, above which all lags are taken: to choose among them takes time
SEASON = 4  # the shortest that is looked for in changes
ORIGINS = (0.4, 0.6, 0.8)  # shares of the windows, before which a candidate is fitted, and behind which it is checked
CHECKED = 0.2  # share of the windows that are checked behind each
LEAST_NOISE = 1e-3  # of a step, in the units that the network sees


class Candidate(NamedTuple):
    """A ridge regression with some lags, whose penalty draws it to the value `base` steps before.

    drifts: it has an intercept.
    """

    lags: tuple[int, ...]
    base: int
    drifts: bool
    penalty: float


class Linear(NamedTuple):
    """K autoregressions: weights (K, P), the latest lag first, intercepts (K) and the noise of a step (K)."""

    weight: Tensor
    intercept: Tensor
    noise: Tensor


class Choice(NamedTuple):
    """The best candidate (None: persistence), and the CRPS of its forecasts at rolling origins in units of `size`."""

    candidate: Candidate | None
    score: float


class Fit(NamedTuple):
    """What was fitted to a dimension: None, and a score of infinity, where too few windows are complete.

    linear: the autoregression. score: see Choice. windows: that it was fitted to and chosen by, ``usable`` (N,) of all.
    """

    linear: Linear | None
    score: float
    windows: Windows
    usable: Tensor
    candidate: Candidate | None


class Moments(NamedTuple):
    """Second moments of the steps behind P others, for any choice of lags and base.

    Inputs (P): -y_{t-1}, and y_{t-k} - y_{t-1} for each lag k above 1; the target is y_t - y_{t-1}.
    """

    count: int
    mean: Tensor  # (P + 1,), of the inputs and the target
    product: Tensor  # (P + 1, P + 1), around the mean, over the count


class Windows(NamedTuple):
    """N windows of C + H steps of one dimension, in order of time: the first ones train, the others validate.

    series: (N, T), without a missing value. known: (N, T), False where it repeats an older one.
    size: (N,), units of scores in each window. context: C. training: how many train.
    """

    series: Tensor
    known: Tensor
    size: Tensor
    context: int
    training: int

    def part(self, first: int, end: int) -> Windows:
        return self._replace(series=self.series[first:end], known=self.known[first:end], size=self.size[first:end])


def choose(windows: Windows, longest: int, season: int | None, every: bool) -> Choice:
    """The best linear autoregression of windows.

    Each candidate is fitted to the training windows before each origin. Its Gaussian forecasts of those behind it, and
    of the validation windows behind the last one, are scored by their CRPS. A window that is fitted does not reach into
    the horizon of one that is checked.

    Args:
        longest: P, the longest lag. season: steps of a season that the calendar names.
        every: take all lags only, which takes less time.
    """
    count = windows.training
    candidates = _candidates(windows.series[: max(1, int(ORIGINS[0] * count))], longest, season, every)
    total, checked = windows.series.new_zeros(len(candidates) + 1), 0
    for before, behind in origins(windows):
        found = _fit(_moments(before, longest), candidates)
        total, checked = total + _crps(found, windows.part(*behind)), checked + 1
    if not checked:
        return Choice(None, math.inf)
    best = int(total.nan_to_num(nan=math.inf).argmin())
    return Choice(None if best == len(candidates) else candidates[best], float(total[best]) / checked)


def origins(windows: Windows) -> Iterator[tuple[Windows, tuple[int, int]]]:
    """Windows that may be fitted to, and the first and the end of those behind them that check it.

    These are some of training behind each origin, and those of validation behind all of training.
    """
    count, ahead = windows.training, windows.series.shape[1] - windows.context
    stretches = [(int(origin * count), min(count, int((origin + CHECKED) * count) + 1)) for origin in ORIGINS]
    for first, end in [*stretches, (count, len(windows.series))]:
        if count and first >= 1 and end > first:
            yield windows.part(0, max(1, first - ahead * (first < count))), (first, end)


@torch.no_grad()
def fit_each(
    value: Tensor, seen: Tensor, size: Tensor, context: int, training: int, longest: int, season: int | None
) -> list[Fit]:
    """The best linear autoregression of each dimension, fitted to the training windows.

    Args:
        value: (N, T, Y), windows in the units that the network sees; the first ones train, the others validate.
        seen: (N, T, Y). size: (N or 1, 1, Y), units of the scores.
    """
    longest, found = min(longest, context), []
    for y in range(value.shape[-1]):
        series, known = filled(value[..., y].double(), seen[..., y]), seen[..., y]
        usable = ~series[:, :context].isnan().any(1)
        unit = size.expand_as(value[:, :1])[usable, 0, y].double()
        windows = Windows(series[usable], known[usable], unit, context, int(usable[:training].sum()))
        candidate, score = choose(windows, longest, season, value.shape[-1] > MANY)
        if score == math.inf:
            found.append(Fit(None, score, windows, usable, candidate))
            continue
        linear = refit(windows.part(0, windows.training), candidate, longest)
        found.append(Fit(linear, score, windows, usable, candidate))
    return found


def refit(windows: Windows, candidate: Candidate | None, longest: int) -> Linear:
    """The autoregression of a candidate, None for persistence, fitted to all of some windows."""
    fitted = _fit(_moments(windows, longest), [] if candidate is None else [candidate])
    return Linear(*(part[0] for part in fitted))


def filled(value: Tensor, seen: Tensor) -> Tensor:
    """Values (N, T) with the one before where nothing was observed, NaN before the first."""
    steps = torch.arange(1, value.shape[1] + 1, device=value.device)
    newest = (seen * steps).cummax(1).values
    return torch.where(newest > 0, value.gather(1, (newest - 1).clamp(min=0)), torch.nan)


def _candidates(series: Tensor, longest: int, season: int | None, every: bool) -> list[Candidate]:
    change = series.diff(dim=1)
    change = change - change.mean()
    far = range(SEASON, min(longest, change.shape[1] - 1) + 1)
    strongest = max(far, key=lambda lag: float((change[:, lag:] * change[:, :-lag]).mean()), default=None)
    seasons = [period for period in {season, strongest} if period is not None and 1 < period <= longest]
    sets = {tuple(range(1, longest + 1))}
    for short, period in () if every else product(SHORT, (None, *seasons)):
        lags = set(range(1, short + 1))
        if period is not None:
            lags |= {period - 1, period, period + 1, 2 * period}
        sets.add(tuple(sorted(lag for lag in lags if 1 <= lag <= longest)))
    return [Candidate(*parts) for parts in product(sorted(sets), (1, *seasons), (True, False), PENALTIES)]


def _moments(windows: Windows, longest: int) -> Moments:
    series, known = windows.series, windows.known
    past = series[:, :-1].unfold(1, longest, 1).flip(-1).flatten(0, 1)
    scored = known[:, longest:].flatten()
    past, target = past[scored], series[:, longest:].flatten()[scored]
    newest = past[:, :1]
    rows = torch.cat([-newest, past[:, 1:] - newest, target[:, None] - newest], 1)
    mean = rows.mean(0) if len(rows) else rows.new_zeros(longest + 1)
    away = rows - mean
    return Moments(len(rows), mean, away.T @ away / max(1, len(rows)))


def _fit(moments: Moments, candidates: list[Candidate]) -> Linear:
    """All candidates, and persistence behind them."""
    mean, around = moments.mean, moments.product
    longest, raw = len(mean) - 1, around + torch.outer(mean, mean)
    found = []
    for lags, base, drifts, penalty in candidates:
        product_ = around if drifts else raw
        spread = product_[:-1, :-1].diagonal().sqrt().clamp(min=1e-12)
        at = torch.tensor([lag - 1 for lag in lags], device=mean.device)
        # What the penalty draws to, y_{t-base}, is y_{t-1} and the input of its lag.
        start = mean.new_zeros(longest)
        start[base - 1] = float(base > 1)
        rest = product_[:-1, -1] - product_[:-1, :-1] @ start
        scale = spread[at]
        square = product_[at][:, at] / scale / scale[:, None] + penalty * torch.eye(len(at)).to(mean)
        b = start.clone()
        b[at] += torch.linalg.solve(square, rest[at] / scale) / scale
        found.append((b, (mean[-1] - mean[:-1] @ b) * drifts))
    found.append((mean.new_zeros(longest), mean.new_zeros(())))
    b, intercept = (torch.stack(parts) for parts in zip(*found, strict=True))
    variance = around[-1, -1] - 2 * b @ around[:-1, -1] + ((b @ around[:-1, :-1]) * b).sum(1)
    bias = mean[-1] - b @ mean[:-1] - intercept
    weight = b.clone()
    weight[:, 0] = 1 - b.sum(1)
    return Linear(weight, intercept, (variance + bias.square()).clamp(min=0).sqrt().clamp(min=LEAST_NOISE))


def _crps(found: Linear, windows: Windows) -> Tensor:
    """Means (K) over observed steps of the CRPS of Gaussian forecasts of windows."""
    series, known, size, context, _ = windows
    if not known[:, context:].any():
        return series.new_zeros(len(found.weight))
    ways, shift, spread = ahead(found, series.shape[1] - context)
    past = series[:, context - ways.shape[-1] : context].flip(1)
    scores = []
    for way, more, wide in zip(ways, shift, spread, strict=True):  # one by one, to keep memory small
        z = (series[:, context:] - past @ way.T - more) / wide
        cdf, density = torch.special.ndtr(z), torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
        each = wide * (z * (2 * cdf - 1) + 2 * density - 1 / math.sqrt(math.pi)) * size[:, None]
        scores.append(each[known[:, context:]].mean())
    return torch.stack(scores)


def ahead(found: Linear, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Forecasts of H steps: weights of the last P values (K, H, P), constants (K, H) and deviations (K, H)."""
    weight, longest = found.weight, found.weight.shape[1]
    ways, shifts = weight.new_zeros(len(weight), steps, longest), weight.new_zeros(len(weight), steps)
    for h in range(steps):
        ways[:, h] = F.pad(weight[:, h:], (0, min(h, longest)))
        shifts[:, h] = found.intercept
        recent = weight[:, :h]
        if recent.shape[1]:
            before = [h - 1 - k for k in range(recent.shape[1])]
            ways[:, h] += (recent[:, :, None] * ways[:, before]).sum(1)
            shifts[:, h] += (recent * shifts[:, before]).sum(1)
    # The latest value of the past acts as a shock of its step does.
    shocks = F.pad(ways[:, :-1, 0].square().cumsum(1), (1, 0)) + 1
    return ways, shifts, found.noise[:, None] * shocks.sqrt()
