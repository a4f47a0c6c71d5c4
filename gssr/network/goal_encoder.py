"""From the frozen model's token states of a goal sentence to x_g, where in the latent space the goal holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gssr.backbone import FrozenBackbone
from gssr.backbone.frozen import side_by_side
from gssr.network.layers import mlp

KEPT_BYTES = 2**27  # of token states: some 13,000 goal sentences of nano


class LatentGoal(NamedTuple):
    """Goals of B sequences in the latent space.

    Shapes: ``x`` (B, D) where the goal holds; ``active`` (B) False for a sequence without a goal; ``start``, ``step``
    (B) int: it acts on steps start < t <= step; ``length`` (B) int: T, the steps of the sequence.
    """

    x: Tensor
    active: Tensor
    start: Tensor
    step: Tensor
    length: Tensor

    def acts(self, t: int) -> Tensor:
        """Whether each goal acts on step t, (B,) bool."""
        return self.active & (self.start < t) & (t <= self.step)

    def repeat(self, samples: int) -> LatentGoal:
        """Sample-major copies for S rollouts of each sequence: (S · B, …)."""
        return LatentGoal(*(field.repeat(samples, *[1] * (field.ndim - 1)) for field in self))


class GoalEncoder(nn.Module):
    """A few learned queries attend over the token states, then an MLP.

    Attention pooling reads numbers from sentences that training did not have; the mean and the last token do not.

    Args:
        width: E of the token states.
        latent_dim: D.
        queries: learned queries.
    """

    def __init__(self, width: int, latent_dim: int, hidden_dim: int, queries: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.key = nn.Linear(width, queries)
        self.value = nn.Linear(width, width)
        self.out = mlp(width * queries, hidden_dim, latent_dim)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Token states (B, L, E) with mask (B, L), True at tokens, to x_g (B, D), finite for a row without tokens."""
        states = self.norm(states)
        scores = self.key(states).masked_fill(~mask[..., None], -1e9)
        pooled = torch.einsum("blq,ble->bqe", torch.softmax(scores, 1), self.value(states))
        return self.out(pooled.flatten(1))


class GoalReader:
    """Token states of goal sentences after one layer of the frozen model, kept because sentences come again.

    Those that were used last are kept, up to ``KEPT_BYTES``. A goal that is read again has the same states.
    """

    def __init__(self, backbone: FrozenBackbone, layer: int) -> None:
        self.backbone, self.layer = backbone, layer
        self._states: dict[str, Tensor] = {}  # in order of use
        self._bytes = 0

    def __call__(self, goals: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States (N, L, E) and mask (N, L) of N goals; one row without tokens for no goals.

        Raises ValueError for a goal without a token, or states that are not finite.
        """
        device = self.backbone.device
        if not goals:
            empty = torch.zeros(1, 1, self.backbone.hidden_size, device=device)
            return empty, torch.zeros(1, 1, dtype=torch.bool, device=device)
        wanted = dict.fromkeys(goals)
        new = [goal for goal in wanted if goal not in self._states]
        for goal, states in zip(new, self.backbone.read(new, self.layer), strict=True):
            self._states[goal] = states
            self._bytes += states.nbytes
        self._states |= {goal: self._states.pop(goal) for goal in wanted}
        rows = [self._states[goal].to(device) for goal in goals]
        while self._bytes > KEPT_BYTES:
            self._bytes -= self._states.pop(next(iter(self._states))).nbytes
        return side_by_side(rows)
