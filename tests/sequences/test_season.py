"""A season is found where values have one, in their changes, and nowhere else."""

import numpy as np
import pytest

from gssr.sequences.season import find_season


def noise(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=rows)


def season(period: int, rows: int, size: float) -> np.ndarray:
    return np.tile(size * noise(period, 9), rows // period + 1)[:rows]


@pytest.mark.parametrize("period", [4, 7, 12, 24])
@pytest.mark.parametrize("trend", [0.0, 0.05, 3.0], ids=["level", "rising", "steep"])
def test_a_season_is_found_on_any_trend(period: int, trend: float) -> None:
    value = season(period, 300, 2.0) + 0.5 * noise(300) + trend * np.arange(300)
    assert find_season(value) == period == find_season(value, named=period)


@pytest.mark.parametrize("seed", range(20))
def test_a_random_walk_and_noise_have_none(seed: int) -> None:
    for value in (noise(200, seed), noise(200, seed).cumsum()):
        assert find_season(value) is None


def test_the_season_of_the_calendar_is_taken_where_it_is_there() -> None:
    value = season(7, 400, 1.0) + 0.7 * noise(400)
    assert find_season(value, named=7) == 7 == find_season(value, named=5)
    assert find_season(noise(400).cumsum(), named=7) is None


def test_missing_values_jumps_and_short_series() -> None:
    value = season(12, 360, 2.0) + 0.3 * noise(360)
    value[[50, 200]] += 500.0
    value[100:140] = np.nan
    value[:3] = np.nan
    assert find_season(value) == 12
    for short in (np.zeros(0), np.full(5, np.nan), np.arange(6.0), np.ones(100)):
        assert find_season(short, named=4) is None
