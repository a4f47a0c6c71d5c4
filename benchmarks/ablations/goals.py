"""Goals that belong to other sequences: what is left when a goal does not describe its sequence."""

import torch

from gssr.network import GoalNetwork
from gssr.sequences.record import Batch


class ShuffledGoals(GoalNetwork):
    """A goal network that trains every sequence with the goal of its neighbour in the batch."""

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if not self.trainer.training:
            return batch
        other = batch.select(torch.arange(len(batch)).roll(1))
        return batch.with_goals(other.goal, other.goal_low, other.goal_high)
