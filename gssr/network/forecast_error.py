"""The values of a forecast: what is decoded from the belief, and an error that starts from the one last seen and drifts."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.network.heads import ValueHead
from gssr.network.layers import mlp

# A step of Adam moves a parameter by its rate, whatever its gradient: phi, a single number, needs larger ones.
SCALE = 10.0


class Error(NamedTuple):
    """Value less decoded value of B sequences at one step, (B, Y) each: given the path of x, and drawn."""

    mean: Tensor
    sample: Tensor


class ForecastError(nn.Module):
    """Regression with first-order autoregressive errors (Cochrane & Orcutt 1949): y_t = mu_y(x_t) + e_t in a forecast,

        e_t = phi (1 - gain_t) e_{t-1} + s(x_t, gain_t) eps_t,    eps_t ~ N(0, 1)

    from e_{C-1} = y_{C-1} - mu_y(x_{C-1}). So a forecast starts at the last observed value itself and not at what a latent of
    limited information says of it, and its spread grows. A goal pulls the error to zero as it pulls the belief to where the
    goal would hold: at its arrival the value is what the belief says. s sees the gain, since a known end leaves less open.

    Args:
        value_dim: Y. latent_dim: D. hidden_dim: width of the net behind s.
    """

    def __init__(self, value_dim: int, latent_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.net = mlp(latent_dim + 1, hidden_dim, value_dim)
        self.persistence = nn.Parameter(torch.full((value_dim,), 2.0 / SCALE))  # phi 0.88

    @property
    def phi(self) -> Tensor:
        """Share of the error that is left one step later, (Y)."""
        return torch.sigmoid(SCALE * self.persistence)

    def last(self, missed: Tensor, seen: Tensor) -> Tensor:
        """The error (B, T, Y) after each step of a context: what was ``missed``, observed less decoded value, where ``seen`` (B, T, Y);
        elsewhere what is left of the one before."""
        missed = torch.where(seen, missed, torch.zeros_like(missed))
        error, errors = torch.zeros_like(missed[:, 0]), []
        for t in range(missed.shape[1]):
            error = torch.where(seen[:, t], missed[:, t], self.phi * error)
            errors.append(error)
        return torch.stack(errors, 1)

    def forward(self, x: Tensor, gain: Tensor, error: Error, noise: Tensor) -> Error:
        """The error of the next step, whose belief is x (B, D).

        Args:
            gain: (B) share of the way to the goal that the steered prior goes, 0 without a goal.
            noise: (B, Y) standard normal.
        """
        spread = F.softplus(self.net(torch.cat([x, gain[:, None]], -1)) - 2)
        keep = self.phi * (1 - gain)[:, None]
        return Error(keep * error.mean, keep * error.sample + spread * noise)


class Value(NamedTuple):
    """Values of an imagined step, (B, Y) each in scaled units: without noise given the path of x, and drawn."""

    mean: Tensor
    sample: Tensor


class Decoder(NamedTuple):
    """The values of an imagined step from its belief."""

    head: ValueHead
    error: ForecastError

    def __call__(self, x: Tensor, gain: Tensor, error: Error, noise: Tensor) -> tuple[Value, Error]:
        """The value (B, Y) of belief x (B, D), given x and drawn, and its error; see ForecastError."""
        decoded, error = self.head(x).mean, self.error(x, gain, error, noise)
        return Value(decoded + error.mean, decoded + error.sample), error
