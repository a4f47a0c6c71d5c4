"""The pretrained forecaster: what it knows of any series, and its share beside the linear autoregression."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gssr.network import GoalNetwork
from gssr.network.fitting import Fitted, fit_linear
from gssr.network.forecast_error import Decoder, Error
from gssr.network.heads import ValueHead
from gssr.network.linear import LinearForecast
from gssr.network.linear_fit import fit_each
from gssr.network.prior import FILE, FORM, SHORTEST, SeriesPrior
from gssr.network.prior_share import best_share, prior_forecasts
from gssr.sequences.collate import collate
from gssr.sequences.record import Record
from gssr.states import state_file
from tests.network.test_goal_network import generator, record
from tests.networks import make_network

C, H, SEASON = 36, 12, 12


@pytest.fixture(scope="module")
def prior() -> SeriesPrior:
    return SeriesPrior.bundled()


def growing(count: int, seed: int = 0) -> torch.Tensor:
    """Seasons on a trend that grow with it, (N, C + H), without noise."""
    g = np.random.default_rng(seed)
    t, shape = np.arange(C + H), g.normal(size=(count, SEASON))
    trend = 20 + g.uniform(0.1, 0.4, (count, 1)) * t
    return torch.tensor(trend * (1 + 0.1 * shape[:, t % SEASON]), dtype=torch.float32)


def test_a_season_that_grows_goes_on(prior: SeriesPrior) -> None:
    series = growing(50)
    found = prior(series[:, :C], torch.full((50,), SEASON), H)[0]
    truth, season_before = series[:, C:], series[:, C - SEASON : C]
    error, naive = ((each - truth).abs().mean() for each in (found, season_before))
    assert error < 0.2 * naive


def test_a_walk_stays_where_it_is(prior: SeriesPrior) -> None:
    walk = np.random.default_rng(1).normal(size=(400, 24)).cumsum(1)
    y = torch.tensor(walk, dtype=torch.float32)
    mean, scale = prior(y, torch.zeros(400, dtype=torch.long), 8)
    moved = (mean - y[:, -1:]).abs().mean(0)
    assert moved.max() < 0.7 and (scale.mean(0).diff() > 0).all()


def test_a_forecast_shifts_and_scales_with_its_context(prior: SeriesPrior) -> None:
    y, season = growing(8)[:, :C], torch.tensor([SEASON, 0] * 4)
    mean, scale = prior(y, season, H)
    moved_mean, moved_scale = prior(3 * y - 40, season, H)
    torch.testing.assert_close(moved_mean, 3 * mean - 40, atol=2e-3, rtol=0)
    torch.testing.assert_close(moved_scale, 3 * scale, rtol=2e-3, atol=0)


@pytest.mark.parametrize("length", [SHORTEST, 13, 96])
def test_contexts_of_any_length_and_flat_ones_have_forecasts(prior: SeriesPrior, length: int) -> None:
    rows = torch.stack([torch.randn(length, generator=generator(0)), torch.full((length,), 7.0), torch.zeros(length)])
    for season in (0, 2, 12, 200):
        mean, scale = prior(rows, torch.full((3,), season), 50)
        assert mean.isfinite().all() and (scale > 0).all() and mean.shape == (3, 50)
        torch.testing.assert_close(mean[1:], rows[1:, :1].expand(-1, 50), atol=1e-3, rtol=0)


def test_columns_do_not_know_each_other_and_steps_neither(prior: SeriesPrior) -> None:
    y = torch.stack([growing(5)[:, :C], torch.randn(5, C, generator=generator(2))], -1)
    both = prior_forecasts(prior, y, SEASON, H)
    assert both.shape == (5, H, 2)
    for k in range(2):
        torch.testing.assert_close(both[..., [k]], prior_forecasts(prior, y[..., [k]], SEASON, H), atol=1e-4, rtol=1e-4)
    later = prior(y[..., 0], torch.full((5,), SEASON), torch.tensor([[7]]).expand(5, 1))[0]
    torch.testing.assert_close(later[:, 0], both[:, 6, 0], atol=1e-4, rtol=1e-4)


def test_files_that_are_none_are_refused(prior: SeriesPrior, tmp_path: Path) -> None:
    assert FILE.stat().st_size < 2_000_000
    damaged = bytearray(FILE.read_bytes())
    damaged[-5] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    with pytest.raises(ValueError, match="damaged"):
        SeriesPrior.load(tmp_path / "damaged.safetensors")
    state_file.write(tmp_path / "other.safetensors", "gssr-goal-reader-1", prior.state_dict(), {})
    with pytest.raises(ValueError, match="expected 'gssr-series-prior-1'"):
        SeriesPrior.load(tmp_path / "other.safetensors")
    state_file.write(tmp_path / "small.safetensors", FORM, {"encode.0.weight": torch.zeros(2, 2)}, {})
    with pytest.raises(ValueError, match="sizes are not those of a series prior"):
        SeriesPrior.load(tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match="there is no file"):
        SeriesPrior.load(tmp_path / "missing.safetensors")


def test_the_bundled_one_has_its_weights_whoever_asks_first() -> None:
    SeriesPrior.bundled.cache_clear()
    with torch.device("meta"):
        found = SeriesPrior.bundled()
    assert {tensor.device.type for tensor in found.state_dict().values()} == {"cpu"}
    assert found.encode[0].weight.abs().sum() > 0


def walks(steps: int = 300, width: int = 2) -> torch.Tensor:
    values = np.random.default_rng(4).normal(size=(steps, width)).cumsum(0).astype(np.float32)
    return torch.from_numpy(np.stack([values[i : i + C + H] for i in range(steps - C - H)]))


@pytest.mark.parametrize(("kind", "share"), [("truth", 1.0), ("noise", 0.0)])
def test_the_share_is_that_of_the_smallest_error(kind: str, share: float) -> None:
    value = walks(width=1)
    (fit,) = fit_each(value, torch.ones_like(value, dtype=torch.bool), torch.ones(()), C, 200, C, None)
    truth = value[:, C:, 0]
    forecasts = truth if kind == "truth" else 50 * torch.randn(truth.shape, generator=generator(0))
    found = best_share(fit, forecasts, C)
    assert found is not None and (found.each == share).all()
    assert found.error.item() == pytest.approx(1 - share, abs=1e-6)


def test_half_of_each_is_found_where_their_errors_are_opposite() -> None:
    value = walks(width=1)
    (fit,) = fit_each(value, torch.ones_like(value, dtype=torch.bool), torch.ones(()), C, 200, C, None)
    persistence = fit._replace(candidate=None)
    truth, last = value[:, C:, 0], value[:, C - 1 : C, 0]
    found = best_share(persistence, 2 * truth - last, C)
    assert found is not None and torch.allclose(found.each, torch.tensor(0.5)) and found.error < 1e-6


def test_short_contexts_have_no_share() -> None:
    value = walks(width=1)[:, -(SHORTEST - 1 + H) :]
    (fit,) = fit_each(value, torch.ones_like(value, dtype=torch.bool), torch.ones(()), SHORTEST - 1, 200, 9, None)
    assert best_share(fit, value[:, SHORTEST - 1 :, 0], 9) is None


def records() -> list[Record]:
    return [
        replace(record(0, C + H), series="s", time=np.arange(i, i + C + H) * 6.0, value=rows.numpy(), goal_start=C - 1)
        for i, rows in enumerate(walks(140))
    ]


def made(folder: Path, **options: object) -> GoalNetwork:
    return make_network(folder, latent_dim=4, hidden_dim=16, text_layers=(2,), goal_layer=2, text_steps=6,
        linear_lags=40, names=["a", "b"], units=["", ""], resolution=[0.0, 0.0], **options)  # fmt: skip


@pytest.fixture
def network(tiny_folder: Path) -> GoalNetwork:
    network = made(tiny_folder, series_prior=True)
    fit_linear(network.world, Fitted(collate(records()), 70), SEASON)
    return network


def test_an_untrained_network_mixes_both_forecasts(network: GoalNetwork, prior: SeriesPrior) -> None:
    drift = network.world.forecast_error
    assert isinstance(drift, LinearForecast)
    drift.share[:H, 0], drift.share[:, 1] = torch.linspace(0.1, 0.9, H), 0.0
    batch = collate(records()[:6])
    found = network.rollout(batch, [None] * 6, samples=4).mean
    past, linear = torch.nn.functional.pad(batch.value[:, :C].flip(1), (0, 0, 0, 40 - C)), []
    for _ in range(H):
        past = torch.cat([drift.expected(past)[:, None], past[:, :-1]], 1)
        linear.append(past[:, 0])
    mixed, own = torch.stack(linear, 1), prior_forecasts(prior, batch.value[:, :C], SEASON, H)
    torch.testing.assert_close(found[..., 1], mixed[..., 1].expand(4, -1, -1), atol=1e-4, rtol=1e-4)
    mixed = mixed + drift.share[:H] * (own - mixed)
    torch.testing.assert_close(found, mixed.expand(4, -1, -1, -1), atol=1e-4, rtol=1e-4)


def test_alone_it_forecasts_the_same_whatever_the_calendar_takes(tiny_folder: Path, prior: SeriesPrior) -> None:
    """The forecaster reads values of which nothing was taken, and what was taken is given back at the right steps."""
    network = made(tiny_folder, series_prior=True, calendar=True)
    batch = collate(records()[:6])
    fit_linear(network.world, Fitted(collate(records()), 70), SEASON)
    network.world.scaler.waves.copy_(torch.randn(network.world.scaler.waves.shape, generator=generator(0)))
    network.world.forecast_error.share.fill_(1.0)
    found = network.rollout(batch, [None] * 6, samples=4).mean
    expected = prior_forecasts(prior, batch.value[:, :C], SEASON, H)
    torch.testing.assert_close(found, expected.expand(4, -1, -1, -1), atol=1e-3, rtol=1e-3)


def test_nothing_behind_the_origin_is_read(network: GoalNetwork) -> None:
    network.world.forecast_error.share.fill_(0.7)
    batch = collate(records()[:3])
    found = network.rollout(batch, [None] * 3, samples=4).sample
    batch.value[:, C:] += 100
    assert torch.equal(network.rollout(batch, [None] * 3, samples=4).sample, found)


def test_without_a_share_forecasts_are_those_without_it(network: GoalNetwork, tiny_folder: Path) -> None:
    other = made(tiny_folder)
    assert not any(".prior." in name or "share" in name for name in other.state_dict())
    fit_linear(other.world, Fitted(collate(records()), 70), SEASON)
    kept = {name: tensor for name, tensor in network.state_dict().items() if name in other.state_dict()}
    other.load_state_dict(kept)
    network.world.forecast_error.share.zero_()
    batch = collate(records()[:3])
    one, two = (each.rollout(batch, [None] * 3, samples=4).sample for each in (network, other))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_its_weights_are_kept_in_a_checkpoint_and_not_trained(network: GoalNetwork, tiny_folder: Path) -> None:
    network.world.forecast_error.share.fill_(0.5)
    network.objective(collate(records()[:4]), generator(1), training=True).total.backward()
    drift = network.world.forecast_error
    assert all(parameter.grad is not None for parameter in drift.parameters())
    assert not list(drift.prior.parameters()) and drift.season == SEASON
    other = made(tiny_folder, series_prior=True)
    other.load_state_dict(network.state_dict())
    for name, weight in SeriesPrior.bundled().state_dict().items():
        assert torch.equal(other.state_dict()[f"world.forecast_error.prior.{name}"], weight)
    assert torch.equal(other.world.forecast_error.share, drift.share)


def test_a_goal_that_arrives_replaces_what_it_adds() -> None:
    linear, width = LinearForecast(2, 4, 8, 3, prior=True), 2
    past = torch.randn(1, 3 + 2, width, generator=generator(0))
    head, x, noise = ValueHead(4, 8, torch.full((width,), 0.1)), torch.randn(1, 4), torch.zeros(1, width)
    value, after = Decoder(head, linear)(x, torch.zeros(1), Error(past, past), noise)
    torch.testing.assert_close(value.mean, linear.expected(past[:, :3]) + past[:, 3])
    torch.testing.assert_close(after.mean[:, 0], linear.expected(past[:, :3]))
    assert torch.equal(after.mean[:, 3:], past[:, 4:])
    value, _ = Decoder(head, linear)(x, torch.ones(1), Error(past, past), noise)
    torch.testing.assert_close(value.mean, head(x).mean)


def test_what_the_calendar_takes_is_given_back_before_it_is_read() -> None:
    linear = LinearForecast(1, 4, 8, C, prior=True)
    linear.season.fill_(SEASON)
    linear.share.fill_(1.0)
    series = growing(4)[..., None]
    level = 5 * torch.sin(torch.arange(C + H) / 2)[None, :, None].expand(4, -1, -1)
    seen = torch.ones(4, C, 1, dtype=torch.bool)
    given = (series - level)[:, :C]
    added = linear.added(given.flip(1), given, seen, H, level)
    # The autoregression is persistence before it is fitted.
    expected = prior_forecasts(linear.prior, series[:, :C], SEASON, H) - level[:, C:] - given[:, -1:]
    torch.testing.assert_close(added, expected, atol=1e-4, rtol=1e-4)


def test_missing_values_are_filled_by_those_before() -> None:
    linear = LinearForecast(1, 4, 8, C, prior=True)
    linear.share.fill_(1.0)
    full = torch.randn(2, C, 1, generator=generator(0)).cumsum(1)
    seen = torch.ones(2, C, 1, dtype=torch.bool)
    seen[0, :3], seen[1, -2:] = False, False
    filled = full.clone()
    filled[0, :3], filled[1, -2:] = full[0, 3], full[1, -3]
    past = linear.last(torch.where(seen, full, torch.zeros_like(full)), seen)[:, -1]
    every = torch.ones_like(seen)
    one = linear.added(past, torch.where(seen, full, 0.0), seen, H)
    torch.testing.assert_close(one, linear.added(past, filled, every, H), atol=1e-4, rtol=1e-4)


def test_without_an_autoregression_it_is_not_used(tiny_folder: Path) -> None:
    options = {"latent_dim": 4, "hidden_dim": 16, "text_layers": (2,), "goal_layer": 2, "names": ["a"], "units": [""]}
    network = make_network(tiny_folder, series_prior=True, resolution=[0.0], **options)
    assert network.world.forecast_error.prior is None
