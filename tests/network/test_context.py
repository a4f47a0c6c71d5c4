"""The score of persistence beside the network's own, and what is not expected to learn where data lacks it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from gssr.network import GoalNetwork
from gssr.sequences.collate import collate
from gssr.sequences.context import last_observed
from gssr.sequences.record import Batch, Record
from tests.networks import make_network

C, H = 4, 3


def batch() -> Batch:
    g = np.random.default_rng(0)
    records = []
    for i in range(5):
        value = g.normal(10, 3, (C + H, 2)).astype(np.float32)
        value[g.random((C + H, 2)) < 0.4] = np.nan
        if i == 0:
            value[:C] = np.nan
        value[C] = 10 + i
        records.append(Record(f"s{i}", np.arange(C + H) * 1.0, value, [None] * (C + H), goal_start=C - 1))
    return collate(records)


def test_the_last_observed_value_is_carried_on() -> None:
    given, default = batch(), torch.tensor([7.0, 8.0])
    found = last_observed(given, C, default)
    assert found.shape == (5, 1, 2)
    for b in range(5):
        for y in range(2):
            seen = [t for t in range(C) if given.value_mask[b, t, y]]
            expected = given.value[b, seen[-1], y] if seen else default[y]
            assert found[b, 0, y] == expected


def network(folder: Path, **lacks: bool) -> GoalNetwork:
    made = make_network(folder, latent_dim=4, hidden_dim=16, text_layers=(1,), goal_layer=1,
        names=["a", "b"], units=["", ""], resolution=[0.1, 0.1],
    )  # fmt: skip
    there = {"has_text": True, "has_goals": True, "known_values": 0} | lacks
    data = SimpleNamespace(value_names=["a", "b"], **there)
    made.trainer = SimpleNamespace(datamodule=data, precision="32-true")  # type: ignore[assignment]
    made.setup("fit")
    made._trainer = None
    return made


def test_persistence_is_scored_as_the_forecast_is(tiny_folder: Path) -> None:
    made, given = network(tiny_folder), batch()
    made.world.scaler.std.copy_(torch.tensor([2.0, 5.0]))
    made.validation.begin("val")
    made.validation._add_errors(given, last_observed(given, C, made.world.scaler.mean).expand(-1, H, -1))
    logged = made.validation.means()
    assert logged["val/persistence_mae"] == logged["val/open_loop_mae"] > 0
    truth, mask = given.value[:, C:], given.value_mask[:, C:]
    errors = (last_observed(given, C, made.world.scaler.mean) - truth).abs() / torch.tensor([2.0, 5.0])
    assert abs(logged["val/persistence_mae"] - float(errors[mask].mean())) < 1e-6


def test_what_the_data_lacks_is_not_expected_to_learn(tiny_folder: Path) -> None:
    assert all(network(tiny_folder).active_losses().values())
    silent = network(tiny_folder, has_text=False, has_goals=False).active_losses()
    assert {name for name, losses in silent.items() if not losses} == {
        "text_projection",
        "prefix",
        "goal_encoder",
        "steering",
    }
    assert network(tiny_folder, has_text=True, has_goals=False).active_losses()["prefix"] == {"text"}
