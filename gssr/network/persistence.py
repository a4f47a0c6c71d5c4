"""The forecast that any other must beat: nothing changes."""

import torch
from torch import Tensor

from gssr.sequences.record import Batch


def last_observed(batch: Batch, context: int, default: Tensor) -> Tensor:
    """The last value observed in the first ``context`` steps, (B, 1, Y); ``default`` (Y) where none was observed."""
    mask = batch.value_mask[:, :context]
    steps = torch.arange(1, context + 1, device=mask.device)[:, None]
    newest = (mask * steps).amax(1, keepdim=True)  # 0: never observed
    value = batch.value[:, :context].gather(1, (newest - 1).clamp(min=0))
    return torch.where(newest > 0, value, default.to(value))
