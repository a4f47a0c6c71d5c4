"""P(event | history) and p(path | history, event): by plain rollouts while these hit it, else by particles.

Where at least 32 of 1,024 plain rollouts hit an event, counting on costs no more than particles do. Where fewer do, and
there is a twist, islands of particles (`gssr.search.beliefs.smc`) begin with 1,024 particles and are doubled until the
chance and the paths are known well enough, or the budget is spent. An estimate that looks exact by luck stops early,
which is a bias, small beside the error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, sqrt
from typing import Protocol

import torch
from torch import Tensor

from gssr.network.forecaster import Forecaster, Rollouts
from gssr.network.world_model import WorldModel
from gssr.search.beliefs import smc
from gssr.search.beliefs.rejection import (
    BUDGET,
    HITS,
    Asked,
    Count,
    Estimate,
    Roller,
    alone,
    counts,
    last_values,
)
from gssr.search.beliefs.rolling import Dynamics
from gssr.search.beliefs.twist import Twist
from gssr.sequences.conditions import ConditionEvent
from gssr.sequences.record import Batch

ENOUGH = 32  # hits of the first rollouts, from which on counting is as good
FIRST = 16  # islands; the spread of fewer is often much too small
FEWEST = 4  # islands, whatever the budget
MOST = 64  # islands at a time
# Student's t of 95 % for 1 … 30 degrees of freedom less one, and beyond.
_T = {3: 3.18, 7: 2.36, 15: 2.13, 31: 2.04}


class Searched(Roller, Protocol):
    """What particles ask of a network, too."""

    world: WorldModel
    forecaster: Forecaster


Twister = Twist | Callable[[], Twist | None] | None


@dataclass(frozen=True)
class Weighed(Estimate):
    """A chance from the estimates of independent islands, each without bias, of together ``rollouts`` particles."""

    chances: tuple[float, ...]
    rollouts: int
    hits: int
    method = "particles"

    @property
    def probability(self) -> float:
        return sum(self.chances) / len(self.chances)

    @property
    def error(self) -> float:
        count, mean = len(self.chances), self.probability
        return sqrt(sum((each - mean) ** 2 for each in self.chances) / (count - 1) / count)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % by Student's t of the logarithm, which is nearer to normal."""
        if not self.probability:
            return 0.0, 1.0
        t = next((t for most, t in _T.items() if len(self.chances) - 1 <= most), 1.96)
        factor = exp(min(700.0, t * self.log_error))
        return self.probability / factor, min(1.0, self.probability * factor)


@dataclass(frozen=True)
class Conditioned:
    """Paths of one sequence that satisfy an event.

    ``rollouts`` (S, 1, H, …) with weights (S) that sum to 1, the event's chance, and ``origins`` (S), equal where paths
    have their beginning in common; S is 0 where none was found.
    """

    rollouts: Rollouts
    weights: Tensor
    chance: Estimate
    origins: Tensor

    @property
    def effective_samples(self) -> float:
        """As many equally weighted paths would tell a mean as exactly (Kish 1965)."""
        return float(1 / self.weights.square().sum()) if len(self.weights) else 0.0

    @property
    def ancestors(self) -> int:
        """Beginnings that the paths have."""
        return len(self.origins.unique())

    def equally(self, samples: int, seed: int = 0) -> Rollouts:
        """At most so many of the paths, drawn by their weights (systematic resampling), to be weighted equally."""
        if self.weights.numel() <= samples and torch.allclose(self.weights, self.weights.mean()):
            return self.rollouts
        offset = torch.rand(1, generator=torch.Generator().manual_seed(seed)).to(self.weights)
        places = (torch.arange(samples).to(self.weights) + offset) / samples
        rows = torch.searchsorted(self.weights.cumsum(0), places).clamp(max=len(self.weights) - 1)
        return Rollouts(*(part[rows] for part in (self.rollouts.mean, self.rollouts.sample, self.rollouts.x)))


def chance(
    network: Roller,
    batch: Batch,
    events: Sequence[Asked],
    hits: int = HITS,
    budget: int = BUDGET,
    seed: int = 0,
    twist: Twister = None,
) -> list[list[Estimate]]:
    """P(event | history) for each sequence of a batch (outer list) and each event (inner list).

    What else is asked, or is in the batch, changes no answer.

    Args:
        events: conditions as text, `Condition`, or any function of paths (S, H, Y) and the last observed values (Y),
            NaN where there is none, that gives True or False (S).
        hits: counting stops at this number of an event's hits, and particles at the same error.
        budget: rollouts and particles at most.
        seed: of the rollouts.
        twist: of the network, or what gives it when an event is rare; without one all events are counted.

    Raises ValueError for an event that cannot be read or asked of the horizon, numbers below 1, and another network's
    twist.
    """

    def suffices(found: Conditioned) -> bool:
        return found.chance.log_error <= hits**-0.5

    search = _Search(network, twist, budget, seed)
    found = search.counts(batch, events, hits)
    return [[search.known(batch, row, count, suffices).chance for count in mine] for row, mine in enumerate(found)]


