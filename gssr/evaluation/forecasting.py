"""Forecasts with and without goals, and their written form: `train.py predict`, `gssr plan` and Python share them.

from datamodules.tables.history import read_history
from gssr.evaluation.forecasting import forecast
from gssr.network import GoalNetwork

network = GoalNetwork.from_pretrained("exports/mine")
history = read_history("mine.csv", network.value_names, horizon=8, goal="Rise to 40 euros in 8 days")
found = forecast(network, [history])
print(found.with_goal.mean, found.with_goal.text)
found.chart().savefig("fan.png")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.fabric.utilities import move_data_to_device
from matplotlib.figure import Figure

from gssr.evaluation.fan_chart import fan_chart_of
from gssr.evaluation.predictions import prediction_lines, write_predictions
from gssr.evaluation.report import digits_for
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record


class Plans(Protocol):
    """What a forecast needs of a network (`gssr.network.GoalNetwork`)."""

    device: torch.device
    value_names: Sequence[str]
    value_units: Sequence[str]

    def plan(
        self, batch: Batch, goals: Sequence[str | None], samples: int, texts: bool, generator: torch.Generator
    ) -> Any:
        """Rollouts of a batch, their mean (B, H, Y) and quantiles (B, H, Y, Q), and texts (B lists of H)."""


@dataclass
class Forecast:
    """Plans of a batch under its goals (None: it has none) and without goals.

    Lines and charts are those of `gssr.evaluation.predictions`; `digits` after the point are written.
    """

    batch: Batch
    with_goal: Any | None
    without_goal: Any
    value_names: Sequence[str]
    value_units: Sequence[str]
    digits: int = 2

    @classmethod
    def of(cls, network: Any, batch: Batch, with_goal: Any | None, without_goal: Any) -> Forecast:
        """Plans that a network made; the digits show a hundredth of the smallest standard deviation of a value."""
        digits = digits_for(float(network.world.scaler.std.min()), least=2)
        return cls(batch, with_goal, without_goal, network.value_names, network.value_units, digits)

    def lines(self, rollouts: int | None = 16) -> list[str]:
        """A line of JSON for each sequence."""
        return prediction_lines(*self._parts, rollouts=rollouts, digits=self.digits)

    def chart(self, row: int = 0, dimension: int = 0, guides: Sequence[tuple[float, str]] = ()) -> Figure:
        """The fan chart of a sequence and a value dimension."""
        plans, names = (self.with_goal, self.without_goal), (self.value_names, self.value_units)
        return fan_chart_of(self.batch, row, *plans, dimension, *names, guides=guides)

    def write(self, folder: str | Path, **options: Any) -> Path:
        """Write lines and charts to a folder, see `gssr.evaluation.predictions.write_predictions`."""
        with_goal, without_goal, batch, names, units = self._parts
        return write_predictions(with_goal, without_goal, batch, folder, names, units, digits=self.digits, **options)

    @property
    def _parts(self) -> tuple[Any, Any, Batch, Sequence[str], Sequence[str]]:
        return self.with_goal, self.without_goal, self.batch, self.value_names, self.value_units


def forecast(
    network: Plans, records: Sequence[Record], samples: int = 64, texts: bool = True, seed: int = 0
) -> Forecast:
    """Imagine how records go on, under their goals and without.

    Args:
        network: A trained network.
        records: Sequences with one context length C; steps after it are not read.
        samples: Rollouts S.
        texts: Write a text for each step.
        seed: Of the rollouts; with and without the goal they have the same noise.
    """
    batch = move_data_to_device(collate(list(records)), network.device)

    def plan(goals: list[str | None]) -> Any:
        return network.plan(batch, goals, samples, texts=texts, generator=torch.Generator().manual_seed(seed))

    with_goal = plan(batch.goal) if any(goal is not None for goal in batch.goal) else None
    return Forecast.of(network, batch, with_goal, plan([None] * len(batch)))
