"""Values of a forecast that a linear autoregression expects, and what the belief adds to it."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.network.forecast_error import Error, Value, followed_by, last_of
from gssr.network.layers import mlp

SHORT = (1, 2, 3, 6)  # lags from 1 on that are tried
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # of standardised inputs, as shares of the number of steps that are fitted
MANY = 32  # dimensions, above which all lags are taken: to choose among them takes a second each
SEASON = 4  # the shortest that is looked for in changes
CHECKED = 0.25  # share of the training windows, the last ones, by whose forecasts lags and penalty are chosen
LEAST_NOISE = 1e-3  # of a step, in the units that the network sees
ONE = 0.5413248  # softplus(ONE) = 1


class LinearForecast(nn.Module):
    """Values that go on from the last P values by a linear autoregression, and by what the belief adds to it:

        y_t = (1 - gain_t) (c + sum_k a_k y_{t-k} + r(x_t)) + gain_t mu_y(x_t) + s(x_t, gain_t) eps_t

    c, a and the scale of s are fitted in closed form before training, dimension by dimension, and stay. r is 0 and s is
    the scale of the residuals until training changes them: the network begins as that autoregression and learns what is
    left. At a goal's arrival the value is the belief's, as with `ForecastError`, which this replaces.

    Args:
        value_dim: Y. latent_dim: D. hidden_dim: width of the nets behind r and s. order: P, the longest lag.
    """

    of_values = True  # what it goes on from are values, not errors of decoded values
    weight: Tensor
    intercept: Tensor
    noise: Tensor

    def __init__(self, value_dim: int, latent_dim: int, hidden_dim: int, order: int) -> None:
        super().__init__()
        self.order = order
        self.rest, self.net = mlp(latent_dim, hidden_dim, value_dim), mlp(latent_dim + 1, hidden_dim, value_dim)
        for net in (self.rest, self.net):
            nn.init.zeros_(net[-1].weight)
            nn.init.zeros_(net[-1].bias)
        self.register_buffer("weight", torch.cat([torch.ones(1, value_dim), torch.zeros(order - 1, value_dim)]))
        self.register_buffer("intercept", torch.zeros(value_dim))
        self.register_buffer("noise", torch.ones(value_dim))

    def expected(self, past: Tensor) -> Tensor:
        """The value (B, Y) that follows the last P (B, P, Y), the latest first, by the autoregression alone."""
        return self.intercept + (self.weight[: past.shape[1]] * past).sum(1)

    def last(self, value: Tensor, seen: Tensor) -> Tensor:
        """The last P values (B, T, P, Y) after each step of a context, see `last_of`; T where P is more.

        No lag is longer than the context.
        """
        return last_of(value, seen, min(self.order, value.shape[1]), self.expected)

    def values(self, decoded: Tensor, x: Tensor, gain: Tensor, past: Error, noise: Tensor) -> tuple[Value, Error]:
        """The value after the next step, whose belief is x (B, D) and decodes to (B, Y); see `ForecastError.values`."""
        gain = gain[:, None]
        spread = self.noise * F.softplus(self.net(torch.cat([x, gain], -1)) + ONE)
        rest = self.rest(x)
        mean, sample = ((1 - gain) * (self.expected(each) + rest) + gain * decoded for each in past)
        sample = sample + spread * noise
        return Value(mean, sample), Error(followed_by(past.mean, mean), followed_by(past.sample, sample))

    @torch.no_grad()
    def fit(self, value: Tensor, seen: Tensor, context: int, season: int | None = None) -> LinearForecast:
        """Fit c, a and the noise of each dimension to windows in order of time.

        A ridge regression of the changes draws them to persistence. Its lags and its penalty are those whose forecasts
        of the last quarter of the windows have the smallest mean absolute error, after a fit to the others: short lags,
        alone or with those around a season, which is the given one or the strongest of the changes.

        Args:
            value: (N, T, Y), in the units that the network sees. seen: (N, T, Y). context: C steps of each.
            season: steps of a season that the calendar names.
        """
        longest, every = min(self.order, context), value.shape[-1] > MANY
        for y in range(value.shape[-1]):
            series, known = _filled(value[..., y].double(), seen[..., y]), seen[..., y]
            usable = ~series[:, :context].isnan().any(1)
            series, known = series[usable], known[usable]
            first = int(len(series) * (1 - CHECKED))
            if first < 1 or first == len(series):
                continue
            # Windows overlap: those before the checked ones must not reach into their horizons.
            before = slice(0, max(1, first - (value.shape[1] - context)))
            best = (_missed(*_walk(longest, series), series[first:], known[first:], context), None)
            sets = [tuple(range(1, longest + 1))] if every else _candidates(series[before], longest, season)
            for lags, penalty in product(sets, PENALTIES):
                found = _ridge(series[before], known[before], longest, lags, penalty)
                best = min(best, (_missed(*found, series[first:], known[first:], context), (lags, penalty)), key=_error)
            chosen = best[1]
            weight, intercept = _walk(longest, series) if chosen is None else _ridge(series, known, longest, *chosen)
            inputs, target, scored = _steps(series, known, longest)
            residual = (target - inputs @ weight - intercept)[scored]
            self.weight[:, y] = F.pad(weight, (0, self.order - longest)).to(self.weight)
            self.intercept[y] = intercept.to(self.intercept)
            self.noise[y] = residual.square().mean().sqrt().clamp(min=LEAST_NOISE).to(self.noise)
        return self


def _error(found: tuple[float, object]) -> float:
    return found[0]


def _filled(value: Tensor, seen: Tensor) -> Tensor:
    """Values (N, T) with the one before where nothing was observed, NaN before the first."""
    steps = torch.arange(1, value.shape[1] + 1, device=value.device)
    newest = (seen * steps).cummax(1).values
    return torch.where(newest > 0, value.gather(1, (newest - 1).clamp(min=0)), torch.nan)


def _walk(longest: int, series: Tensor) -> tuple[Tensor, Tensor]:
    """The weights (P) and the intercept of persistence."""
    weight = series.new_zeros(longest)
    weight[0] = 1
    return weight, series.new_zeros(())


def _candidates(series: Tensor, longest: int, season: int | None) -> list[tuple[int, ...]]:
    """Sets of lags that are worth trying, up to the longest."""
    change = series.diff(dim=1)
    change = change - change.mean()
    far = range(SEASON, min(longest, change.shape[1] - 1) + 1)
    seasons = {season, max(far, key=lambda lag: float((change[:, lag:] * change[:, :-lag]).mean()), default=None)}
    sets = set()
    for short, period in product(SHORT, (None, *seasons)):
        lags = set(range(1, short + 1))
        if period is not None and 1 < period <= longest:
            lags |= {period - 1, period, period + 1, 2 * period}
        sets.add(tuple(sorted(lag for lag in lags if 1 <= lag <= longest)))
    sets.add(tuple(range(1, longest + 1)))
    return sorted(sets)


def _steps(series: Tensor, known: Tensor, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of windows (N, T) all steps behind P others: those, the latest first (M, P); the step, and if it was seen (M)."""
    inputs = series[:, :-1].unfold(1, longest, 1).flip(-1)
    return inputs.flatten(0, 1), series[:, longest:].flatten(), known[:, longest:].flatten()


