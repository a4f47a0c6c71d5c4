"""Values of a forecast that a linear autoregression expects, and what the belief adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.network.forecast_error import Error, Value, followed_by, last_of
from gssr.network.layers import mlp
from gssr.network.linear_fit import MANY, Fit, filled, fit_each
from gssr.network.prior import SHORTEST, SeriesPrior
from gssr.network.prior_share import best_share, prior_forecasts

ONE = 0.5413248  # softplus(ONE) = 1
REACH = 64  # steps with a share of their own of a pretrained forecast
LEAST = 1e-4  # of the noise as a unit; a series that the autoregression knows exactly has none


class LinearForecast(nn.Module):
    """Values that go on from the last P values by a linear autoregression, and by what the belief adds to it:

        y_t = (1 - gain_t) (c + sum_k a_k y_{t-k} + n r(x_t)) + gain_t mu_y(x_t) + n s(x_t, gain_t) eps_t

    c, a and the noise n of the residuals are fitted in closed form before training, dimension by dimension, and stay. r
    is 0 and s is 1 until training changes them: the network begins as that autoregression and learns what is left. It
    learns in units of n, which is small beside the levels of a series that wanders far: in units of levels, steps of
    the optimiser would be too large, and the loss too small beside others. At a goal's arrival the value is the
    belief's, as with `ForecastError`, which this replaces.

    With a pretrained forecaster (`SeriesPrior`), whose forecast from the same origin is q_t, and q^_t that of the
    autoregression, shares w_h (q_t - q^_t) of each step ahead are added to y_t, and the autoregression goes on without
    them. w is chosen at rolling origins, and n is smaller by as much as errors are.

    Args:
        value_dim: Y. latent_dim: D. hidden_dim: width of the nets behind r and s. order: P, the longest lag.
        prior: take the pretrained forecaster of the package, whose weights are then part of the network.
    """

    of_values = True  # what it goes on from are values, not errors of decoded values
    weight: Tensor
    intercept: Tensor
    noise: Tensor
    share: Tensor
    season: Tensor

    def __init__(self, value_dim: int, latent_dim: int, hidden_dim: int, order: int, prior: bool = False) -> None:
        super().__init__()
        self.order = order
        self.left, self.net = mlp(latent_dim, hidden_dim, value_dim), mlp(latent_dim + 1, hidden_dim, value_dim)
        for net in (self.left, self.net):
            nn.init.zeros_(net[-1].weight)
            nn.init.zeros_(net[-1].bias)
        self.register_buffer("weight", torch.cat([torch.ones(1, value_dim), torch.zeros(order - 1, value_dim)]))
        self.register_buffer("intercept", torch.zeros(value_dim))
        self.register_buffer("noise", torch.ones(value_dim))
        self.prior = _kept(SeriesPrior.bundled()) if prior else None
        if prior:
            self.register_buffer("share", torch.zeros(REACH, value_dim))
            self.register_buffer("season", torch.zeros((), dtype=torch.long))

    @property
    def unit(self) -> Tensor:
        """What errors of a forecast are measured in while it is learned, (Y): the noise of the residuals."""
        return self.noise.clamp(min=LEAST)

    def expected(self, past: Tensor) -> Tensor:
        """The value (B, Y) that follows the last P (B, P, Y), the latest first, by the autoregression alone."""
        return self.intercept + (self.weight[: past.shape[1]] * past).sum(1)

    def last(self, value: Tensor, seen: Tensor) -> Tensor:
        """The last P values (B, T, P, Y) after each step of a context, see `last_of`; T where P is more.

        No lag is longer than the context.
        """
        return last_of(value, seen, min(self.order, value.shape[1]), self.expected)

    def values(self, decoded: Tensor, x: Tensor, gain: Tensor, past: Error, noise: Tensor) -> tuple[Value, Error]:
        """The value after the next step, whose belief is x (B, D) and decodes to (B, Y); see `ForecastError.values`.

        Behind the last P values of ``past`` stands what is added to each of the next steps, see `added`, or nothing.
        """
        own, added = [part[:, : self.order] for part in past], past.mean[:, self.order : self.order + 1].sum(1)
        later, gain = past.mean[:, self.order + 1 :], gain[:, None]
        spread = self.noise * F.softplus(self.net(torch.cat([x, gain], -1)) + ONE)
        rest = self.noise * self.left(x) + added
        mean, sample = ((1 - gain) * (self.expected(each) + rest) + gain * decoded for each in own)
        sample = sample + spread * noise
        after = (followed_by(each, value - added) for each, value in zip(own, (mean, sample), strict=True))
        return Value(mean, sample), Error(*(torch.cat([part, later], 1) for part in after))

    @torch.no_grad()
    def added(self, past: Tensor, value: Tensor, seen: Tensor, steps: int, level: Tensor | None = None) -> Tensor:
        """What the pretrained forecaster adds to each of the next H steps, (B, H, Y).

        Args:
            past: (B, P, Y), see `last`. value, seen: (B, C, Y), the context. steps: H.
            level: (B, C + H, Y), what values here lack of those that the pretrained forecaster is to read.
        """
        found, context = past.new_zeros(len(past), steps, past.shape[-1]), value.shape[1]
        columns = self.share.any(0).nonzero()[:, 0]
        if context < SHORTEST or not len(columns):
            return found
        each = []
        for _ in range(steps):
            past = followed_by(past, self.expected(past))
            each.append(past[:, 0, columns])
        series = torch.stack([_known(value[..., y], seen[..., y]) for y in columns], -1)
        level = torch.zeros_like(value[:, :1]).expand(-1, context + steps, -1) if level is None else level
        prior = prior_forecasts(self.prior, series + level[:, :context, columns], self.season, steps)
        share = self.share[torch.arange(steps, device=past.device).clamp(max=REACH - 1)][:, columns]
        found[..., columns] = share * (prior - level[:, context:, columns] - torch.stack(each, 1))
        return found

    @torch.no_grad()
    def fit(
        self,
        value: Tensor,
        seen: Tensor,
        context: int,
        season: int | None = None,
        training: int | None = None,
        level: Tensor | None = None,
    ) -> LinearForecast:
        """Fit c, a and the noise of each dimension to training windows in order of time.

        A ridge regression draws the weights to persistence, or to the value a season before. Lags, penalty and what it
        is drawn to are those whose forecasts were best at rolling origins and on validation: short lags, alone or with
        those around a season, which is the given one or the strongest of the changes.

        Args:
            value: (N, T, Y), in the units that the network sees. seen: (N, T, Y). context: C steps of each.
            season: steps of a season that the calendar names.
            training: how many windows train, the first ones; the others validate. None: all.
            level: (N, T, Y), see `added`.
        """
        training = len(value) if training is None else training
        each = fit_each(value, seen, torch.ones(()), context, training, self.order, season)
        for y, fitted in enumerate(each):
            if (found := fitted.linear) is not None:
                self.weight[:, y] = F.pad(found.weight, (0, self.order - len(found.weight))).to(self.weight)
                self.intercept[y], self.noise[y] = found.intercept.to(self.weight), found.noise.to(self.weight)
        if self.prior is not None:
            self.season.fill_(season or 0)
            self._fit_share(each, value, seen, context, level)
        return self

    def _fit_share(self, each: Sequence[Fit], value: Tensor, seen: Tensor, context: int, level: Tensor | None) -> None:
        if context < SHORTEST or len(each) > MANY:
            return
        steps = value.shape[1] - context
        level = torch.zeros_like(value) if level is None else level
        for y, fitted in enumerate(each):
            rows = fitted.usable
            series = filled(value[rows, :context, y], seen[rows, :context, y]) + level[rows, :context, y]
            forecasts = prior_forecasts(self.prior, series[..., None], self.season, steps)[..., 0]
            found = best_share(fitted, forecasts - level[rows, context:, y], self.order)
            if found is not None:
                reach = min(REACH, steps)
                self.share[:reach, y] = found.each[:reach].to(self.share)
                self.share[reach:, y] = self.share[reach - 1, y]
                self.noise[y] *= found.error.to(self.noise)


def _kept(prior: SeriesPrior) -> SeriesPrior:
    """A copy whose weights nothing trains, which a checkpoint holds."""
    copy = deepcopy(prior)
    for part in copy.modules():
        for name, weight in list(part._parameters.items()):
            delattr(part, name)
            part.register_buffer(name, weight.detach())
    return copy


def _known(value: Tensor, seen: Tensor) -> Tensor:
    """Values (B, C) with the one before where nothing was observed, before the first that one, and 0 without any."""
    forward = filled(value, seen)
    backward = filled(value.flip(1), seen.flip(1)).flip(1)
    return torch.where(forward.isnan(), backward, forward).nan_to_num(nan=0.0)
