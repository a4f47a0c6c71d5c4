"""A goal pulls the prior of the belief towards where the goal would hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from gssr.domains import NonNegative, Positive, checked
from gssr.network.config import fixed
from gssr.network.gaussian import Gaussian
from gssr.network.goal_encoder import LatentGoal
from gssr.network.layers import SCALE
from gssr.network.schedules import Arrival, GainSchedule


class Pulled(NamedTuple):
    """A prior (B, D) that was moved, and the gain (B,): the share of the way to its goal, 0 where nothing acts."""

    prior: Gaussian
    gain: Tensor


class Pull(Protocol):
    """Moves the prior of a step. ``SteeredPrior.towards`` a goal is one; a planner brings others."""

    def __call__(self, prior: Gaussian, h: Tensor, t: int) -> Pulled:
        """Move the prior (B, D) of step t, whose deterministic state is h (B, G)."""


class SteeredPrior(nn.Module):
    """mu~ = mu + clip_norm(gain_t · (x_g - mu), max_norm) while the goal acts; the spread stays.

    The clip is on the correction, so a gain of 0 gives exactly the unsteered prior. A subclass changes ``correction``.

    Args:
        schedule: gain_t.
        latent_dim: D.
        max_norm: largest Euclidean length of a correction.
    """

    def __init__(self, schedule: GainSchedule, latent_dim: int, max_norm: float) -> None:
        super().__init__()
        self.schedule, self.latent_dim, self.max_norm = schedule, latent_dim, max_norm

    def correction(self, gain: Tensor, prior: Gaussian, h: Tensor, goal: LatentGoal) -> Tensor:
        """How far the mean moves, (B, D), before the clip: from gain (B,), prior (B, D) and h (B, G)."""
        return gain[:, None] * (goal.x - prior.mean)

    def forward(self, prior: Gaussian, h: Tensor, t: int, goal: LatentGoal, strength: float = 1.0) -> Pulled:
        """Steer the prior (B, D) of step t; every gain is multiplied with ``strength``, 1 in training."""
        gain, acts = self.schedule(t, goal, strength), goal.acts(t)
        mean = prior.mean + clip_norm(self.correction(gain, prior, h, goal), self.max_norm)
        steered = Gaussian(torch.where(acts[:, None], mean, prior.mean), prior.std)
        # A gain of its own for each use: one for both would round the gradient of the schedule in another order.
        return Pulled(steered, torch.where(acts, self.schedule(t, goal, strength), 0.0))

    def towards(self, goal: LatentGoal | None, strength: float = 1.0) -> Pull | None:
        """The pull towards one goal, None without a goal."""
        if goal is None:
            return None

        def pull(prior: Gaussian, h: Tensor, t: int) -> Pulled:
            return self(prior, h, t, goal, strength)

        return pull


class LearnedSteeredPrior(SteeredPrior):
    """The correction is gain_t · M (x_g - mu) with a learned matrix M (D, D), the identity at first.

    One x_g stands for a goal in every context. It knows the season and the phase only on average, and the plain pull
    erases them, so training keeps its gain small. M pulls along the directions that goals describe.
    """

    def __init__(self, schedule: GainSchedule, latent_dim: int, max_norm: float) -> None:
        super().__init__(schedule, latent_dim, max_norm)
        self.along = nn.Parameter(torch.zeros(latent_dim, latent_dim))

    def correction(self, gain: Tensor, prior: Gaussian, h: Tensor, goal: LatentGoal) -> Tensor:
        away = goal.x - prior.mean
        return gain[:, None] * (away + SCALE * nn.functional.linear(away, self.along))


@checked
@dataclass(frozen=True)
class SteeringConfig:
    """How a goal steers the prior.

    Args:
        prior: Class of the steered prior: SteeredPrior, LearnedSteeredPrior or a subclass of your own.
        schedule: Class of the gain over time: Arrival, Decay or a subclass of GainSchedule of your own.
        max_norm: Largest norm of the goal's correction; a guard that should seldom bind.
        strength: What every gain is multiplied with in forecasts and plans; training has 1.
    """

    prior: Callable[[GainSchedule, int, float], SteeredPrior] = fixed(SteeredPrior)
    schedule: Callable[[], GainSchedule] = fixed(Arrival)
    max_norm: Positive = 10.0
    strength: NonNegative = 1.25

    def build(self, latent_dim: int) -> SteeredPrior:
        """The steered prior of beliefs with D = ``latent_dim``."""
        return self.prior(self.schedule(), latent_dim, self.max_norm)


def clip_norm(vector: Tensor, limit: float) -> Tensor:
    """Shorten vectors (…, D) longer than ``limit``; shorter ones pass unchanged, with a finite gradient at zero."""
    norm = vector.square().sum(-1, keepdim=True).clamp(min=1e-12).sqrt()
    return vector * (limit / norm).clamp(max=1.0)