def _ridge(series: Tensor, known: Tensor, longest: int, lags: tuple[int, ...], penalty: float) -> tuple[Tensor, Tensor]:
    """Weights (P) and intercept of y_t - y_{t-1} = c - b_1 y_{t-1} + sum_k b_k (y_{t-k} - y_{t-1}) for the lags k."""
    past, target, scored = _steps(series, known, longest)
    past, target = past[scored], target[scored] - past[scored][:, 0]
    inputs = torch.stack([-past[:, 0], *(past[:, lag - 1] - past[:, 0] for lag in lags if lag > 1)], 1)
    middle, goal = inputs.mean(0), target.mean()
    spread = inputs.std(0, correction=0).clamp(min=1e-12)
    scaled = (inputs - middle) / spread
    square = scaled.T @ scaled + penalty * len(scaled) * torch.eye(scaled.shape[1]).to(scaled)
    b = torch.linalg.solve(square, scaled.T @ (target - goal)) / spread
    weight, _ = _walk(longest, series)
    weight[0] -= b.sum()
    weight[[lag - 1 for lag in lags if lag > 1]] += b[1:]
    return weight, goal - middle @ b


def _missed(weight: Tensor, intercept: Tensor, series: Tensor, known: Tensor, context: int) -> float:
    """Mean absolute error of forecasts (N, H) of windows from their contexts."""
    past, path = series[:, context - len(weight) : context].flip(1), []
    for _ in range(series.shape[1] - context):
        path.append(past @ weight + intercept)
        past = torch.cat([path[-1][:, None], past[:, :-1]], 1)
    error = (torch.stack(path, 1) - series[:, context:]).abs()[known[:, context:]]
    return float(error.mean()) if len(error) else 0.0
