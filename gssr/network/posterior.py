"""What the belief makes of an observation: q(x_t | h_t, y_t, s_t)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.network.gaussian import Gaussian, multiply
from gssr.network.layers import mlp

MIN_STD = 0.05


class Posterior(nn.Module):
    """q(x_t | h_t, y_t, s_t) of B sequences.

    Args:
        value_dim: Y. latent_dim: D. hidden_dim: G.
    """

    def __init__(self, value_dim: int, latent_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.value_dim, self.latent_dim, self.hidden_dim = value_dim, latent_dim, hidden_dim

    def forward(self, h: Tensor, prior: Gaussian, observation: Tensor) -> Gaussian:
        """The posterior (B, D) from h (B, G), the unsteered prior (B, D) and an ``observed`` step (B, 2 Y + D + 1).

        The prior is the one that no goal steered: a hindsight goal would otherwise leak the future into the belief.
        """
        raise NotImplementedError


class ProductPosterior(Posterior):
    """The prior times a Gaussian that is read from value and text only: q ∝ prior · o(x_t; y_t, s_t)."""

    def __init__(self, value_dim: int, latent_dim: int, hidden_dim: int) -> None:
        super().__init__(value_dim, latent_dim, hidden_dim)
        self.net = mlp(2 * value_dim + latent_dim + 1, hidden_dim, 2 * latent_dim)

    def forward(self, h: Tensor, prior: Gaussian, observation: Tensor) -> Gaussian:
        return multiply(prior, gaussian_from(self.net(observation)))


class MlpPosterior(Posterior):
    """One network reads h, value and text (Hafner et al. 2019, section 3)."""

    def __init__(self, value_dim: int, latent_dim: int, hidden_dim: int) -> None:
        super().__init__(value_dim, latent_dim, hidden_dim)
        self.net = mlp(hidden_dim + 2 * value_dim + latent_dim + 1, hidden_dim, 2 * latent_dim)

    def forward(self, h: Tensor, prior: Gaussian, observation: Tensor) -> Gaussian:
        return gaussian_from(self.net(torch.cat([h, observation], -1)))


def observed(value: Tensor, value_mask: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
    """A step's value (B, Y) and projected text (B, D) with their masks (B, Y) and (B,), in one: (B, 2 Y + D + 1)."""
    seen = value_mask.to(value.dtype)
    has_text = text_mask[:, None].to(value.dtype)
    return torch.cat([value * seen, seen, text * has_text, has_text], -1)


def gaussian_from(moments: Tensor) -> Gaussian:
    """A Gaussian (…, D) from the output (…, 2 D) of a network, its std at least ``MIN_STD``."""
    mean, spread = moments.chunk(2, -1)
    return Gaussian(mean, F.softplus(spread) + MIN_STD)
