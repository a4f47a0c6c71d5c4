"""What a forecast's decoded values still miss: an error that starts from the one last seen and drifts."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.network.layers import mlp

# A step of Adam moves a parameter by its rate, whatever its gradient: phi, a single number, needs larger ones.
SCALE = 10.0


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

    def forward(self, x: Tensor, missed: Tensor, seen: Tensor, gain: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Errors over T steps, of B sequences or of S rollouts of each.

        Args:
            x: (…, T, D) the belief, filtered in the context and imagined behind it.
            missed: (…, T, Y) observed less decoded value, where ``seen`` (…, T, Y) in the context; anything elsewhere.
            gain: (…, T) share of the way to the goal that the steered prior goes at each step, 0 without a goal.
            noise: (…, T, Y) standard normal.

        Returns:
            Mean and sample of the error given x, (…, T, Y) each, in scaled units; where seen, both are what was missed.
        """
        spread = F.softplus(self.net(torch.cat([x, gain[..., None]], -1)) - 2) * noise
        keep = self.phi * (1 - gain)[..., None]
        missed = torch.where(seen, missed, torch.zeros_like(missed))
        mean = sample = torch.zeros_like(missed[..., 0, :])
        means, samples = [], []
        for t in range(missed.shape[-2]):
            given = seen[..., t, :]
            mean = torch.where(given, missed[..., t, :], keep[..., t, :] * mean)
            sample = torch.where(given, missed[..., t, :], keep[..., t, :] * sample + spread[..., t, :])
            means.append(mean)
            samples.append(sample)
        return torch.stack(means, -2), torch.stack(samples, -2)
