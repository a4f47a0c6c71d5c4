"""Chances corrected by how often an event came true behind validation windows.

Beta calibration (Kull, Silva Filho & Flach 2017, eq. 5): logit q = a ln p - b ln(1 - p) + c, which leaves p as it is
with a = b = 1 and c = 0, and keeps the order of chances for a, b > 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.search.beliefs.rejection import Asked, Estimate, Roller, alone, came_true, event_of, last_values
from gssr.sequences.collate import collate
from gssr.sequences.conditions import Condition
from gssr.sequences.record import Record

MOST, TOGETHER, ROLLOUTS = 512, 32, 256  # windows, windows at a time, rollouts of each
FEWEST = 20  # windows behind which it is known whether the event came true
ROUNDS = 100


@dataclass(frozen=True)
class Recalibration:
    """The numbers a, b and c of one event, and of how many ``windows`` it ``came_true``."""

    a: float
    b: float
    c: float
    windows: int
    came_true: int

    @classmethod
    def fit(cls, chances: Tensor, true: Tensor, independent: float) -> Recalibration:
        """The likeliest numbers under a standard normal prior of ln a, ln b and c.

        Args:
            chances: (N), above 0 and below 1. true: (N) bool, whether the event came true.
            independent: as many windows as these N count; windows that overlap tell less.

        Raises ValueError for fewer than 20 windows.
        """
        if len(chances) < FEWEST:
            raise ValueError(
                f"of {len(chances)} validation windows is it known whether the event came true; expected {FEWEST} or "
                "more"
            )
        p, y = chances.double(), true.double()
        weight = min(1.0, independent / len(p))
        numbers = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([numbers], max_iter=ROUNDS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = numbers[0].exp() * p.log() - numbers[1].exp() * torch.log1p(-p) + numbers[2]
            found = weight * F.binary_cross_entropy_with_logits(logits, y, reduction="sum") + numbers.square().sum() / 2
            found.backward()
            return found

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[arg-type]
        a, b, c = numbers.detach().tolist()
        return cls(float(torch.tensor(a).exp()), float(torch.tensor(b).exp()), c, len(p), int(true.sum()))

    def __call__(self, chance: float) -> float:
        if chance in (0.0, 1.0):
            return chance
        p = torch.tensor(chance, dtype=torch.float64)
        return float(torch.sigmoid(self.a * p.log() - self.b * torch.log1p(-p) + self.c))


@dataclass(frozen=True)
class Corrected(Estimate):
    """A chance behind a recalibration; its error is that of the rollouts, not of the recalibration."""

    of: Estimate
    by: Recalibration

    @property
    def hits(self) -> int:  # type: ignore[override]
        return self.of.hits

    @property
    def rollouts(self) -> int:  # type: ignore[override]
        return self.of.rollouts

    @property
    def method(self) -> str:  # type: ignore[override]
        return self.of.method

    @property
    def probability(self) -> float:
        return self.by(self.of.probability)

    @property
    def error(self) -> float:
        p, q = self.of.probability, self.probability
        return 0.0 if p in (0.0, 1.0) else q * (1 - q) * (self.by.a / p + self.by.b / (1 - p)) * self.of.error

    @property
    def interval(self) -> tuple[float, float]:
        low, high = self.of.interval
        return self.by(low), self.by(high)


def recalibrate(
    network: Roller,
    windows: Sequence[Record],
    events: Sequence[Asked],
    seed: int = 0,
    tick: Callable[[int], object] = lambda done: None,
) -> list[Recalibration]:
    """What corrects the chance of each event, from windows (of validation) whose further steps are known.

    Args:
        windows: of one context length; at most 512 of them, evenly spaced, are rolled out.
        tick: called with how many windows are done since the last call.

    Raises ValueError for an event that cannot be asked of the windows' horizon, and fewer than 20 windows behind which
    it is known whether it came true.
    """
    asked = [Condition(e, network.value_names, network.value_units) if isinstance(e, str) else e for e in events]
    count = min(MOST, len(windows))
    picked = [index * len(windows) // count for index in range(count)]
    generator = torch.Generator().manual_seed(seed)
    chances: list[list[float]] = [[] for _ in events]
    true: list[list[bool]] = [[] for _ in events]
    refused: dict[int, ValueError] = {}
    for start in range(0, count, TOGETHER):
        records = [windows[index] for index in picked[start : start + TOGETHER]]
        batch = collate(records)
        drawn = network.rollout(batch, [None] * len(batch), ROLLOUTS, generator, calibrated=False).sample.cpu()
        for row, record in enumerate(records):
            one, steps = alone(batch, row), len(record) - record.goal_start - 1
            path, last = torch.from_numpy(record.value[record.goal_start + 1 :])[None], last_values(one)
            for number, each in enumerate(asked):
                try:
                    event = event_of(each, one)
                except ValueError as error:  # a window may be shorter than others
                    refused[number] = error
                    continue
                if (came := came_true(event, path, last)) is not None:
                    hits = int(event(drawn[:, row, :steps], last).sum())
                    chances[number].append((hits + 0.5) / (ROLLOUTS + 1))
                    true[number].append(came)
        tick(len(records))
    for number, error in refused.items():
        if not true[number]:
            raise error
    horizon = max(1, len(windows[0]) - windows[0].goal_start - 1) if len(windows) else 1
    return [
        Recalibration.fit(torch.tensor(p), torch.tensor(y, dtype=torch.bool), len(windows) / horizon)
        for p, y in zip(chances, true, strict=True)
    ]
