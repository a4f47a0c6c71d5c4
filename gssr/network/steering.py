"""A goal pulls the prior of the belief towards where the goal would hold."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gssr.network.gaussian import Gaussian
from gssr.network.layers import SCALE

SCHEDULES = ("arrival", "decay", "constant")
GATES = ("none", "mean_abs", "per_dimension")
PULLS = ("whole", "learned")


class Goal(NamedTuple):
    """Goals of B sequences in the latent space.

    Shapes: ``x`` (B, D) where the goal would hold; ``active`` (B) False for a sequence without a goal; ``start``, ``step`` (B)
    int: it acts on steps start < t <= step; ``length`` (B) int: T, the steps of the whole sequence.
    """

    x: Tensor
    active: Tensor
    start: Tensor
    step: Tensor
    length: Tensor

    def repeat(self, samples: int) -> "Goal":
        """Sample-major copies for S rollouts of each sequence: (S · B, …)."""
        return Goal(*(field.repeat(samples, *[1] * (field.ndim - 1)) for field in self))


class SteeredPrior(nn.Module):
    """mu~ = mu + clip_norm(gain_t · gate_t · M (x_g - mu), max_norm) while the goal acts; the spread stays.

    The clip is on the correction, so gain 0 is exactly the unsteered prior. One x_g stands for a goal in every context; what it does not
    speak of, such as the time of year, x_g knows only on average. A pull of all of x - M the identity - forgets it, and training
    makes the gain small, the more so the more there is to forget. A learned M pulls along the directions that goals speak of.

    Args:
        schedule: ``arrival``, gain_t = sigmoid(a) · (goal_step - t + 1)^-p with learned a; ``decay``, gain_t = gamma · (1 - t / T);
            or ``constant``, gain_t = gamma.
        gamma: start of ``decay``, all of ``constant``.
        max_norm: largest Euclidean length of a correction; a guard that should seldom bind.
        gate: ``none``, 1; ``mean_abs``, sigmoid(mean|mu|); or ``per_dimension``, sigmoid(|mu|) for each latent dimension.
        pull: ``whole``, M = 1 and p = 1/2; or ``learned``, M (D, D) and p are learned from there on. A p of 1 goes an equal share of
            what is left with every step, a Brownian bridge; where steps hardly depend on each other, only the last should move.
        latent_dim: D, which a learned M needs.
    """

    def __init__(
        self,
        schedule: str = "arrival",
        gamma: float = 0.5,
        max_norm: float = 10.0,
        gate: str = "none",
        pull: str = "whole",
        latent_dim: int = 0,
    ) -> None:
        super().__init__()
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule {schedule!r} is not known; expected one of {SCHEDULES}")
        if gate not in GATES:
            raise ValueError(f"gate {gate!r} is not known; expected one of {GATES}")
        if pull not in PULLS:
            raise ValueError(f"pull {pull!r} is not known; expected one of {PULLS}")
        self.schedule, self.gamma, self.max_norm, self.gate = schedule, gamma, max_norm, gate
        self.strength = 1.0
        learned, arrives = pull == "learned", schedule == "arrival"
        self.arrival = nn.Parameter(torch.zeros(())) if arrives else None
        self.steepness = nn.Parameter(torch.zeros(())) if learned and arrives else None
        self.along = nn.Parameter(torch.zeros(latent_dim, latent_dim)) if learned else None

    @property
    def exponent(self) -> Tensor | None:
        """p of ``arrival`` where it is learned."""
        return None if self.steepness is None else 0.5 * torch.exp(SCALE * self.steepness)

    def gain(self, t: int, goal: Goal) -> Tensor:
        """Share of the way to x_g that step t asks for, (B,)."""
        if self.arrival is not None:
            remaining = ((goal.step - t).clamp(min=0) + 1).float()
            falling = remaining.rsqrt() if self.exponent is None else remaining.pow(-self.exponent)
            return self.strength * torch.sigmoid(self.arrival) * falling
        if self.schedule == "constant":
            return torch.full_like(goal.length, self.strength * self.gamma, dtype=torch.float32)
        return self.strength * self.gamma * (1 - t / goal.length.float())

    def acting(self, t: int, goal: Goal) -> Tensor:
        """The gain (B) of step t, 0 where the goal does not act."""
        return torch.where(self._acts(t, goal), self.gain(t, goal), 0.0)

    @staticmethod
    def _acts(t: int, goal: Goal) -> Tensor:
        return goal.active & (goal.start < t) & (t <= goal.step)

    def forward(self, prior: Gaussian, t: int, goal: Goal | None) -> Gaussian:
        """Steer the prior (B, D) of step t."""
        if goal is None:
            return prior
        away = goal.x - prior.mean
        if self.along is not None:
            away = away + SCALE * nn.functional.linear(away, self.along)
        correction = self._gated(self.gain(t, goal), prior.mean) * away
        mean = prior.mean + clip_norm(correction, self.max_norm)
        return Gaussian(torch.where(self._acts(t, goal)[:, None], mean, prior.mean), prior.std)

    def _gated(self, gain: Tensor, mean: Tensor) -> Tensor:
        """gain_t (B,) times the gate of the prior's mean (B, D), to (B, D) or (B, 1)."""
        if self.gate == "none":
            return gain[:, None]
        if self.gate == "per_dimension":
            return gain[:, None] * torch.sigmoid(mean.abs())
        return (gain * torch.sigmoid(mean.abs().mean(-1)))[:, None]


def clip_norm(vector: Tensor, limit: float) -> Tensor:
    """Shorten vectors (…, D) longer than ``limit``; shorter ones pass unchanged, with a finite gradient at zero."""
    norm = vector.square().sum(-1, keepdim=True).clamp(min=1e-12).sqrt()
    return vector * (limit / norm).clamp(max=1.0)
