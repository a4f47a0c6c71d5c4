"""From the frozen model's token states of a goal sentence to x_g, the point of the latent space where the goal would hold."""

import torch
from torch import Tensor, nn

from gssr.network.layers import mlp

READINGS = ("attention", "mean", "last")


class GoalEncoder(nn.Module):
    """A few learned queries attend over the token states, then an MLP.

    Attention pooling reads numbers from sentences never seen; the mean and the last token do not and stay for comparison.

    Args:
        width: E of the token states.
        latent_dim: D.
        queries: learned queries.
        reading: ``attention``, ``mean`` or ``last``.
    """

    def __init__(
        self, width: int, latent_dim: int, hidden_dim: int, queries: int = 4, reading: str = "attention"
    ) -> None:
        super().__init__()
        if reading not in READINGS:
            raise ValueError(f"goal reading {reading!r} is not known; expected one of {READINGS}")
        self.reading = reading
        self.norm = nn.LayerNorm(width)
        pooled = width * queries if reading == "attention" else width
        if reading == "attention":
            self.key = nn.Linear(width, queries)
            self.value = nn.Linear(width, width)
        self.out = mlp(pooled, hidden_dim, latent_dim)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Token states (B, L, E) with mask (B, L), True at tokens, to x_g (B, D). A row without tokens gives a finite x_g."""
        states = self.norm(states)
        if self.reading == "attention":
            scores = self.key(states).masked_fill(~mask[..., None], -1e9)
            weights = torch.softmax(scores, 1)
            pooled = torch.einsum("blq,ble->bqe", weights, self.value(states)).flatten(1)
        elif self.reading == "mean":
            pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        else:
            last = (mask.sum(1) - 1).clamp(min=0)
            pooled = states[torch.arange(len(states), device=states.device), last]
        return self.out(pooled)
