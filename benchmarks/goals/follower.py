"""Follows a goal in each of the ways that `benchmarks.goals.followed` compares, and scores the paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.goals.typical import PATHS
from gssr.metrics import goal_hits, weighted_crps, weighted_quantiles
from gssr.network import GoalNetwork
from gssr.network.forecaster import Rollouts
from gssr.search.beliefs import Conditioned, Twist, condition
from gssr.search.beliefs.rejection import last_values
from gssr.sequences.collate import collate
from gssr.sequences.conditions import Condition
from gssr.sequences.record import Batch, Record
from gssr.sequences.vocabulary import Vocabulary
from gssr.understanding.asking import setting
from gssr.understanding.reader import Reader, Understood

ROLLOUTS, NEAREST, SAMPLES = 1024, 32, 64
METHODS = ("no goal", "pull", "nearest", "conditioned", "exact bounds")


@dataclass
class Ensemble:
    """Paths (S, H, Y) with weights (S)."""

    paths: Tensor
    weights: Tensor

    @classmethod
    def equal(cls, paths: Tensor) -> Ensemble:
        return cls(paths, torch.full((len(paths),), 1 / len(paths)))

    @property
    def mean(self) -> Tensor:
        return (self.weights.view(-1, 1, 1) * self.paths).sum(0)

    def stretched(self, factor: Tensor) -> Ensemble:
        """Around the median by factors (H, Y), as fans are."""
        middle = weighted_quantiles(self.paths, self.weights, (0.5,))[0]
        return Ensemble(middle + factor * (self.paths - middle), self.weights)


@dataclass
class Followed:
    """A window under a goal: ensembles by method, what was understood, and the chance of that and of the bounds.

    ``drawn``: of some methods `PATHS` paths of one sequence, equally weighted and not stretched.
    """

    ensembles: dict[str, Ensemble]
    read: Understood
    chances: dict[str, float]
    drawn: dict[str, Rollouts]


class Follower:
    """Follows goals with one network.

    Args:
        words: of the values, which older checkpoints lack.
        budget: rollouts and particles of a condition.
        closeness: what an exact number means, in `Validation.closeness`.
        stretched: whether fans are as wide as validation says.
    """

    def __init__(
        self,
        network: GoalNetwork,
        twist: Twist | None,
        words: Vocabulary,
        budget: int,
        closeness: float = 1.0,
        stretched: bool = True,
    ) -> None:
        self.network, self.twist, self.words, self.budget = network, twist, words, budget
        self.closeness, self.stretched = closeness * network.validation.closeness, stretched
        self.reader = Reader.bundled()

    def read(self, record: Record) -> Understood:
        first = record.goal_start
        known = setting(self.network, record.time[first:], record.value[: first + 1], record.goal_step - first)
        return self.reader.read(record.goal or "", replace(known, words=self.words, tolerance=self.closeness.tolist()))

    def free(self, batch: Batch) -> Tensor:
        """Rollouts (S, H, Y) without a goal."""
        return self._rollouts(batch, None).sample[:, 0]

    def __call__(self, record: Record, methods: Sequence[str] = METHODS) -> Followed:
        batch, read = collate([record]), self.read(record)
        found, chances = {"pull": Ensemble.equal(self._rollouts(batch, record.goal).sample[:, 0])}, {}
        generator = torch.Generator().manual_seed(0)
        drawn = {"pull": self.network.rollout(batch, [record.goal], PATHS, generator, calibrated=False)}
        if {"no goal", "nearest"} & {*methods}:
            rollouts = self._rollouts(batch, None)
            free = rollouts.sample[:, 0]
            drawn["no goal"] = Rollouts(*(part[:PATHS] for part in (rollouts.mean, rollouts.sample, rollouts.x)))
            found["no goal"] = self._fan(Ensemble.equal(free))
            found["nearest"] = self._fan(Ensemble.equal(free[self._miss(free, record).argsort()[:NEAREST]]))
        for name, text in (("conditioned", read.condition), ("exact bounds", self.bounds(record))):
            if name not in methods:
                continue
            given = None if text is None else self._conditioned(batch, text)
            chances[name] = 0.0 if given is None else given.chance.probability
            if given is None or len(given.weights) < 2:
                found[name], drawn[name] = found["pull"], drawn["pull"]
            else:
                found[name] = self._fan(Ensemble(given.rollouts.sample[:, 0], given.weights.float()))
                drawn[name] = given.equally(PATHS)
        return Followed(found, read, chances, drawn)

    def bounds(self, record: Record) -> str:
        """The goal's own bounds as a condition; an exact number with what is close to it."""
        slack = self.closeness.tolist()
        parts = []
        for y, name in enumerate(self.network.value_names):
            low, high = float(record.goal_low[y]), float(record.goal_high[y])
            if np.isfinite(low):
                low, high = (low - slack[y], high + slack[y]) if low == high else (low, high)
                parts.append(f"{name} {low:.6g}..{high:.6g} at {record.goal_step - record.goal_start} steps")
        return " and ".join(parts)

    def _rollouts(self, batch: Batch, goal: str | None) -> Rollouts:
        generator = torch.Generator().manual_seed(0)
        return self.network.rollout(batch, [goal], ROLLOUTS, generator, calibrated=goal is not None)

    def _fan(self, ensemble: Ensemble) -> Ensemble:
        """As wide as validation found that forecasts without a pull must be."""
        if not self.stretched:
            return ensemble
        return ensemble.stretched(self.network.forecaster.calibration.factor[0, : ensemble.paths.shape[1]])

    def _miss(self, paths: Tensor, record: Record) -> Tensor:
        """Distance (S) of the ends of paths from the goal's bounds, in standard deviations."""
        low, high = (torch.tensor(end) for end in (record.goal_low, record.goal_high))
        end = paths[:, record.goal_step - record.goal_start - 1]
        miss = torch.relu(torch.maximum(low - end, end - high)).nan_to_num()
        return (miss / self.network.world.scaler.std).sum(-1)

    def _conditioned(self, batch: Batch, text: str) -> Conditioned | None:
        try:
            (given,) = condition(self.network, batch, text, SAMPLES, self.budget, twist=self.twist)
        except ValueError:  # a time that is no step
            return None
        return given