def condition(
    network: Roller,
    batch: Batch,
    where: Asked,
    samples: int = 64,
    budget: int = BUDGET,
    seed: int = 0,
    twist: Twister = None,
) -> list[Conditioned]:
    """Paths given that a condition holds, for each sequence of a batch.

    Args:
        samples: paths that are wanted; of weighted ones, as many effective samples of half as many ancestors.
        where, budget, seed, twist: as in `chance`.
    """
    search = _Search(network, twist, budget, seed)
    found = search.counts(batch, [where], samples)
    return [
        search.known(batch, row, count, lambda c: c.effective_samples >= samples and 2 * c.ancestors >= samples)
        for row, (count,) in enumerate(found)
    ]


class _Search:
    """One call of the ladder."""

    def __init__(self, network: Roller, twist: Twister, budget: int, seed: int) -> None:
        self.network, self.budget, self.seed = network, budget, seed
        if isinstance(twist, Twist):
            twist.require(network)  # type: ignore[arg-type]
        self._twist: Twist | None = None
        self._twister: Callable[[], Twist | None] | None = (lambda: twist) if isinstance(twist, Twist) else twist

    def counts(self, batch: Batch, events: Sequence[Asked], hits: int) -> list[list[Count]]:
        def goes_on(count: Count) -> bool:
            return not self._is_rare(count)

        return counts(self.network, batch, events, hits, self.budget, self.seed, goes_on)

    def known(self, batch: Batch, row: int, count: Count, suffices: Callable[[Conditioned], bool]) -> Conditioned:
        """What was counted, or what particles find instead."""
        if count.rollouts < self.budget and count.hits < count.wanted and self._is_rare(count):
            found = self._particles(alone(batch, row), count, suffices)
            if found.chance.probability:
                return found
            # None arrived: at least the bound is that of all rollouts that may be made.
            ((count,),) = counts(self.network, alone(batch, row), [count.event], count.wanted, self.budget, self.seed)
        return _counted(count)

    def _is_rare(self, count: Count) -> bool:
        return (
            count.hits < min(ENOUGH, count.wanted)
            and isinstance(count.event, ConditionEvent)
            and self.twist is not None
        )

    @property
    def twist(self) -> Twist | None:
        if self._twister is not None:
            self._twist, self._twister = self._twister(), None
            if self._twist is not None:
                self._twist.require(self.network)  # type: ignore[arg-type]
        return self._twist

    def _particles(self, one: Batch, count: Count, suffices: Callable[[Conditioned], bool]) -> Conditioned:
        network: Searched = self.network  # type: ignore[assignment]
        assert isinstance(count.event, ConditionEvent) and self.twist is not None
        dynamics = Dynamics(network.forecaster, one.to(network.world.device))
        asked = smc.Asked(count.event, last_values(dynamics.batch), network.world.scaler.std)
        generator = torch.Generator().manual_seed(self.seed)
        # Other noise than that of the rollouts, whose hits decided that particles are drawn.
        generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        drawn: list[smc.Particles] = []
        left = max(FEWEST, (self.budget - count.rollouts) // smc.ISLAND)
        islands = min(FIRST, left)
        while True:
            drawn.append(smc.draw(dynamics, self.twist, asked, islands, generator))
            left -= islands
            found = _weighed(drawn)
            if left <= 0 or suffices(found) or (len(drawn) == 1 and not found.chance.probability):
                return found
            islands = min(sum(len(each.chances) for each in drawn), MOST, left)


def _counted(count: Count) -> Conditioned:
    parts = ([getattr(kept, name) for kept in count.kept] for name in ("mean", "sample", "x"))
    weights = torch.full((count.hits,), 1 / max(1, count.hits))
    return Conditioned(Rollouts(*map(torch.cat, parts)), weights, count.chance, torch.arange(count.hits))


def _weighed(drawn: Sequence[smc.Particles]) -> Conditioned:
    begin, origins = 0, []
    for each in drawn:
        origins.append(each.origins + begin)
        begin += len(each.paths)
    log_weights = torch.cat([each.log_weights for each in drawn])
    kept = log_weights.isfinite()
    chances = tuple(torch.cat([each.chances for each in drawn]).tolist())
    paths, x = (torch.cat([getattr(each, name) for each in drawn])[kept, None] for name in ("paths", "x"))
    weights = log_weights[kept].softmax(0).to(paths)
    # A condition depends on the noise of values as well: there is no path without it.
    return Conditioned(
        Rollouts(paths, paths, x), weights, Weighed(chances, begin, int(kept.sum())), torch.cat(origins)[kept]
    )
