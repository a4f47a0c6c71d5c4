"""From the frozen model's token states of a goal sentence to x_g, where in the latent space the goal holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gssr.backbone import FrozenBackbone
from gssr.network.layers import mlp

KEPT_GOALS = 10_000


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
    """Token states of goal sentences after one layer of the frozen model, kept because sentences come again."""

    def __init__(self, backbone: FrozenBackbone, layer: int) -> None:
        self.backbone, self.layer = backbone, layer
        self._states: dict[str, Tensor] = {}

    def __call__(self, goals: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States (N, L, E) and mask (N, L) of N goals; one row without tokens for no goals."""
        if len(self._states) > KEPT_GOALS:
            self._states.clear()
        new = sorted(set(goals) - self._states.keys())
        if new:
            states, mask = self.backbone.token_states(new, self.layer)
            self._states |= {goal: row[m] for goal, row, m in zip(new, states, mask, strict=True)}
        rows = [self._states[goal] for goal in goals]
        device = self.backbone.device
        if not rows:
            empty = torch.zeros(1, 1, self.backbone.hidden_size, device=device)
            return empty, torch.zeros(1, 1, dtype=torch.bool, device=device)
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=padded.device)
        return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