def share(text: str | None, paths: Tensor, network: GoalNetwork, batch: Batch) -> float:
    """The share of paths (S, H, Y) in which a condition holds; 0 where it cannot be asked."""
    if text is None:
        return 0.0
    time = batch.time[0, int(batch.context[0]) - 1 :].numpy()
    try:
        event = Condition(text, network.value_names, network.value_units).over(time)
        return float(event(paths, last_values(batch)).float().mean())
    except ValueError:
        return 0.0


def scores(
    ensembles: Mapping[str, Ensemble], record: Record, tolerance: Tensor, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """By method: CRPS before the goal's step and at it for each value, coverage and hits."""
    truth = torch.tensor(record.value[record.goal_start + 1 :])
    at = record.goal_step - record.goal_start - 1
    low, high = (torch.tensor(end)[None] for end in (record.goal_low, record.goal_high))
    rows = {}
    for method, ensemble in ensembles.items():
        crps = weighted_crps(ensemble.paths, ensemble.weights, truth)
        least, most = weighted_quantiles(ensemble.paths, ensemble.weights, (0.1, 0.9))
        row = {f"{name}, before": crps[:at, y].mean().item() for y, name in enumerate(names)}
        row |= {f"{name}, at": crps[at, y].item() for y, name in enumerate(names)}
        row["in 80 %"] = ((least <= truth) & (truth <= most)).float().mean().item()
        row["hit"] = goal_hits(ensemble.mean[None, at], low, high, tolerance).float().item()
        rows[method] = row
    return rows
