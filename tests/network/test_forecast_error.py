"""The error of a forecast: starts at what was last missed, fades, spreads as an AR(1) process does, and ends at a goal."""

import pytest
import torch

from gssr.network.forecast_error import ForecastError

T, C, Y, D = 9, 3, 2, 4


@pytest.fixture
def error() -> ForecastError:
    torch.manual_seed(0)
    return ForecastError(Y, D, 8)


def seen(rows: int) -> torch.Tensor:
    return (torch.arange(T) < C)[None, :, None].expand(rows, T, Y)


def test_mean_fades_geometrically_from_the_last_miss(error: ForecastError) -> None:
    missed = torch.randn(1, T, Y)
    mean, _ = error(torch.randn(1, T, D), missed, seen(1), torch.zeros(1, T), torch.randn(1, T, Y))
    phi = error.phi.detach()
    assert torch.equal(mean[:, :C], missed[:, :C])
    for step in range(C, T):
        torch.testing.assert_close(mean[0, step], missed[0, C - 1] * phi ** (step - C + 1))


def test_what_is_missed_after_the_context_changes_nothing(error: ForecastError) -> None:
    x, noise, missed = torch.randn(1, T, D), torch.randn(1, T, Y), torch.randn(1, T, Y)
    other = torch.where(seen(1), missed, torch.full_like(missed, torch.nan))
    for one, two in zip(
        error(x, missed, seen(1), torch.zeros(1, T), noise),
        error(x, other, seen(1), torch.zeros(1, T), noise),
        strict=True,
    ):
        assert torch.equal(one, two)


def test_spread_is_that_of_an_autoregressive_process(error: ForecastError) -> None:
    """Variance after k steps: s² (1 - phi^2k) / (1 - phi²) (Hamilton 1994, equation 3.4.5 for the sum of k innovations)."""
    rows = 20_000
    x = torch.randn(1, 1, D).expand(rows, T, D)
    with torch.no_grad():
        mean, sample = error(x, torch.zeros(rows, T, Y), seen(rows), torch.zeros(rows, T), torch.randn(rows, T, Y))
        phi = error.phi.detach()
        first = (sample - mean)[:, C].std(0)
    for step in range(C, T):
        expected = first * ((1 - phi ** (2 * (step - C + 1))) / (1 - phi**2)).sqrt()
        torch.testing.assert_close((sample - mean)[:, step].std(0), expected, rtol=0.03, atol=0)


def test_a_gap_before_the_context_ends_lets_the_error_fade(error: ForecastError) -> None:
    given = seen(1).clone()
    given[0, C - 1, 0] = False
    missed = torch.ones(1, T, Y)
    mean, _ = error(torch.randn(1, T, D), missed, given, torch.zeros(1, T), torch.zeros(1, T, Y))
    phi = error.phi.detach()
    torch.testing.assert_close(mean[0, C], torch.stack([phi[0] ** 2, phi[1]]))


def test_never_seen_is_no_error(error: ForecastError) -> None:
    nothing = torch.zeros(1, T, Y, dtype=torch.bool)
    mean, _ = error(torch.randn(1, T, D), torch.ones(1, T, Y), nothing, torch.zeros(1, T), torch.zeros(1, T, Y))
    assert not mean.any()


def test_a_goal_that_arrives_leaves_no_error_of_before(error: ForecastError) -> None:
    gain = torch.zeros(1, T)
    gain[0, C + 2] = 1.0
    mean, _ = error(torch.randn(1, T, D), torch.ones(1, T, Y), seen(1), gain, torch.zeros(1, T, Y))
    assert mean[0, C + 1].all()
    assert not mean[0, C + 2 :].any()


def test_gradients_stay_finite_where_nothing_was_observed(error: ForecastError) -> None:
    x = torch.randn(1, T, D, requires_grad=True)
    missed = torch.full((1, T, Y), torch.nan)
    given = torch.zeros(1, T, Y, dtype=torch.bool)
    sum(part.sum() for part in error(x, missed, given, torch.zeros(1, T), torch.randn(1, T, Y))).backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(error.persistence.grad).all()
