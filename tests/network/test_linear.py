"""The linear autoregression inside: what is fitted, where a forecast starts, and that a goal still ends it."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from gssr.network import GoalNetwork
from gssr.network.fitting import LEAST_WINDOWS, MOST_WINDOWS, Fitted, fit_linear, some
from gssr.network.forecast_error import Decoder, Error
from gssr.network.heads import ValueHead
from gssr.network.linear import LinearForecast
from gssr.network.linear_fit import MANY
from gssr.sequences.collate import collate
from gssr.sequences.record import Record
from tests.network.test_goal_network import C, H, generator, record
from tests.networks import make_network

Y, D, P = 2, 4, 14


def windows(series: np.ndarray, context: int, horizon: int) -> torch.Tensor:
    """All windows (N, T, 1) of a series."""
    length = context + horizon
    return torch.stack([torch.from_numpy(series[i : i + length]) for i in range(len(series) - length + 1)])[..., None]


def fitted(series: np.ndarray, context: int, horizon: int, order: int = P, season: int | None = None) -> LinearForecast:
    value = windows(series.astype(np.float32), context, horizon)
    return LinearForecast(1, D, 8, order).fit(value.nan_to_num(), ~value.isnan(), context, season)


def lags(linear: LinearForecast) -> list[int]:
    return [lag for lag, weight in enumerate(linear.weight[:, 0].tolist(), 1) if abs(weight) > 1e-6]


def process(weights: dict[int, float], steps: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=steps + 200)
    y = np.zeros(steps + 200)
    for t in range(20, len(y)):
        y[t] = sum(weight * y[t - lag] for lag, weight in weights.items()) + noise[t]
    return y[200:]


def test_the_coefficients_of_a_known_process_are_found() -> None:
    linear = fitted(process({1: 1.2, 2: -0.5}, 4000), 14, 6)
    weight = linear.weight[:, 0]
    assert weight[0] == pytest.approx(1.2, abs=0.08) and weight[1] == pytest.approx(-0.5, abs=0.12)
    assert linear.noise.item() == pytest.approx(1, abs=0.05) and weight[2:].abs().max() < 0.1


def test_a_random_walk_is_continued_by_its_last_value() -> None:
    linear = fitted(np.cumsum(np.random.default_rng(1).normal(size=300)), 14, 6)
    assert linear.weight[0, 0].item() == pytest.approx(1, abs=0.15)
    ahead = linear.expected(torch.linspace(3, 2, P)[None, :, None])
    assert ahead.item() == pytest.approx(3, abs=0.5)


@pytest.mark.parametrize("season", [12, None], ids=["the calendar names it", "it is looked for"])
def test_a_season_is_found_and_repeated(season: int | None) -> None:
    shape = np.random.default_rng(2).normal(size=12)
    series = np.tile(shape, 40) + 0.05 * np.random.default_rng(3).normal(size=480)
    linear = fitted(series, 14, 12, season=season)
    assert 12 in lags(linear)
    past = torch.from_numpy(series[-P:].astype(np.float32)).flip(0)[None, :, None]
    for h in range(12):
        past = torch.cat([linear.expected(past)[:, None], past[:, :-1]], 1)
        assert past[0, 0, 0].item() == pytest.approx(shape[h], abs=0.25)


def test_missing_values_and_short_contexts_are_fitted_too() -> None:
    series = process({1: 0.9}, 500)
    series[::9] = np.nan
    linear = fitted(series, 5, 4)
    assert linear.weight.isfinite().all() and max(lags(linear)) <= 5
    assert linear.weight.sum().item() == pytest.approx(0.9, abs=0.1)


def test_too_few_windows_leave_persistence() -> None:
    linear = fitted(np.arange(10.0), 5, 5)
    assert linear.weight[:, 0].tolist() == [1.0] + [0.0] * (P - 1) and linear.intercept.item() == 0


def test_values_begin_as_the_autoregression_and_a_goal_that_arrives_replaces_them() -> None:
    torch.manual_seed(0)
    linear = LinearForecast(Y, D, 8, 3)
    linear.weight.copy_(torch.tensor([[0.5, 1.0], [0.3, 0.0], [0.1, 0.0]]))
    linear.intercept.copy_(torch.tensor([1.0, 0.0]))
    linear.noise.copy_(torch.tensor([0.2, 0.4]))
    head, x, past = ValueHead(D, 8, torch.full((Y,), 0.1)), torch.randn(1, D), torch.randn(1, 3, Y)
    noise = torch.tensor([[1.0, -1.0]])
    value, after = Decoder(head, linear)(x, torch.zeros(1), Error(past, past), noise)
    expected = linear.intercept + (linear.weight * past[0]).sum(0)
    torch.testing.assert_close(value.mean[0], expected)
    torch.testing.assert_close(value.sample[0], expected + torch.tensor([0.2, -0.4]))
    torch.testing.assert_close(after.mean[:, 1:], past[:, :-1])
    arrived, _ = Decoder(head, linear)(x, torch.ones(1), Error(past, past), noise)
    torch.testing.assert_close(arrived.mean, head(x).mean)


def walks() -> list[Record]:
    """The windows of one series, in order."""
    values = np.cumsum(np.random.default_rng(0).normal(size=(80, 2)), 0).astype(np.float32)
    return [
        replace(record(0), series="s", time=np.arange(i, i + C + H) * 6.0, value=values[i : i + C + H])
        for i in range(80 - C - H)
    ]


@pytest.fixture
def network(tiny_folder: Path) -> GoalNetwork:
    return make_network(tiny_folder, latent_dim=4, hidden_dim=16, text_layers=(2,), goal_layer=2, text_steps=6,
        linear_lags=9, names=["a", "b"], units=["", ""], resolution=[0.0, 0.0],
    )  # fmt: skip


def test_what_training_adds_is_in_units_of_the_noise() -> None:
    linear = LinearForecast(Y, D, 8, 2)
    torch.nn.init.normal_(linear.left[-1].weight, generator=generator(0))
    x, eps = torch.randn(3, D, generator=generator(1)), torch.randn(3, Y, generator=generator(2))
    past, gain = torch.randn(3, 2, Y, generator=generator(3)), torch.zeros(3)
    linear.noise.fill_(0.5)
    value, _ = linear.values(torch.zeros(3, Y), x, gain, Error(past, past), eps)
    linear.noise.mul_(0.01)
    small, _ = linear.values(torch.zeros(3, Y), x, gain, Error(0.01 * past, 0.01 * past), eps)
    for part, of_small in zip(value, small, strict=True):
        assert torch.allclose(0.01 * part, of_small, atol=1e-6)


def test_the_open_loss_of_a_series_that_wanders_far_is_as_large_as_that_of_others(
    network: GoalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In units of levels all that could be learned would be small beside the other losses."""
    batch = collate([record(i, C + H) for i in range(3)])
    filtered = network.world.observe(batch, torch.zeros(3, C + H, 4))
    goal = network.world.encode_goals(batch, [None] * 3)

    def loss() -> torch.Tensor:
        return network.objective.open_loss(batch, filtered, goal, C, generator(3)).mean

    network.world.forecast_error.noise.fill_(0.01)
    found = loss()
    monkeypatch.setattr(LinearForecast, "unit", torch.ones(Y))
    assert torch.isclose(found, 100 * loss(), rtol=1e-4)


