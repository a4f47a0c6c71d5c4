"""How strongly a goal pulls over time."""

import torch
from torch import Tensor, nn

from gssr.domains import NonNegative, checked
from gssr.network.goal_encoder import LatentGoal
from gssr.network.layers import SCALE


class GainSchedule(nn.Module):
    """gain_t, the share of the way to the goal that step t asks for."""

    def forward(self, t: int, goal: LatentGoal, strength: float) -> Tensor:
        """The gain (B,) of step t, times ``strength``."""
        raise NotImplementedError

    def figures(self) -> dict[str, Tensor]:
        """What is learned of the schedule, by name, for the log."""
        return {}


@checked
class Arrival(GainSchedule):
    """gain_t = sigmoid(a) · (goal_step - t + 1)^-p with learned a: the pull grows until the goal's step.

    A p of 1 goes an equal share of the remaining way with every step, a Brownian bridge. Where steps hardly depend on
    each other, only the last one should move.

    Args:
        learned_exponent: Learn p from 1/2 on; otherwise p stays 1/2.
    """

    steepness: nn.Parameter | None

    def __init__(self, learned_exponent: bool = False) -> None:
        super().__init__()
        self.arrival = nn.Parameter(torch.zeros(()))
        self.steepness = nn.Parameter(torch.zeros(())) if learned_exponent else None

    @property
    def exponent(self) -> Tensor | None:
        """p, where it is learned."""
        return None if self.steepness is None else 0.5 * torch.exp(SCALE * self.steepness)

    def forward(self, t: int, goal: LatentGoal, strength: float) -> Tensor:
        remaining = ((goal.step - t).clamp(min=0) + 1).float()
        falling = remaining.rsqrt() if self.exponent is None else remaining.pow(-self.exponent)
        return strength * torch.sigmoid(self.arrival) * falling

    def figures(self) -> dict[str, Tensor]:
        learned = {} if self.exponent is None else {"gain_exponent": self.exponent}
        return {"gain_at_arrival": torch.sigmoid(self.arrival)} | learned


@checked
class Decay(GainSchedule):
    """gain_t = gamma · (1 - t / T), T the steps of the sequence: the schedule of the literature, strongest at first.

    Args:
        gamma: Gain of step 0.
    """

    def __init__(self, gamma: NonNegative = 0.5) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, t: int, goal: LatentGoal, strength: float) -> Tensor:
        return strength * self.gamma * (1 - t / goal.length.float())
