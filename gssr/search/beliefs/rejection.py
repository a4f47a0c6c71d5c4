"""Plain rollouts, of which those that satisfy an event are counted and kept.

Rollouts are the network's own, without a goal and never stretched: a stretched fan is right step by step, but its paths
are none of the network's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf, log, sqrt
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from gssr.network.forecaster import Rollouts
from gssr.sequences.conditions import Condition, ConditionEvent
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


class Estimate(ABC):
    """A chance, with how well it is known.

    ``rollouts`` (or particles) of which ``hits`` satisfied the event; ``method`` says which of the two.
    """

    hits: int
    rollouts: int
    method: ClassVar[str]

    @property
    @abstractmethod
    def probability(self) -> float:
        """P(event | history)."""

    @property
    @abstractmethod
    def error(self) -> float:
        """Standard error of the probability."""

    @property
    @abstractmethod
    def interval(self) -> tuple[float, float]:
        """95 % of the probability."""

    @property
    def log_probability(self) -> float:
        return log(self.probability) if self.probability else -inf

    @property
    def log_error(self) -> float:
        """Standard error of the logarithm, infinite without a hit."""
        return self.error / self.probability if self.probability else inf

    def plain(self) -> dict[str, Any]:
        """For JSON: None in the place of what is infinite."""
        names = ("probability", "error", "interval", "log_probability", "log_error", "hits", "rollouts", "method")
        found = {name: getattr(self, name) for name in names}
        return {name: None if value in (inf, -inf) else value for name, value in found.items()}

    def __str__(self) -> str:
        if self.probability:
            return f"{self.probability:.2g} ± {self.error:.1g}"
        return f"less than 1 in {int(1 / self.interval[1]):,}"


@dataclass(frozen=True)
class Chance(Estimate):
    """How many of independent rollouts hit an event; counting stopped at hit number ``wanted`` or at the budget."""

    hits: int
    rollouts: int
    wanted: int = HITS
    method = "rollouts"

    @property
    def probability(self) -> float:
        """P(event | history), without bias although the hits decide when counting stops (Girshick et al. 1946)."""
        if self.hits < self.wanted:
            return self.hits / self.rollouts
        return (self.hits - 1) / (self.rollouts - 1) if self.rollouts > 1 else 1.0

    @property
    def error(self) -> float:
        """Standard error of the probability."""
        return sqrt(self.probability * (1 - self.probability) / self.rollouts)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the probability (Wilson 1927); without a hit up to the one that would show none in 1 of 20 trials."""
        n, share = self.rollouts, self.hits / self.rollouts
        if not self.hits:
            return 0.0, 1 - 0.05 ** (1 / n)
        middle, half = share + Z**2 / (2 * n), Z * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
        return (middle - half) / (1 + Z**2 / n), (middle + half) / (1 + Z**2 / n)


@dataclass
class Count:
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


def counts(
    network: Roller,
    batch: Batch,
    events: Sequence[Asked],
    hits: int,
    budget: int,
    seed: int,
    goes_on: Callable[[Count], bool] = lambda count: True,
) -> list[list[Count]]:
    """For each sequence of a batch and each event the rollouts that hit it.

    All events of a sequence are read off the same rollouts; what else is asked, or is in the batch, changes no answer.

    Args:
        goes_on: asked after the first `CHUNK` rollouts whether more are worth it.

    Raises ValueError for an event that cannot be read or asked of the horizon, and numbers below 1.
    """
    if hits < 1 or budget < 1:
        raise ValueError(f"{hits} hits and {budget} rollouts at most were asked for; expected 1 or more of each")
    read = [Condition(e, network.value_names, network.value_units) if isinstance(e, str) else e for e in events]
    # All conditions are refused before the first rollout.
    found = [[Count(event_of(e, alone(batch, row)), hits) for e in read] for row in range(len(batch))]
    for row, mine in enumerate(found):
        one, generator, left, open_ = alone(batch, row), torch.Generator().manual_seed(seed), budget, mine
        last = last_values(one)
        while left > 0 and open_:
            drawn = network.rollout(one, [None], min(CHUNK, left), generator, calibrated=False)
            for count in open_:
                count.add(drawn, last.to(drawn.sample.device))
            open_ = [count for count in open_ if count.hits < hits and (left < budget or goes_on(count))]
            left -= len(drawn.sample)
    return found


def last_values(one: Batch) -> Tensor:
    """The last observed values (Y) of a sequence, NaN where there is none."""
    unknown = torch.full_like(one.value[0, 0], torch.nan)
    return last_observed(one, context_length(one), unknown)[0, 0]


def alone(batch: Batch, row: int) -> Batch:
    """A sequence without padding."""
    one = batch.select([row])
    return first_steps(one, int(one.step_mask.sum()))


def event_of(asked: Condition | Event, one: Batch) -> Event:
    """What is asked, at the steps ahead of a sequence without padding.

    Raises ValueError for a time at which there is no step.
    """
    if not isinstance(asked, Condition):
        return asked
    time: np.ndarray = one.time[0, context_length(one) - 1 :].cpu().numpy()
    return asked.over(time)


def came_true(event: Event, path: Tensor, last: Tensor) -> bool | None:
    """Whether an event holds for a path (1, H, Y) that may lack values (NaN); None where that depends on them."""
    missing = path.isnan()
    if not missing.any():
        return bool(event(path, last)[0])
    if not isinstance(event, ConditionEvent):
        return None
    try:
        low, high = (float(event.margin(path, last, torch.ones_like(last), unknown)) for unknown in (-inf, inf))
    except ValueError:  # the change of a value that was never observed
        return None
    if low == high:  # no missing value counts
        return bool(event(path.masked_fill(missing, 0.0), last)[0])
    return True if low > 0 else False if high < 0 else None
