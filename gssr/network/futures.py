"""Which of many imagined futures are told in words: few that stand for all.

Shapes: K futures that are told; S, B, H as in the legend.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Future:
    """A rollout of each sequence that is told in words.

    ``rollout`` (B,): its number. ``share`` (B,): share of all rollouts that it is the nearest to among those told.
    ``values`` (B, H, Y): its values without noise, in data units, as it is told. ``text``: for each sequence H texts.
    """

    rollout: Tensor
    share: Tensor
    values: Tensor
    text: list[list[str]]


def representatives(points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rollouts that stand for all: the nearest to the mean path, then, one after the other, those that bring the others
    closest to one that is told.

    A mean of beliefs need not be a belief, so none is made up.

    Args:
        points: (S, B, N), what rollouts are compared by.
        count: K, at most S.

    Returns:
        Numbers of the rollouts (K, B), and shares (K, B) of the rollouts that are nearest to each.
    """
    chosen = [(points - points.mean(0)).square().sum(-1).argmin(0)]
    rows = torch.arange(points.shape[1], device=points.device)
    if count > 1:
        apart = torch.cdist(points.movedim(1, 0), points.movedim(1, 0))  # (B, S, S)
        while len(chosen) < count:
            nearest = torch.stack([apart[rows, i] for i in chosen]).amin(0)  # (B, S)
            cost = torch.minimum(apart, nearest[:, None]).sum(-1)
            for told in chosen:
                cost[rows, told] = torch.inf
            chosen.append(cost.argmin(-1))
    each = torch.stack([(points - points[i, rows]).square().sum(-1) for i in chosen])  # (K, S, B)
    share = torch.stack([(each.argmin(0) == k).float().mean(0) for k in range(count)])
    return torch.stack(chosen), share
