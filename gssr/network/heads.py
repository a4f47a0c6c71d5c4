"""What is decoded from the belief: a value with its noise, and a prefix in front of the frozen model."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.network.gaussian import Gaussian
from gssr.network.layers import mlp


class ValueHead(nn.Module):
    """p(y_t | x_t), Gaussian in scaled units; x (…, D) to mean and std (…, Y).

    Args:
        floor: (Y) smallest std, about half of the data's own resolution: below it a likelihood only rewards digits.
    """

    def __init__(self, latent_dim: int, hidden_dim: int, floor: Tensor) -> None:
        super().__init__()
        self.net = mlp(latent_dim, hidden_dim, 2 * len(floor))
        self.register_buffer("floor", floor)

    def forward(self, x: Tensor) -> Gaussian:
        mean, spread = self.net(x).chunk(2, -1)
        return Gaussian(mean, F.softplus(spread - 2) + self.floor)


class PrefixProjector(nn.Module):
    """x (N, D) to a prefix (N, P, E) at the scale of the embedding table; the model multiplies it as it does words."""

    def __init__(self, latent_dim: int, hidden_dim: int, prefix_tokens: int, width: int, scale: float) -> None:
        super().__init__()
        self.prefix_tokens, self.width = prefix_tokens, width
        self.net = mlp(latent_dim, hidden_dim, prefix_tokens * width)
        self.register_buffer("scale", torch.tensor([scale]))

    def forward(self, x: Tensor) -> Tensor:
        raw = self.net(x).unflatten(-1, (self.prefix_tokens, self.width))
        return F.rms_norm(raw, (self.width,)) * self.scale
