"""What the tables of the report on storms score: windows, forecasts of them, and rollouts under goals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gssr.evaluation.imagining import Ensemble, imagine, match_donors, seed_of, window_key
from gssr.evaluation.network import SpeakingNetwork
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record

HOURS = (24, 48)


@dataclass
class Steered:
    """Rollouts under goals: the windows with these goals, and their rows in the evaluation's batch."""

    batch: Batch
    rows: list[int]
    paths: Ensemble


@dataclass
class Evaluation:
    """Windows of the split, forecasts of them, and the options: the input of every table.

    `batch`: the union of all windows that any table scores; `index`: rows of windows in it; `plain`: rows scored
    without a goal. `unsteered`, `persistent` (B, H, Y) and `linear` (B, H, Y) are forecasts of `batch`. `name` and
    `unit` are those of `dimension`; `threshold`: a large one-step change of it.
    """

    network: SpeakingNetwork
    batch: Batch
    index: dict[tuple[str, float], int]
    plain: list[int]
    unsteered: Ensemble
    persistent: Tensor
    linear: Tensor
    dimension: int
    name: str
    unit: str
    threshold: float
    samples: int
    seed: int
    tolerance: float
    batch_size: int

    @property
    def hours(self) -> dict[int, int]:
        """Horizon step by hours ahead, for the hours that a table shows; the horizon's end always."""
        start = int(self.batch.goal_start[0])
        ahead = (self.batch.time[0, start + 1 :] - self.batch.time[0, start]).round().int().tolist()
        return {hour: ahead.index(hour) for hour in HOURS if hour in ahead} | {ahead[-1]: len(ahead) - 1}

    def steer(self, kind: str, records: Sequence[Record], donors: Sequence[Record] | None) -> Steered | None:
        """Rollouts under the windows' own goals, or goals borrowed from `donors`; None where no window is left."""
        if not records:
            return None
        batch, rows = collate(records), [self.index[window_key(record)] for record in records]
        if donors is not None:
            lenders = collate(donors)
            kept, chosen = match_donors(batch, lenders, self.dimension, self.tolerance, seed_of(self.seed, kind))
            if not kept:
                return None
            lent = lenders.select(chosen)
            batch = batch.select(kept).with_goals(lent.goal, lent.goal_low, lent.goal_high)
            rows = [rows[i] for i in kept]
        seed = seed_of(self.seed, kind, "came true" if donors is None else "borrowed")
        return Steered(batch, rows, imagine(self.network, batch, batch.goal, self.samples, seed, self.batch_size))
