"""From counting to particles on a real network: chances agree, and a twist belongs to one network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gssr.network import GoalNetwork
from gssr.search.beliefs import Chance, Twist, Weighed, chance, condition, learn_twist
from gssr.search.beliefs.rolling import Dynamics
from gssr.sequences.collate import collate
from gssr.sequences.record import Record
from tests.networks import make_network

C, H = 3, 4


def window(last: float, horizon: int = H) -> Record:
    value = np.full((C + horizon, 2), np.nan, np.float32)
    value[:C] = np.linspace(0, last, C)[:, None]
    return Record("a", 6.0 * np.arange(C + horizon), value, [None] * len(value), goal_start=C - 1)


def network_of(folder: Path, seed: int = 0, **options: Any) -> GoalNetwork:
    sizes = {"latent_dim": 4, "hidden_dim": 8, "text_layers": (2,), "goal_layer": 2, "seed": seed} | options
    return make_network(folder, names=["y", "z"], units=["m", ""], **sizes).eval()


@pytest.fixture(scope="module")
def network(tiny_folder: Path) -> GoalNetwork:
    return network_of(tiny_folder)


@pytest.fixture(scope="module")
def twist(network: GoalNetwork) -> Twist:
    return learn_twist(network, [window(last) for last in np.linspace(-2, 2, 32)], steps=400)


@pytest.mark.parametrize("options", [{}, {"error_order": 2, "normalisation": "window"}, {"linear_lags": 3}])
def test_rollouts_step_by_step_are_those_of_the_network(options: dict[str, Any], tiny_folder: Path) -> None:
    network, batch = network_of(tiny_folder, **options), collate([window(1.0)])
    generator = torch.Generator().manual_seed(0)
    whole = network.rollout(batch, [None], 5, torch.Generator().manual_seed(0), calibrated=False)
    dynamics = Dynamics(network.forecaster, batch)
    state = dynamics.begin(5, generator)
    noise = torch.cat(network.world.draw_noise(5, H, generator), -1)
    for t in range(H):
        state, x, value = dynamics.advance(state, noise[:, t], t)
        torch.testing.assert_close(x, whole.x[:, 0, t])
        torch.testing.assert_close(value, whole.sample[:, 0, t])
    twist = learn_twist(network, [window(1.0), window(2.0)], steps=2)
    assert twist.paths(state.features(), torch.zeros(4, 3, 2)).shape == (4, 5, 3, 2)


@pytest.fixture(scope="module")
def rare(network: GoalNetwork) -> tuple[str, float]:
    """A condition on two values and its chance by 100,000 rollouts."""
    batch = collate([window(1.0)])
    paths = network.rollout(batch, [None], 100_000, torch.Generator().manual_seed(9), calibrated=False).sample[:, 0]
    high, low = float(paths[:50_000, -1, 0].quantile(0.97)), float(paths[:50_000, 1, 1].quantile(0.2))
    share = float(((paths[:, -1, 0] >= high) & (paths[:, :2, 1] <= low).any(1)).double().mean())
    assert 0.002 < share < 0.02
    return f"y >= {high} at 4 and z <= {low} within 2", share


def test_particles_agree_with_a_large_count(network: GoalNetwork, twist: Twist, rare: tuple[str, float]) -> None:
    event, truth = rare
    batch = collate([window(1.0)])
    found = [chance(network, batch, [event], hits=50, budget=3000, seed=seed, twist=twist)[0][0] for seed in range(8)]
    assert all(isinstance(each, Weighed) and each.rollouts <= 2000 and each.method == "particles" for each in found)
    estimates = np.array([each.probability for each in found])
    errors = np.array([each.error for each in found])
    assert abs(estimates.mean() - truth) < 4 * (estimates.var() / 8 + truth / 100_000) ** 0.5
    assert np.mean([low <= truth <= high for low, high in (each.interval for each in found)]) >= 0.75
    assert estimates.std() == pytest.approx(errors.mean(), rel=0.6) and errors.mean() < 0.2 * truth


def test_where_rollouts_hit_they_are_counted_and_the_twist_is_not_asked_for(network: GoalNetwork) -> None:
    def never() -> Twist:
        raise AssertionError

    batch = collate([window(1.0)])
    ((found, often),) = chance(network, batch, ["y >= -50 at 4", "z <= 50 at 1"], budget=6000, twist=never)
    assert isinstance(found, Chance) and isinstance(often, Chance)
    with pytest.raises(AssertionError):
        chance(network, batch, ["y >= 50 at 4"], budget=6000, twist=never)
    ((counted,),) = chance(network, batch, ["y >= 50 at 4"], budget=6000, twist=lambda: None)
    assert isinstance(counted, Chance) and counted.rollouts == 6000
    ((function,),) = chance(network, batch, [lambda paths, last: paths[:, 0, 0] > 50], budget=6000, twist=never)
    assert isinstance(function, Chance)


def test_what_no_particle_reaches_is_bounded_by_all_rollouts(network: GoalNetwork, twist: Twist) -> None:
    ((found,),) = chance(network, collate([window(1.0)]), ["y >= 1e6 at 4"], budget=5000, twist=twist)
    assert isinstance(found, Chance) and found.hits == 0 and found.rollouts == 5000
    assert str(found).startswith("less than 1 in")


def test_conditioned_paths_satisfy_the_condition_and_their_weights_sum_to_one(
    network: GoalNetwork, twist: Twist, rare: tuple[str, float]
) -> None:
    event, _ = rare
    (found,) = condition(network, collate([window(1.0)]), event, samples=100, twist=twist)
    assert isinstance(found.chance, Weighed) and found.chance.hits == len(found.weights)
    high, low = float(event.split()[2]), float(event.split()[8])
    paths = found.rollouts.sample[:, 0]
    assert (paths[:, 3, 0] >= high).all() and (paths[:, :2, 1] <= low).any(1).all()
    assert found.weights.sum() == pytest.approx(1) and (found.weights > 0).all()
    assert 100 <= found.effective_samples <= len(found.weights) and 50 <= found.ancestors <= found.chance.rollouts
    # Other paths than those that are counted, of the same distribution.
    (counted,) = condition(network, collate([window(1.0)]), event, samples=300, budget=200_000, seed=1)
    assert isinstance(counted.chance, Chance)
    for of in (lambda part: part.rollouts.sample[:, 0, 1, 0], lambda part: part.rollouts.x[:, 0, 2, 0]):
        own, other = (float((part.weights * of(part)).sum()) for part in (found, counted))
        spread = float(of(counted).std())
        assert own == pytest.approx(other, abs=4 * spread * (1 / 300 + 1 / found.effective_samples) ** 0.5)
    drawn = found.equally(64)
    assert drawn.sample.shape == (64, 1, H, 2) and (drawn.sample[:, 0, 3, 0] >= high).all()


def test_an_answer_depends_neither_on_other_events_nor_on_the_batch(
    network: GoalNetwork, twist: Twist, rare: tuple[str, float]
) -> None:
    high, low = rare[0].split()[2], rare[0].split()[8]
    events, records = (
        [f"y >= {high} at 3", f"z <= {low} within 3", "y >= 0 at 2"],
        [window(1.0), window(0.8, horizon=3)],
    )
    together = chance(network, collate(records), events, budget=3000, twist=twist)
    for row, record in enumerate(records):
        single = [chance(network, collate([record]), [event], budget=3000, twist=twist)[0][0] for event in events]
        assert [each.plain() for each in single] == [each.plain() for each in together[row]]
    assert {each.method for row in together for each in row} == {"rollouts", "particles"}


def test_a_twist_is_kept_and_refused_by_another_network(
    network: GoalNetwork, twist: Twist, tiny_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "best.twist.safetensors"
    twist.save(file)
    again = Twist.load(file, network)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in twist.state_dict().items())
    other = network_of(tiny_folder, seed=1)
    with pytest.raises(ValueError, match="learned for another network"):
        Twist.load(file, other)
    for given in (twist, lambda: twist):
        with pytest.raises(ValueError, match="learned for another network"):
            chance(other, collate([window(1.0)]), ["y >= 50 at 4"], budget=2000, twist=given)
    nearly = network_of(tiny_folder)
    nearly.world.value_head.floor.mul_(1.001)
    with pytest.raises(ValueError, match="learned for another network"):
        Twist.load(file, nearly)


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["another size", "not finite", "changed", "cut", "a pickle"])
def test_a_damaged_twist_is_refused(kind: str, network: GoalNetwork, twist: Twist, tmp_path: Path) -> None:
    file = tmp_path / "best.twist.safetensors"
    twist.save(file)
    if kind == "another size":
        wide = Twist(9, 2, twist.fingerprint)
        wide.save(file)
    elif kind == "not finite":
        broken = Twist.load(file, network)
        broken.between.fill_(torch.nan)
        broken.save(file)
    elif kind == "changed":
        tensors = load_file(file)
        save_file(tensors | {"between": 2 * tensors["between"]}, file)
    elif kind == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        torch.save(twist.state_dict(), file)
    with pytest.raises(ValueError, match=r"not a state that can be used|damaged|expected 'gssr-twist-1'"):
        Twist.load(file, network)


def test_the_same_seed_learns_the_same_twist(network: GoalNetwork) -> None:
    windows = [window(0.5), window(1.5)]
    first, second, other = (learn_twist(network, windows, seed, steps=20).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    with pytest.raises(ValueError, match="there are none"):
        learn_twist(network, [])
