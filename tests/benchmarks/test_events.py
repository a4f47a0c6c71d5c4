"""What the benchmark of events computes of its own."""

import numpy as np
import pytest
import torch

from benchmarks.goals.events import calibration_error, chances, error_of_right_chances, features, places, truths
from gssr.sequences.conditions import Condition
from gssr.sequences.record import Record
from tests.search.test_rejection import Walk

EVENTS = [Condition(text, ["y"], ["m"]) for text in ("y >= 3 within 2", "y +1 at 1", "y >= 9 at 2")]


def window(values: list[float]) -> Record:
    value = np.array(values, np.float32)[:, None]
    return Record("a", 6.0 * np.arange(len(value)), value, [None] * len(value), goal_start=2)


def test_the_error_is_the_distance_of_chance_and_share_in_each_bin() -> None:
    chance, true = np.array([0.12, 0.18, 0.92, 0.98]), np.array([0.0, 1.0, 1.0, 1.0])
    assert calibration_error(chance, true) == pytest.approx((abs(0.30 - 1) + abs(1.90 - 2)) / 4)
    assert calibration_error(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0


def test_right_chances_err_more_where_windows_come_true_together() -> None:
    assert error_of_right_chances(np.array([0.0, 1.0]), np.array([0, 1])) == 0
    chance = np.full(400, 0.5)
    alone, together = (error_of_right_chances(chance, place) for place in (np.arange(400), np.arange(400) // 16))
    assert alone == pytest.approx(0.5 * (2 / np.pi / 400) ** 0.5, rel=0.2)  # of the mean of 400 coins
    assert together == pytest.approx(4 * alone, rel=0.2)
    found = places([window([0, 1, 2, 0, 0]), window([1, 1, 2, 0, 0])])
    assert found[0] == found[1]


def test_truths_are_read_off_what_came() -> None:
    found = truths([window([0, 1, 2, 4, 1]), window([0, 1, 2, np.nan, 1]), window([0, 1, 2, 3])], EVENTS)
    np.testing.assert_array_equal(found, [[1, 1, 0], [np.nan, np.nan, 0], [np.nan, 1, np.nan]])


def test_chances_are_shares_of_rollouts() -> None:
    found = chances(Walk(), [window([0, 1, 2, 0, 0])] * 40, EVENTS, seed=0)
    assert found.shape == (40, 3)
    rises = 1 - torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(1.0)).item()
    assert found[:, 1].mean() == pytest.approx(rises, abs=0.01)


def test_features_are_values_changes_and_squares() -> None:
    np.testing.assert_allclose(features(window([1, 4, 6, 0, 0])), [6, 2, 5, 5, 36, 4, 25, 25])
