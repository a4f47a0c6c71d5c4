"""What speaks reads of a step's values: they, whether they were seen, and how far they moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.sequences.record import Batch

if TYPE_CHECKING:
    from gssr.network.world_model import WorldModel

NUMBERS = 3  # for each of Y values


def numbers_of(world: WorldModel, batch: Batch) -> Tensor:
    """(B, T, 3 Y): the batch's values in the units that the network sees, where they were seen, and their changes.

    Changes are from the step before, in usual ones of the training part (`Scaler.usual_change`): in units of levels, a
    step of a smooth series is so small that a projector hardly learns which way it goes. 0 where either was not seen.
    """
    seen = batch.value_mask
    both = F.pad(seen[:, 1:] & seen[:, :-1], (0, 0, 1, 0))
    moved = F.pad(batch.value.diff(dim=1), (0, 0, 1, 0)) / world.scaler.usual_change
    return torch.cat([world.scaled_values(batch), seen.to(moved), torch.where(both, moved, 0.0)], -1)
