"""Chances are those of the rollouts: against a random walk whose chances are known, and the network's own paths."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch

from gssr.network.forecaster import Rollouts
from gssr.search.beliefs import Chance, chance, condition
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record
from tests.networks import make_network

H = 4


def history(steps: int = 3, last: float = 10.0, horizon: int = H) -> Record:
    value = np.full((steps + horizon, 1), np.nan, np.float32)
    value[:steps] = np.linspace(0, last, steps)[:, None]
    times = 6.0 * np.arange(steps + horizon)
    return Record("a", times, value, [None] * len(value), goal_start=steps - 1)


class Walk:
    """A network whose values walk on from the last one by standard normal steps."""

    value_names, value_units = ["y"], ["m"]

    def rollout(
        self, batch: Batch, goals: list, samples: int, generator: torch.Generator, calibrated: bool
    ) -> Rollouts:
        start, steps = int(batch.context[0]), batch.value.shape[1] - int(batch.context[0])
        assert goals == [None] * len(batch) and not calibrated
        noise = torch.randn(samples, len(batch), steps, 1, generator=generator)
        path = batch.value[:, start - 1 : start] + noise.cumsum(2)
        return Rollouts(path, path, path)


def above(deviations: float) -> float:
    return 1 - NormalDist().cdf(deviations)


def test_intervals_hold_the_known_chance_and_errors_are_those_of_repetitions() -> None:
    batch, truth = collate([history()]), above(2)  # y has a standard deviation of 2 after 4 steps
    found = [chance(Walk(), batch, ["y >= 14 at 24h"], hits=30, seed=seed)[0][0] for seed in range(300)]
    inside = np.mean([low <= truth <= high for low, high in (each.interval for each in found)])
    assert 0.91 <= inside <= 0.99
    estimates = np.array([each.probability for each in found])
    assert abs(estimates.mean() - truth) < 3 * estimates.std() / 300**0.5
    assert np.mean([each.error for each in found]) == pytest.approx(estimates.std(), rel=0.15)


def test_counting_until_enough_hits_has_no_bias() -> None:
    batch, truth = collate([history()]), above(1)
    found = [chance(Walk(), batch, ["y >= 12 at 24h"], hits=3, budget=40, seed=seed)[0][0] for seed in range(2000)]
    estimates, shares = (
        np.array([f(each) for each in found]) for f in (lambda c: c.probability, lambda c: c.hits / c.rollouts)
    )
    error = estimates.std() / len(found) ** 0.5
    assert abs(estimates.mean() - truth) < 3 * error
    assert shares.mean() - truth > 6 * error  # the share of hits would be too large


def test_an_answer_depends_neither_on_other_events_nor_on_the_batch() -> None:
    events, records = ["y >= 14 at 24h", "y >= 10 at 1", "y +1 within 2"], [history(last=10.0), history(last=12.0)]
    together = chance(Walk(), collate(records), events, hits=50)
    for row, record in enumerate(records):
        assert [chance(Walk(), collate([record]), [event], hits=50)[0][0] for event in events] == together[row]
    assert together[1][0].probability > 5 * together[0][0].probability


def test_what_is_beyond_reach_is_bounded() -> None:
    ((found,),) = chance(Walk(), collate([history()]), ["y >= 100 at 24h"], budget=3000)
    assert (found.hits, found.rollouts, found.probability, found.log_probability) == (0, 3000, 0.0, -np.inf)
    assert str(found) == "less than 1 in 1,001"  # 1 in 20 times, 3,000 rollouts of chance 1 / 1,001 show none
    assert (1 - found.interval[1]) ** 3000 == pytest.approx(0.05)
    (nothing,) = condition(Walk(), collate([history()]), "y >= 100 at 24h", budget=100)
    assert nothing.effective_samples == 0 and nothing.rollouts.sample.shape == (0, 1, H, 1)
    sure = Chance(400, 400)
    assert sure.probability == 1 and sure.error == 0 and sure.interval[0] < 1


def test_conditioned_paths_satisfy_the_condition_and_are_those_of_the_walk() -> None:
    (found,) = condition(Walk(), collate([history()]), "y >= 12 at 24h", samples=2000, budget=60_000)
    end = found.rollouts.sample[:, 0, -1, 0]
    assert len(end) == 2000 and (end >= 12).all()
    assert found.weights.sum() == pytest.approx(1) and found.effective_samples == pytest.approx(2000)
    normal = NormalDist()
    mean = 10 + 2 * normal.pdf(1) / above(1)  # of a normal cut off below one deviation
    assert end.mean().item() == pytest.approx(mean, abs=4 * end.std().item() / 2000**0.5)
    # The way there is half of the end's, by the covariance of a walk.
    assert found.rollouts.sample[:, 0, 1, 0].mean().item() == pytest.approx(10 + (mean - 10) / 2, abs=0.08)
    assert found.chance.log_probability == pytest.approx(np.log(above(1)), abs=4 * found.chance.log_error)


def test_a_function_takes_the_place_of_a_condition() -> None:
    batch = collate([history()])
    ((text, function),) = chance(Walk(), batch, ["y +2 at 4", lambda paths, last: paths[:, 3, 0] >= last[0] + 2])
    assert text == function
    with pytest.raises(ValueError, match="expected True or False for each"):
        chance(Walk(), batch, [lambda paths, last: paths])
    with pytest.raises(ValueError, match="beyond the horizon"):
        chance(Walk(), batch, ["y >= 1 at 24h", "y >= 1 at 30h"])
    with pytest.raises(ValueError, match="expected 1 or more"):
        chance(Walk(), batch, ["y >= 1 at 24h"], budget=0)


def test_events_are_read_off_the_networks_paths_and_not_off_stretched_fans(tiny_folder: Path) -> None:
    options = {"latent_dim": 4, "hidden_dim": 8, "text_layers": (2,), "goal_layer": 2, "names": ["y"], "units": ["m"]}
    network = make_network(tiny_folder, **options).eval()
    long, short = history(last=1.0), history(last=-1.0, horizon=2)
    alone = chance(network, collate([short]), ["y >= 0.5 at 2"], hits=10**9, budget=500)
    network.calibration.factor.fill_(4.0)
    batch = collate([long, short])  # the shorter one is padded
    found = chance(network, batch, ["y >= 0.5 at 2"], hits=10**9, budget=500)
    assert found[1] == alone[0]
    paths = network.rollout(collate([long]), [None], 500, torch.Generator().manual_seed(0), calibrated=False)
    assert found[0][0].hits == int((paths.sample[:, 0, 1, 0] >= 0.5).sum()) > 0
