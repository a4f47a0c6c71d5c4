"""Metrics against naive loops, closed forms and cases worked out by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from gssr.metrics import (
    at_step,
    changes_beyond,
    fair_crps,
    goal_hits,
    interval_covers,
    outside,
    plotting_quantiles,
    weighted_crps,
    weighted_quantiles,
)

NAN = math.nan


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_at_step_picks_a_step_for_each_sequence():
    path = noise(5, 3, 4, 2)
    picked = at_step(path, torch.tensor([0, 3, 2]))
    assert torch.equal(picked, torch.stack([path[:, 0, 0], path[:, 1, 3], path[:, 2, 2]], dim=1))


def test_at_step_refuses_a_step_outside_the_horizon():
    with pytest.raises(ValueError, match="between 0 and 3"):
        at_step(noise(2, 4, 1), torch.tensor([0, 4]))


@pytest.mark.parametrize(
    ("value", "low", "high", "hit"),
    [
        (110.0, 100.0, 100.0, True),  # exactly the tolerance away
        (110.1, 100.0, 100.0, False),
        (89.9, 100.0, 100.0, False),
        (86.0, 96.0, 112.0, True),  # below a range
        (122.5, 96.0, 112.0, False),  # above it
        (104.0, 96.0, 112.0, True),  # inside
        (NAN, 96.0, 112.0, False),  # unknown is no hit
        (104.0, NAN, NAN, False),  # no goal is no hit
    ],
)
def test_goal_hits_by_hand(value, low, high, hit):
    low, high = torch.tensor([[low, NAN]]), torch.tensor([[high, NAN]])
    assert goal_hits(torch.tensor([[value, -5.0]]), low, high, 10.0).tolist() == [hit]


def test_a_goal_about_two_dimensions_needs_both():
    low = high = torch.tensor([[10.0, 20.0]])
    assert goal_hits(torch.tensor([[11.0, 19.0]]), low, high, torch.tensor([2.0, 2.0])).item()
    assert not goal_hits(torch.tensor([[11.0, 19.0]]), low, high, torch.tensor([2.0, 0.5])).item()


def test_outside_measures_the_way_to_the_range():
    low, high = torch.tensor([[96.0, NAN]]), torch.tensor([[112.0, NAN]])
    values = torch.tensor([[[90.0, 1.0]], [[100.0, 2.0]], [[115.0, 3.0]]])
    assert outside(values, low, high)[..., 0].flatten().tolist() == [6.0, 0.0, 3.0]
    assert (outside(values, low, high)[..., 1] == 0).all()


def test_changes_beyond_is_a_loop_that_begins_at_the_context():
    path, start = 10 * noise(3, 5, 4, 2), noise(5, 2, seed=1)
    path[:, 2, 1, 0] = NAN
    threshold = torch.tensor([8.0, 15.0])
    beyond, judged = changes_beyond(path, start, threshold)
    for s in range(3):
        for b in range(5):
            for y in range(2):
                way = [float(start[b, y]), *path[s, b, :, y].tolist()]
                steps = [abs(a - c) for a, c in pairwise(way) if not math.isnan(a - c)]
                assert beyond[s, b, y] == sum(step > threshold[y] for step in steps)
                assert judged[s, b, y] == len(steps)


def test_changes_beyond_counts_the_leap_from_the_context_and_is_strict():
    leap = torch.tensor([[[30.0], [30.0]]])
    assert changes_beyond(leap, torch.tensor([[0.0]]), torch.tensor([20.0]))[0].item() == 1
    assert changes_beyond(leap, torch.tensor([[10.0]]), torch.tensor([20.0]))[0].item() == 0


def test_plotting_quantiles_agree_with_numpy_weibull():
    samples = noise(13, 6).double()
    expected = np.quantile(samples.numpy(), (0.01, 0.1, 0.5, 0.83, 0.99), axis=0, method="weibull")
    torch.testing.assert_close(plotting_quantiles(samples, (0.01, 0.1, 0.5, 0.83, 0.99)), torch.from_numpy(expected))


@pytest.mark.parametrize("size", [19, 64])
def test_intervals_of_exchangeable_samples_cover_what_they_say(size):
    samples = noise(size + 1, 40_000)
    covered = interval_covers(samples[1:], samples[0], 0.8).float().mean().item()
    assert covered == pytest.approx(0.8, abs=3.5 * math.sqrt(0.16 / 40_000))


def test_crps_is_the_pairwise_definition():
    samples, target = noise(7, 3), noise(3, seed=1)
    for b in range(3):
        x = samples[:, b].double()
        spread = sum(abs(x[i] - x[j]) for i in range(7) for j in range(7)) / (2 * 7 * 6)
        expected = (x - target[b]).abs().mean() - spread
        assert fair_crps(samples, target)[b].item() == pytest.approx(expected.item(), abs=1e-6)


def test_crps_of_few_samples_is_unbiased_for_a_gaussian():
    # Gneiting and Raftery 2007: sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)).
    mean, sigma, y = 3.0, 2.0, 4.5
    z = (y - mean) / sigma
    phi, cumulative = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(z / math.sqrt(2)))
    expected = sigma * (z * (2 * cumulative - 1) + 2 * phi - 1 / math.sqrt(math.pi))
    scores = fair_crps(mean + sigma * noise(4, 200_000), torch.full((200_000,), y))
    assert scores.mean().item() == pytest.approx(expected, abs=4 * scores.std().item() / math.sqrt(200_000))


def test_crps_needs_two_samples():
    with pytest.raises(ValueError, match="at least 2"):
        fair_crps(noise(1, 3), noise(3))


def test_weighted_scores_are_those_of_the_definition_and_of_equal_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 3, 2, generator=generator), torch.randn(3, 2, generator=generator)
    equal = torch.full((40,), 1 / 40)
    torch.testing.assert_close(weighted_crps(x, equal, y), fair_crps(x, y))
    w = torch.rand(40, generator=generator)
    w /= w.sum()
    apart = torch.einsum("i,j,ijhy->hy", w, w, (x[:, None] - x).abs()) / 2 / (1 - w.square().sum())
    torch.testing.assert_close(weighted_crps(x, w, y), torch.einsum("i,ihy->hy", w, (x - y).abs()) - apart)
    with pytest.raises(ValueError, match="at least 2 samples"):
        weighted_crps(x[:1], torch.ones(1), y)
    middle, low = weighted_quantiles(x, w, (0.5, 0.1))
    assert ((x <= middle) * w.view(-1, 1, 1)).sum(0).sub(0.5).abs().max() < 0.06 and (low < middle).all()
    doubled = weighted_quantiles(torch.cat([x, x]), torch.cat([w, w]) / 2, (0.5,))[0]
    torch.testing.assert_close(doubled, middle, atol=0.2, rtol=0)
