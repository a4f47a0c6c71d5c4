"""Gates on the goal's pull, and a pull of the same strength at every step."""

import torch
from torch import Tensor

from gssr.network.gaussian import Gaussian
from gssr.network.goal_encoder import LatentGoal
from gssr.network.schedules import GainSchedule
from gssr.network.steering import SteeredPrior


class MeanAbsGate(SteeredPrior):
    """The gain times sigmoid(mean |mu|), half shut where the prior is near the origin."""

    def correction(self, gain: Tensor, prior: Gaussian, h: Tensor, goal: LatentGoal) -> Tensor:
        # Gradients of the mean are summed in the order of these lines; their last bits depend on it.
        away = goal.x - prior.mean
        return (gain * torch.sigmoid(prior.mean.abs().mean(-1)))[:, None] * away


class PerDimensionGate(SteeredPrior):
    """The gain times sigmoid(|mu|) of each latent dimension."""

    def correction(self, gain: Tensor, prior: Gaussian, h: Tensor, goal: LatentGoal) -> Tensor:
        away = goal.x - prior.mean
        return gain[:, None] * torch.sigmoid(prior.mean.abs()) * away


class Constant(GainSchedule):
    """gain_t = gamma.

    Args:
        gamma: Gain of every step.
    """

    def __init__(self, gamma: float = 0.5) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, t: int, goal: LatentGoal, strength: float) -> Tensor:
        return torch.full_like(goal.length, strength * self.gamma, dtype=torch.float32)
