"""Values of a forecast that a linear autoregression expects, and what the belief adds to it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.network.forecast_error import Error, Value, followed_by, last_of
from gssr.network.layers import mlp
from gssr.network.linear_fit import fit_each

ONE = 0.5413248  # softplus(ONE) = 1
LEAST = 1e-4  # of the noise as a unit; a series that the autoregression knows exactly has none


class LinearForecast(nn.Module):
    """Values that go on from the last P values by a linear autoregression, and by what the belief adds to it:

        y_t = (1 - gain_t) (c + sum_k a_k y_{t-k} + n r(x_t)) + gain_t mu_y(x_t) + n s(x_t, gain_t) eps_t

    c, a and the noise n of the residuals are fitted in closed form before training, dimension by dimension, and stay. r
    is 0 and s is 1 until training changes them: the network begins as that autoregression and learns what is left. It
    learns in units of n, which is small beside the levels of a series that wanders far: in units of levels, steps of
    the optimiser would be too large, and the loss too small beside others. At a goal's arrival the value is the
    belief's, as with `ForecastError`, which this replaces.

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
        self.left, self.net = mlp(latent_dim, hidden_dim, value_dim), mlp(latent_dim + 1, hidden_dim, value_dim)
        for net in (self.left, self.net):
            nn.init.zeros_(net[-1].weight)
            nn.init.zeros_(net[-1].bias)
        self.register_buffer("weight", torch.cat([torch.ones(1, value_dim), torch.zeros(order - 1, value_dim)]))
        self.register_buffer("intercept", torch.zeros(value_dim))
        self.register_buffer("noise", torch.ones(value_dim))

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
        """The value after the next step, whose belief is x (B, D) and decodes to (B, Y); see `ForecastError.values`."""
        gain = gain[:, None]
        spread = self.noise * F.softplus(self.net(torch.cat([x, gain], -1)) + ONE)
        rest = self.noise * self.left(x)
        mean, sample = ((1 - gain) * (self.expected(each) + rest) + gain * decoded for each in past)
        sample = sample + spread * noise
        return Value(mean, sample), Error(followed_by(past.mean, mean), followed_by(past.sample, sample))

    @torch.no_grad()
    def fit(
        self, value: Tensor, seen: Tensor, context: int, season: int | None = None, training: int | None = None
    ) -> LinearForecast:
        """Fit c, a and the noise of each dimension to training windows in order of time.

        A ridge regression draws the weights to persistence, or to the value a season before. Lags, penalty and what it
        is drawn to are those whose forecasts were best at rolling origins and on validation: short lags, alone or with
        those around a season, which is the given one or the strongest of the changes.

        Args:
            value: (N, T, Y), in the units that the network sees. seen: (N, T, Y). context: C steps of each.
            season: steps of a season that the calendar names.
            training: how many windows train, the first ones; the others validate. None: all.
        """
        training = len(value) if training is None else training
        each = fit_each(value, seen, torch.ones(()), context, training, self.order, season)
        for y, (found, _) in enumerate(each):
            if found is not None:
                self.weight[:, y] = F.pad(found.weight, (0, self.order - len(found.weight))).to(self.weight)
                self.intercept[y], self.noise[y] = found.intercept.to(self.weight), found.noise.to(self.weight)
        return self