def test_an_untrained_network_forecasts_by_its_autoregression(network: GoalNetwork) -> None:
    batch = collate(walks())
    world = network.world
    fit_linear(world, Fitted(batch, len(batch)), None)
    found = network.rollout(batch, [None] * len(batch), samples=4).mean
    past = torch.nn.functional.pad(batch.value[:, :C].flip(1), (0, 0, 0, 9 - C))
    assert not world.forecast_error.weight[C:].any()
    for h in range(H):
        past = torch.cat([world.forecast_error.expected(past)[:, None], past[:, :-1]], 1)
        torch.testing.assert_close(found[:, :, h], past[:, 0].expand(4, -1, -1))


def test_every_part_of_it_is_trained_and_kept(network: GoalNetwork, tiny_folder: Path) -> None:
    batch = collate(walks()[:8])
    fit_linear(network.world, Fitted(collate(walks()), len(walks())), None)
    network.objective(batch, generator(1), training=True).total.backward()
    drift = network.world.forecast_error
    assert all(parameter.grad is not None for parameter in drift.parameters())
    assert drift.left[-1].weight.grad.abs().sum() > 0 and drift.net[-1].weight.grad.abs().sum() > 0
    other = make_network(tiny_folder, **network_options(network))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.world.forecast_error.weight, drift.weight) and not drift.weight.requires_grad


def network_options(network: GoalNetwork) -> dict:
    values = network.options.values
    return {"latent_dim": 4, "hidden_dim": 16, "text_layers": (2,), "goal_layer": 2, "text_steps": 6, "linear_lags": 9,
        "names": values.names, "units": values.units, "resolution": values.resolution}  # fmt: skip


def test_no_forecast_of_training_starts_before_the_lags_are_known(network: GoalNetwork) -> None:
    batch = collate([record(i) for i in range(3)])
    starts = {network.objective.first_imagined(batch, generator(seed)) for seed in range(40)}
    assert min(starts) == C and max(starts) < C + H


def test_windows_to_fit_to_are_whole_in_order_and_few() -> None:
    every = [
        replace(record(0), series=f"s{i % 2}", time=np.arange(i, i + C + H) * 6.0) for i in range(2 * MOST_WINDOWS)
    ]
    picked = some([*every, record(1, C + 1)], 1)
    assert MOST_WINDOWS <= len(picked) < 2 * MOST_WINDOWS and {len(window) for window in picked} == {C + H}
    assert all(a.time[0] <= b.time[0] for a, b in pairwise(picked))
    assert len(some(every, 500)) == LEAST_WINDOWS


def test_many_dimensions_take_all_lags() -> None:
    value = windows(process({1: 0.9}, 300).astype(np.float32), 4, 2).expand(-1, -1, MANY + 1)
    linear = LinearForecast(MANY + 1, D, 8, P).fit(value, torch.ones_like(value, dtype=torch.bool), 4)
    assert linear.weight[:4].all() and not linear.weight[4:].any()
    assert linear.weight[0, -1].item() == pytest.approx(0.9, abs=0.15)
