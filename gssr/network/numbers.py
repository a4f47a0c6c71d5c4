"""What speaks reads of a step's values: they, waves of them, whether they were seen, and how far they moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.sequences.record import Batch

if TYPE_CHECKING:
    from gssr.network.world_model import WorldModel

PERIODS = (8.0, 4.0, 2.0, 1.0, 0.5)  # of the waves, in the units that the network sees
NUMBERS = 3 + 2 * len(PERIODS)  # for each of Y values


def numbers_of(world: WorldModel, batch: Batch) -> Tensor:
    """(B, T, 13 Y): the batch's values in the units that the network sees, where they were seen, changes, and waves.

    Changes are from the step before, in usual ones of the training part (`Scaler.usual_change`): in units of levels, a
    step of a smooth series is so small that a projector hardly learns which way it goes. 0 where either was not seen.
    Waves are the sine and the cosine of values (Gorishniy et al. 2022, periodic embeddings): with them a projector
    learns in few texts where a named class begins; with levels alone it goes over to the next name too slowly.
    """
    seen = batch.value_mask
    both = F.pad(seen[:, 1:] & seen[:, :-1], (0, 0, 1, 0))
    moved = F.pad(batch.value.diff(dim=1), (0, 0, 1, 0)) / world.scaler.usual_change
    scaled = world.scaled_values(batch)
    phases = [2 * torch.pi / period * scaled for period in PERIODS]
    waves = [torch.where(seen, wave, 0.0) for phase in phases for wave in (phase.sin(), phase.cos())]
    return torch.cat([scaled, seen.to(moved), torch.where(both, moved, 0.0), *waves], -1)
