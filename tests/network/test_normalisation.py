"""Values by each window's own level: what is seen, and that a forecast moves and stretches with its window."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gssr.network import GoalNetwork
from gssr.network.noise import WindowNoise
from gssr.network.normalisation import LEAST_SPREAD, last_scale, window_scale
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch
from gssr.sequences.scaler import Scaler
from tests.network.test_goal_network import C, H, generator, record
from tests.networks import make_network


@pytest.fixture
def batch() -> Batch:
    """Four windows without goals; in the first one a dimension is never observed in the context."""
    records = [replace(record(i), goal=None) for i in range(4)]
    records[0].value[:C, 1] = float("nan")
    return collate(records)


def network_of(folder: Path, normalisation: str) -> GoalNetwork:
    return make_network(folder, latent_dim=4, hidden_dim=16, text_layers=(2,), goal_layer=2, text_steps=6,
        normalisation=normalisation,
        names=["a", "b"], units=["u", "v"], resolution=[0.0, 0.0],
    )  # fmt: skip


def moved(batch: Batch, shift: float, factor: float) -> Batch:
    other = batch.select(range(len(batch)))
    other.value = batch.value * factor + shift
    return other


def test_the_context_has_mean_0_and_deviation_1(batch: Batch) -> None:
    scale = window_scale(batch, Scaler(2))
    seen = batch.value_mask[:, :C]
    scaled = scale.transform(batch.value, batch.value_mask)[:, :C]
    for b in range(4):
        for y in range(2):
            kept = scaled[b, :, y][seen[b, :, y]]
            if len(kept):
                assert abs(kept.mean()) < 1e-4 and abs(kept.std(correction=0) - 1) < 1e-4
    assert scale.mean[0, 0, 1] == 0 and scale.spread[0, 0, 1] == 1  # those of the training part
    back = scale.inverse(scale.transform(batch.value))
    assert torch.allclose(back[batch.value_mask], batch.value[batch.value_mask], atol=1e-3)


def test_nothing_of_the_horizon_is_used_and_a_constant_context_has_a_least_spread(batch: Batch) -> None:
    before = window_scale(batch, Scaler(2))
    batch.value = batch.value.clone()
    batch.value[:, C:] += 100.0
    assert all(map(torch.equal, before, window_scale(batch, Scaler(2))))
    batch.value[1, :C] = 7.0
    assert torch.allclose(window_scale(batch, Scaler(2)).spread[1], torch.tensor(LEAST_SPREAD))


def test_by_the_last_value_it_is_0_and_a_deviation_of_training_is_1(batch: Batch) -> None:
    scaler = Scaler(2).fit(torch.randn(100, 2, generator=generator(2)) * torch.tensor([3.0, 0.5]) + 7)
    scale = last_scale(batch, scaler)
    for b in range(4):
        for y in range(2):
            seen = batch.value[b, :C, y][batch.value_mask[b, :C, y]]
            assert scale.mean[b, 0, y] == (seen[-1] if len(seen) else scaler.mean[y])
            assert scale.spread[b, 0, y] == scaler.std[y]
    batch.value = batch.value.clone()
    batch.value[:, C:] += 100.0
    assert torch.equal(scale.mean, last_scale(batch, scaler).mean)


def test_forecasts_move_and_stretch_with_their_window(tiny_folder: Path, batch: Batch) -> None:
    found, moves = {}, {}
    for kind in ("window", "training", "last"):
        network = network_of(tiny_folder, kind)
        here = network.rollout(batch.select([1, 2]), [None] * 2, 4, generator(1)).sample
        there = network.rollout(moved(batch, 1000.0, 3.0).select([1, 2]), [None] * 2, 4, generator(1)).sample
        found[kind] = torch.allclose(there, 3 * here + 1000.0, rtol=1e-3)
        there = network.rollout(moved(batch, 1000.0, 1.0).select([1, 2]), [None] * 2, 4, generator(1)).sample
        moves[kind] = torch.allclose(there, here + 1000.0, rtol=1e-3)
    assert found == {"window": True, "training": False, "last": False}
    assert moves == {"window": True, "training": False, "last": True}


@pytest.mark.parametrize("kind", ["window", "training"])
def test_rollouts_from_what_was_filtered_for_more_windows_are_those_of_the_windows_alone(
    tiny_folder: Path, batch: Batch, kind: str
) -> None:
    network, rows = network_of(tiny_folder, kind), torch.tensor([3, 1])
    noise = WindowNoise([6, 7, 8, 9], 1)
    origin = network.forecaster.origin(batch, 4, noise).select(rows, 4)
    part, alone = batch.select(rows.tolist()), WindowNoise([9, 7], 1)
    found = network.forecaster.rollout(part, [None] * 2, 4, WindowNoise([9, 7], 2), origin=origin).sample
    origin = network.forecaster.origin(part, 4, alone)
    expected = network.forecaster.rollout(part, [None] * 2, 4, WindowNoise([9, 7], 2), origin=origin).sample
    assert torch.allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["window", "last"])
def test_losses_are_the_same_wherever_the_window_lies_and_none_imagines_the_context(
    tiny_folder: Path, batch: Batch, kind: str
) -> None:
    network = network_of(tiny_folder, kind)
    part = batch.select([1, 2, 3])
    here = network.objective(part, generator(), training=True).terms
    there = network.objective(moved(part, -500.0, 2.0 if kind == "window" else 1.0), generator(), training=True).terms
    for name in ("value", "kl", "open"):
        assert torch.isclose(here[name], there[name], rtol=1e-2), name
    g = generator()
    assert {network.objective.first_imagined(part, g) for _ in range(200)} == set(range(C, C + H))


def test_it_is_refused_where_goals_may_say_more_than_numbers_and_where_it_is_unknown(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match="normalisation is 'batch'; expected one of auto, training"):
        network_of(tiny_folder, "batch")
    network = network_of(tiny_folder, "window")
    data = SimpleNamespace(has_text=True, has_goals=True, value_names=["a", "b"], value_units=["u", "v"])
    network._trainer = SimpleNamespace(datamodule=data, precision="32-true")
    with pytest.raises(ValueError, match="normalisation window .* a number can be told, but not what other words"):
        network.setup("fit")
