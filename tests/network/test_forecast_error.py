"""The error of a forecast starts at the last observed one, continues as an autoregression, and ends at a goal."""

import pytest
import torch

from gssr.network.forecast_error import Decoder, Error, ForecastError
from gssr.network.heads import ValueHead
from gssr.network.layers import SCALE

H, C, Y, D = 6, 3, 2, 4


@pytest.fixture
def error() -> ForecastError:
    torch.manual_seed(0)
    return ForecastError(Y, D, 8)


def follow(error: ForecastError, last: torch.Tensor, gains: torch.Tensor, rows: int = 1) -> list[Error]:
    """Errors of H steps after P of ``last``, x the same at all of them."""
    last = last[:, None].expand(-1, error.order, -1)
    x, now, path = torch.randn(1, D).expand(rows, D), Error(last, last), []
    for step in range(H):
        now = error(x, gains[step].expand(rows), now, torch.randn(rows, Y))
        path.append(now)
    return path


def test_mean_fades_geometrically_from_the_last_miss(error: ForecastError) -> None:
    last = torch.randn(1, Y)
    for step, found in enumerate(follow(error, last, torch.zeros(H)), start=1):
        torch.testing.assert_close(found.mean[:, 0], last * error.phi**step)


def test_spread_is_that_of_an_autoregressive_process(error: ForecastError) -> None:
    """Variance after k steps: s² (1 - phi^2k) / (1 - phi²), a geometric sum of innovations of variance s²."""
    with torch.no_grad():
        path = follow(error, torch.zeros(20_000, Y), torch.zeros(H), 20_000)
    phi, first = error.phi.detach(), path[0].sample[:, 0].std(0)
    for step, found in enumerate(path, start=1):
        expected = first * ((1 - phi ** (2 * step)) / (1 - phi**2)).sqrt()
        torch.testing.assert_close(found.sample[:, 0].std(0), expected, rtol=0.03, atol=0)


def test_a_goal_that_arrives_leaves_no_error_of_before(error: ForecastError) -> None:
    gains = torch.zeros(H)
    gains[2] = 1.0
    path = follow(error, torch.ones(1, Y), gains)
    assert path[1].mean.all()
    assert not path[2].mean.any() and not path[3].mean.any()


def test_of_a_higher_order_it_goes_on_as_a_seasonal_process_does() -> None:
    """With psi_12 = 1 and phi = 1 the error repeats its changes of twelve steps ago, of a missing step as well."""
    error, steps = ForecastError(1, D, 8, order=13), torch.arange(48.0)
    with torch.no_grad():
        error.persistence.fill_(10.0)
        error.momentum[11] = 1 / SCALE
    season = (torch.sin(steps * torch.pi / 6) + 0.1 * steps)[None, :, None]
    seen = torch.ones_like(season, dtype=torch.bool)
    seen[:, 20] = False
    past = error.last(season[:, :24], seen[:, :24])
    torch.testing.assert_close(past[:, 20, 0], season[:, 20])
    now, x = Error(past[:, -1], past[:, -1]), torch.zeros(1, D)
    for step in range(24, 48):
        now = error(x, torch.zeros(1), now, torch.zeros(1, 1))
        torch.testing.assert_close(now.sample[:, 0], season[:, step], atol=1e-4, rtol=0)
    assert not error(x, torch.ones(1), now, torch.zeros(1, 1)).mean[:, 0].any()


def test_what_comes_first_is_no_change() -> None:
    error = ForecastError(1, D, 8, order=3)
    missed = torch.tensor([0.0, 2.0, 3.0])[None, :, None]
    seen = torch.tensor([False, True, True])[None, :, None]
    assert error.last(missed, seen)[0, :, :, 0].tolist() == [[0, 0, 0], [2, 2, 2], [3, 2, 2]]


def test_the_last_error_is_what_was_missed_and_fades_through_gaps(error: ForecastError) -> None:
    missed = torch.randn(1, C, Y)
    seen = torch.ones(1, C, Y, dtype=torch.bool)
    assert torch.equal(error.last(missed, seen)[:, :, 0], missed)
    seen[0, 1:, 0] = False
    found, phi = error.last(missed, seen)[:, :, 0], error.phi
    torch.testing.assert_close(found[0, :, 0], missed[0, 0, 0] * phi[0] ** torch.arange(C))
    assert torch.equal(found[..., 1], missed[..., 1])
    assert not error.last(missed, torch.zeros_like(seen)).any()


def test_gradients_stay_finite_where_nothing_was_observed(error: ForecastError) -> None:
    missed = torch.full((1, C, Y), torch.nan)
    error.last(missed, torch.zeros(1, C, Y, dtype=torch.bool)).sum().backward()
    assert error.persistence.grad is None or torch.isfinite(error.persistence.grad).all()


def test_a_forecast_starts_at_the_last_observed_value(error: ForecastError) -> None:
    """However little x says of it: with an error that stays, the next value is the last one and the belief's change."""
    head = ValueHead(D, 8, torch.full((Y,), 0.1))
    with torch.no_grad():
        error.persistence.fill_(10.0)
        observed, before, after = torch.randn(1, Y), torch.randn(1, D), torch.randn(1, D)
        last = observed - head(before).mean
        value, _ = Decoder(head, error)(after, torch.zeros(1), Error(last[:, None], last[:, None]), torch.zeros(1, Y))
        torch.testing.assert_close(value.mean, observed + head(after).mean - head(before).mean)
        assert torch.equal(value.mean, value.sample)
