"""The likeliest path satisfies the condition with less noise than any rollout that does."""

from math import sqrt
from pathlib import Path

import pytest
import torch

from gssr.network import GoalNetwork
from gssr.search.beliefs import chance, likeliest
from gssr.search.beliefs.likeliest import _rolled
from gssr.search.beliefs.rolling import Dynamics
from gssr.sequences.collate import collate
from tests.search.test_ladder import H, network_of, window


@pytest.fixture(scope="module")
def network(tiny_folder: Path) -> GoalNetwork:
    return network_of(tiny_folder)


def test_it_needs_less_noise_than_any_rollout(network: GoalNetwork) -> None:
    batch, generator = collate([window(1.0)]), torch.Generator().manual_seed(3)
    dynamics = Dynamics(network.forecaster, batch)
    with torch.no_grad():
        start = dynamics.begin(20_000, generator)
        noise = torch.randn(20_000, H, dynamics.width, generator=generator)
        paths = _rolled(dynamics, start, noise)
    high, low = float(paths[:, -1, 0].quantile(0.99)), float(paths[:, 1, 1].quantile(0.3))
    (found,) = likeliest(network, batch, f"y >= {high} at 4 and z <= {low} within 2")
    assert found is not None and found.path.shape == (H, 2)
    assert found.path[-1, 0] >= high and (found.path[:2, 1] <= low).any()
    hits = (paths[:, -1, 0] >= high) & (paths[:, :2, 1] <= low).any(1)
    assert hits.sum() > 20
    assert 0 < found.nats < (noise[hits].square().sum((1, 2)) / 2).min()
    assert found.typical == H * dynamics.width / 2


def test_its_noise_tells_the_chance_of_a_nearly_linear_event(network: GoalNetwork) -> None:
    batch = collate([window(1.0)])
    level = float(network.rollout(batch, [None], 20_000, calibrated=False).sample[:, 0, 0, 0].quantile(0.98))
    (found,) = likeliest(network, batch, f"y >= {level} at 1")
    assert found is not None
    ((counted,),) = chance(network, batch, [f"y >= {level} at 1"])
    about = float(torch.special.ndtr(torch.tensor(-sqrt(2 * found.nats))))
    assert counted.probability / 3 < about < 3 * counted.probability  # the spread of values depends on the belief


def test_what_cannot_be_reached_has_none_and_functions_are_refused(network: GoalNetwork) -> None:
    batch = collate([window(1.0)])
    assert likeliest(network, batch, "y >= 1e6 at 4", rounds=3) == [None]
    with pytest.raises(ValueError, match="a function of paths was given"):
        likeliest(network, batch, lambda paths, last: paths[:, 0, 0] > 0)
