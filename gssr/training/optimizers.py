"""The optimizer of language models: Muon (Jordan et al. 2024) for matrices, AdamW for everything else.

Only Muon decays weights, so ``dt_bias``, ``A_log`` and ``D``, which decide how long a model remembers, do not decay.

After warm-up the rate stays constant. It falls linearly to zero over the last share of the steps, so that the length
of a run (``trainer.max_steps`` or ``max_epochs``) needs no other option beside it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gssr.domains import Count, Fraction, NonNegative, Positive, checked
from gssr.training.muon import Muon


@checked
@dataclass(frozen=True)
class MuonAdamWConfig:
    """Options of the optimizer and its schedule.

    Args:
        lr: peak learning rate of both; Muon's update is scaled to AdamW's typical size.
        weight_decay: decay of the matrices.
        warmup_steps: steps of linear warm-up.
        decay_share: last share of the steps, over which the rate falls to zero.
    """

    lr: Positive = 4e-3
    weight_decay: NonNegative = 0.1
    warmup_steps: Count = 100
    decay_share: Fraction = 0.4

    def build(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> "MuonAdamW":
        """An optimizer of named parameters: Muon gets the matrices, except for embeddings and the output head."""
        trained = [(name, p) for name, p in parameters if p.requires_grad]
        is_matrix = [p.ndim == 2 and "embed" not in name and "lm_head" not in name for name, p in trained]
        matrices = [p for (_, p), matrix in zip(trained, is_matrix, strict=True) if matrix]
        others = [p for (_, p), matrix in zip(trained, is_matrix, strict=True) if not matrix]
        return MuonAdamW(matrices, others, self.lr, self.weight_decay)

    def rate(self, step: int, steps: float) -> float:
        """The learning rate at one of ``steps`` steps, as a share of ``lr``."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        return warm * min(1.0, max(0.0, steps - step) / max(1.0, self.decay_share * steps))


class MuonAdamW(torch.optim.Optimizer):
    """Muon and AdamW as one optimizer, with one schedule and one state in a checkpoint."""

    def __init__(
        self, matrices: list[nn.Parameter], others: list[nn.Parameter], lr: float, weight_decay: float
    ) -> None:
        self.muon = Muon(matrices, lr=lr, weight_decay=weight_decay)
        self.adamw = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
        self.defaults: dict[str, Any] = {}
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Show the groups of both optimizers, so that a scheduler changes both; the states are copies for display."""
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]
        self.state.clear()
        self.state.update({**self.muon.state, **self.adamw.state})

    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        self.muon.step()
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self._share()
