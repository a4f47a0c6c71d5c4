"""The belief written into the frozen model's recurrent states: x becomes a low-rank change of chosen layers."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gssr.network.layers import mlp
from gssr.states.rules import LowRank

# Patterns are normalised, so their initial length only decides how far an optimizer step turns them. A short one turns
# far: random directions hardly change a state, and all of them must be learned.
SHORT = 0.05


class StateProjector(nn.Module):
    """x (N, D) to a change of each layer's recurrent state, of rank K in every head.

    change_l = scale_l · sum_k tanh(c_lk) · left_lk right_lk^T,   c = mlp(x)  (N, layers, K)

    left_l (M, R, K) and right_l (M, N, K) are learned, M heads of dimension R with N state dimensions. Each of the K
    patterns has norm 1 over all heads; scale_l is the norm of the layer's state behind a text. So no change is larger
    than K states. c starts at 0, so an untrained projector changes nothing.

    Args:
        shapes: (M, R, N) of each layer's state, by layer.
        scales: norm of each layer's state.
    """

    def __init__(
        self,
        latent_dim: int,
        hidden_dim: int,
        rank: int,
        shapes: Mapping[int, Sequence[int]],
        scales: Mapping[int, float],
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"the rank of a change of states is {rank}; expected at least 1")
        if not shapes or any(len(shape) != 3 for shape in shapes.values()):
            raise ValueError(
                f"the states have the shapes {dict(shapes)}; expected (heads, head dimension, state dimension) for at "
                "least one layer, as in Mamba-2"
            )
        self.layers, self.rank = sorted(shapes), rank
        self.net = mlp(latent_dim, hidden_dim, len(self.layers) * rank)
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)
        self.left = nn.ParameterList(SHORT * torch.randn(*shapes[i][:2], rank) for i in self.layers)
        self.right = nn.ParameterList(SHORT * torch.randn(shapes[i][0], shapes[i][2], rank) for i in self.layers)
        self.register_buffer("scale", torch.tensor([float(scales[i]) for i in self.layers]))

    def forward(self, x: Tensor) -> dict[int, LowRank]:
        """By layer, left (N, M, R, K) and right (N, M, N', K)."""
        share = torch.tanh(self.net(x)).unflatten(-1, (len(self.layers), self.rank))
        changes = {}
        for i, layer in enumerate(self.layers):
            size = self.scale[i] * share[:, i, None, None, :]
            left = nn.functional.normalize(self.left[i].flatten(0, 1), dim=0).view_as(self.left[i])
            right = nn.functional.normalize(self.right[i], dim=1)
            changes[layer] = LowRank(left * size, right.expand(len(x), *right.shape))
        return changes
