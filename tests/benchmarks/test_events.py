"""What the benchmark of events computes of its own."""

import numpy as np
import pytest
import torch

from benchmarks.goals.events import calibration_error, chances, features, truths
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
