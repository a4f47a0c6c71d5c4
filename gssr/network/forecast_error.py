"""The values of a forecast: the decoded belief, and an error that starts at the last one observed and drifts."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.network.heads import ValueHead
from gssr.network.layers import SCALE, mlp


class Error(NamedTuple):
    """Value less decoded value of B sequences at the last P steps, the latest first, (B, P, Y) each.

    ``mean`` is the expected error given the path of x, ``sample`` a drawn one.
    """

    mean: Tensor
    sample: Tensor


class Value(NamedTuple):
    """Values (B, Y) of an imagined step in scaled units: expected given the path of x, and drawn."""

    mean: Tensor
    sample: Tensor


class ForecastError(nn.Module):
    """Regression with autoregressive errors (Cochrane & Orcutt 1949) of order P: y_t = mu_y(x_t) + e_t in a forecast,

        e_t = (1 - gain_t) (phi e_{t-1} + sum_{k=1}^{P-1} psi_k (e_{t-k} - e_{t-k-1})) + s(x_t, gain_t) eps_t

    with eps_t ~ N(0, 1), from e_{C-1} = y_{C-1} - mu_y(x_{C-1}). So a forecast starts at the last observed value, not
    at what a latent of limited information knows of it, and its spread grows. An order above one continues past
    changes; with order 13, monthly values repeat the changes of a year ago, which a few hundred windows do not teach a
    recurrence. A goal pulls the error to zero as it pulls the belief: at its arrival the value is the belief's. s sees
    the gain, because a known end leaves less open.

    Args:
        value_dim: Y. latent_dim: D. hidden_dim: width of the net behind s. order: P.
    """

    of_values = False  # what it goes on from are errors
    prior = None  # no pretrained forecaster
    momentum: nn.Parameter | None

    def __init__(self, value_dim: int, latent_dim: int, hidden_dim: int, order: int = 1) -> None:
        super().__init__()
        self.order = order
        self.net = mlp(latent_dim + 1, hidden_dim, value_dim)
        self.persistence = nn.Parameter(torch.full((value_dim,), 2.0 / SCALE))  # phi 0.88
        self.momentum = nn.Parameter(torch.zeros(order - 1, value_dim)) if order > 1 else None

    @property
    def phi(self) -> Tensor:
        """Share of the error that is left one step later, (Y)."""
        return torch.sigmoid(SCALE * self.persistence)

    @property
    def unit(self) -> Tensor:
        """What errors of a forecast are measured in while it is learned, (): those of the values."""
        return torch.ones_like(self.persistence[0])

    def expected(self, past: Tensor) -> Tensor:
        """The error (B, Y) that follows the last P (B, P, Y), the latest first, on average and without a goal."""
        left = self.phi * past[:, 0]
        if self.momentum is None:
            return left
        return left + (SCALE * self.momentum * (past[:, :-1] - past[:, 1:])).sum(1)

    def last(self, missed: Tensor, seen: Tensor) -> Tensor:
        """The last P errors (B, T, P, Y) after each step of a context; ``missed`` is observed less decoded value."""
        return last_of(missed, seen, self.order, self.expected)

    def forward(self, x: Tensor, gain: Tensor, error: Error, noise: Tensor) -> Error:
        """The errors after the next step, whose belief is x (B, D).

        Args:
            gain: (B,) share of the way to the goal that the pull goes, 0 without a goal.
            noise: (B, Y) standard normal.
        """
        spread = F.softplus(self.net(torch.cat([x, gain[:, None]], -1)) - 2)
        free = (1 - gain)[:, None]
        mean, sample = free * self.expected(error.mean), free * self.expected(error.sample) + spread * noise
        return Error(followed_by(error.mean, mean), followed_by(error.sample, sample))

    def values(self, decoded: Tensor, x: Tensor, gain: Tensor, past: Error, noise: Tensor) -> tuple[Value, Error]:
        """The value after the next step, which decodes to (B, Y), and what the one after it goes on from."""
        error = self(x, gain, past, noise)
        return Value(decoded + error.mean[:, 0], decoded + error.sample[:, 0]), error


def followed_by(past: Tensor, by: Tensor) -> Tensor:
    """The last P (B, P, Y) of a step later, whose own is (B, Y)."""
    return torch.cat([by[:, None], past[:, :-1]], 1)


def last_of(found: Tensor, seen: Tensor, order: int, expected: Callable[[Tensor], Tensor]) -> Tensor:
    """The last P (B, T, P, Y) after each step of what is found (B, T, Y) where ``seen`` (B, T, Y), the latest first.

    Elsewhere it is what is expected after those before. Those before the first one that was seen equal it.
    """
    found = torch.where(seen, found, torch.zeros_like(found))
    past, begun = found.new_zeros(len(found), order, found.shape[-1]), torch.zeros_like(seen[:, 0])
    every = []
    for t in range(found.shape[1]):
        now = torch.where(seen[:, t], found[:, t], expected(past))
        older = torch.where(begun[:, None], past[:, :-1], now[:, None])
        past, begun = torch.cat([now[:, None], older], 1), begun | seen[:, t]
        every.append(past)
    return torch.stack(every, 1)


class Drift(Protocol):
    """How values go on behind a context: `ForecastError` or `LinearForecast`."""

    def values(self, decoded: Tensor, x: Tensor, gain: Tensor, past: Error, noise: Tensor) -> tuple[Value, Error]: ...


class Decoder(NamedTuple):
    """The values of an imagined step from its belief."""

    head: ValueHead
    error: Drift

    def __call__(self, x: Tensor, gain: Tensor, error: Error, noise: Tensor) -> tuple[Value, Error]:
        """The value (B, Y) of belief x (B, D) and its errors, from gain (B,), the last errors and noise (B, Y)."""
        return self.error.values(self.head(x).mean, x, gain, error, noise)
