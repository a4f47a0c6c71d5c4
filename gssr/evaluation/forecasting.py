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
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from gssr.evaluation.network import SpeakingNetwork
from gssr.evaluation.predictions import Forecast
from gssr.sequences.collate import collate
from gssr.sequences.record import Record


def forecast(
    network: SpeakingNetwork,
    records: Sequence[Record],
    samples: int = 64,
    texts: bool = True,
    seed: int = 0,
    recent: Tensor | None = None,
) -> Forecast:
    """Imagine how records go on, under their goals and without.

    Args:
        network: A trained network.
        records: Sequences with one context length C; steps after it are not read.
        samples: Rollouts S.
        texts: Write a text for each step.
        seed: Of the rollouts; with and without the goal they have the same noise.
        recent: (B, Y), by how much fans without a goal are to be stretched; see `gssr.network.recent`.
    """
    batch = move_data_to_device(collate(list(records)), network.device)

    def plan(goals: list[str | None]) -> Any:
        more = {} if recent is None else {"recent": recent}
        return network.plan(batch, goals, samples, texts=texts, generator=torch.Generator().manual_seed(seed), **more)

    with_goal = plan(batch.goal) if any(goal is not None for goal in batch.goal) else None
    return Forecast.of(network, batch, with_goal, plan([None] * len(batch)))
