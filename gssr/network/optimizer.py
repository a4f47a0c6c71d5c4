"""The optimizer of a goal network and its learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gssr.domains import CountOrNone, NonNegative, checked


@checked
@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay to a tenth of the rate.

    Args:
        lr: Peak learning rate.
        weight_decay: Weight decay of matrices; vectors and scalars have none.
        warmup_steps: Steps of linear warm-up.
    """

    lr: NonNegative = 3e-3
    weight_decay: NonNegative = 0.01
    warmup_steps: CountOrNone = 100

    def build(self, parameters: Iterable[nn.Parameter], total_steps: int) -> dict[str, Any]:
        """What Lightning's ``configure_optimizers`` returns, for a training of ``total_steps`` optimizer steps."""
        parameters = list(parameters)
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr)

        def rate(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
            return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total_steps))))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
