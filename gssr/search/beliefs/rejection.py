"""P(event | history) and p(path | history, event) by plain rollouts, of which those that fit are kept.

Rollouts are the network's own, without a goal and never stretched: a stretched fan is right step by step, but its paths
are none of the network's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf, log, sqrt
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gssr.network.forecaster import Rollouts
from gssr.sequences.conditions import Condition
from gssr.sequences.context import context_length, first_steps, last_observed
from gssr.sequences.events import Event
from gssr.sequences.record import Batch

CHUNK = 1024  # rollouts at a time; another number gives other noise
HITS = 400  # after so many of them the error is a twentieth of the chance
BUDGET = 16_384  # rollouts
Z = 1.96  # of an interval of 95 %
Asked = str | Condition | Event


class Roller(Protocol):
    """What is asked of a network; `gssr.network.GoalNetwork` has all of it."""

    value_names: Sequence[str]
    value_units: Sequence[str]

    @property
    def rollout(self) -> Callable[..., Rollouts]: ...


@dataclass(frozen=True)
class Chance:
    """How many of independent rollouts hit an event; counting stopped at hit number ``wanted`` or at the budget."""

    hits: int
    rollouts: int
    wanted: int = HITS

    @property
    def probability(self) -> float:
        """P(event | history), without bias although the hits decide when counting stops (Girshick et al. 1946)."""
        if self.hits < self.wanted:
            return self.hits / self.rollouts
        return (self.hits - 1) / (self.rollouts - 1) if self.rollouts > 1 else 1.0

    @property
    def log_probability(self) -> float:
        return log(self.probability) if self.probability else -inf

    @property
    def error(self) -> float:
        """Standard error of the probability."""
        return sqrt(self.probability * (1 - self.probability) / self.rollouts)

    @property
    def log_error(self) -> float:
        """Standard error of its logarithm, infinite without a hit."""
        return self.error / self.probability if self.probability else inf

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the probability (Wilson 1927); without a hit up to the one that would show none in 1 of 20 trials."""
        n, share = self.rollouts, self.hits / self.rollouts
        if not self.hits:
            return 0.0, 1 - 0.05 ** (1 / n)
        middle, half = share + Z**2 / (2 * n), Z * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
        return (middle - half) / (1 + Z**2 / n), (middle + half) / (1 + Z**2 / n)

    def __str__(self) -> str:
        if self.hits:
            return f"{self.probability:.2g} ± {self.error:.1g}"
        return f"less than 1 in {int(1 / self.interval[1]):,}"


@dataclass(frozen=True)
class Conditioned:
    """Paths of one sequence that satisfy an event.

    ``rollouts`` (S, 1, H, …) with weights (S) that sum to 1, and the event's chance; S is 0 where none was found.
    """

    rollouts: Rollouts
    weights: Tensor
    chance: Chance

    @property
    def effective_samples(self) -> float:
        """As many equally weighted paths would tell a mean as exactly (Kish 1965)."""
        return float(1 / self.weights.square().sum()) if len(self.weights) else 0.0


@dataclass
class _Count:
    """Of one event: what was counted, and the paths that hit it."""

    event: Event
    wanted: int
    hits: int = 0
    rollouts: int = 0
    kept: list[Rollouts] = field(default_factory=list)

    def add(self, drawn: Rollouts, last: Tensor) -> None:
        if self.hits >= self.wanted:
            return
        hit = torch.as_tensor(self.event(drawn.sample[:, 0], last)).cpu()
        if hit.shape != drawn.sample.shape[:1] or hit.dtype != torch.bool:
            raise ValueError(
                f"an event gave {hit.dtype} of shape {tuple(hit.shape)} for {len(drawn.sample)} paths; expected True "
                "or False for each"
            )
        rows = hit.nonzero()[:, 0][: self.wanted - self.hits]
        self.hits += len(rows)
        # Up to the hit at which counting stops, so that an answer does not depend on what else is asked.
        self.rollouts += int(rows[-1]) + 1 if self.hits >= self.wanted else len(hit)
        self.kept.append(Rollouts(*(part[rows.to(part.device)] for part in (drawn.mean, drawn.sample, drawn.x))))

    @property
    def chance(self) -> Chance:
        return Chance(self.hits, self.rollouts, self.wanted)


def chance(
    network: Roller, batch: Batch, events: Sequence[Asked], hits: int = HITS, budget: int = BUDGET, seed: int = 0
) -> list[list[Chance]]:
    """P(event | history) for each sequence of a batch (outer list) and each event (inner list).

    All events of a sequence are read off the same rollouts; what else is asked, or is in the batch, changes no answer.

    Args:
        events: conditions as text, `Condition`, or any function of paths (S, H, Y) and the last observed values (Y),
            NaN where there is none, that gives True or False (S).
        hits: counting stops at this number of an event's hits.
        budget: rollouts at most.
        seed: of the rollouts.

    Raises ValueError for an event that cannot be read or asked of the horizon, and numbers below 1.
    """
    return [[count.chance for count in counts] for counts in _counts(network, batch, events, hits, budget, seed)]


def condition(
    network: Roller, batch: Batch, where: Asked, samples: int = 64, budget: int = BUDGET, seed: int = 0
) -> list[Conditioned]:
    """Paths given that a condition holds, for each sequence of a batch; arguments as in `chance`, ``samples`` paths."""
    found = []
    for (count,) in _counts(network, batch, [where], samples, budget, seed):
        parts = ([getattr(kept, name) for kept in count.kept] for name in ("mean", "sample", "x"))
        rollouts = Rollouts(*map(torch.cat, parts))
        found.append(Conditioned(rollouts, torch.full((count.hits,), 1 / max(1, count.hits)), count.chance))
    return found


def _counts(
    network: Roller, batch: Batch, events: Sequence[Asked], hits: int, budget: int, seed: int
) -> list[list[_Count]]:
    if hits < 1 or budget < 1:
        raise ValueError(f"{hits} hits and {budget} rollouts at most were asked for; expected 1 or more of each")
    read = [Condition(e, network.value_names, network.value_units) if isinstance(e, str) else e for e in events]
    # All conditions are refused before the first rollout.
    counts = [[_Count(_event(e, _alone(batch, row)), hits) for e in read] for row in range(len(batch))]
    for row, mine in enumerate(counts):
        alone, generator, left = _alone(batch, row), torch.Generator().manual_seed(seed), budget
        unknown = torch.full_like(alone.value[0, 0], torch.nan)
        last = last_observed(alone, context_length(alone), unknown)[0, 0]
        while left > 0 and any(count.hits < hits for count in mine):
            drawn = network.rollout(alone, [None], min(CHUNK, left), generator, calibrated=False)
            left -= len(drawn.sample)
            for count in mine:
                count.add(drawn, last.to(drawn.sample.device))
    return counts


def _alone(batch: Batch, row: int) -> Batch:
    """A sequence without padding."""
    alone = batch.select([row])
    return first_steps(alone, int(alone.step_mask.sum()))


def _event(asked: Condition | Event, alone: Batch) -> Event:
    if not isinstance(asked, Condition):
        return asked
    time: np.ndarray = alone.time[0, context_length(alone) - 1 :].cpu().numpy()
    return asked.over(time)
