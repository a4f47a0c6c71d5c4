"""Baselines against numpy, known systems and paths worked out by hand."""

import numpy as np
import pytest
import torch

from gssr.evaluation.baselines import LinearAutoregression, persistence, straight_line
from gssr.sequences.collate import collate
from gssr.sequences.record import Record
from tests.evaluation.fakes import series, with_goal


def record(value: np.ndarray, context: int, name: str = "a", **changes) -> Record:
    steps = len(value)
    return Record(name, np.arange(steps), value, [None] * steps, goal_start=context - 1, goal_step=steps - 1, **changes)


def linear_system(count: int, context: int = 3, horizon: int = 4, noise: float = 0.0) -> list[Record]:
    """v' = A v + b + noise, from random starts."""
    generator = np.random.default_rng(0)
    a, b = np.array([[0.9, 0.2], [-0.3, 0.8]]), np.array([1.0, -2.0])
    records = []
    for n in range(count):
        path = [generator.normal(0, 10, 2)]
        for _ in range(context + horizon - 1):
            path.append(a @ path[-1] + b + noise * generator.normal(size=2))
        records.append(record(np.array(path), context, f"s{n}"))
    return records


def test_autoregression_recovers_a_linear_system():
    windows = linear_system(80)
    fitted = LinearAutoregression().fit(windows[:60])
    held_out = collate(windows[60:])
    torch.testing.assert_close(fitted.predict(held_out), held_out.value[:, 3:], atol=1e-3, rtol=1e-4)


def test_autoregression_is_numpy_least_squares():
    train, test = linear_system(200, noise=2.0)[:150], linear_system(200, noise=2.0)[150:]
    values = np.stack([w.value for w in train]).astype(np.float64)
    inputs = np.concatenate([values[:, :3].reshape(150, -1), np.ones((150, 1))], axis=1)
    weights = np.linalg.lstsq(inputs, values[:, 3:].reshape(150, -1), rcond=None)[0]
    new = np.stack([w.value[:3] for w in test]).astype(np.float64).reshape(50, -1)
    expected = (np.concatenate([new, np.ones((50, 1))], axis=1) @ weights).reshape(50, 4, 2)
    predicted = LinearAutoregression().fit(train).predict(collate(test))
    np.testing.assert_allclose(predicted.numpy(), expected, atol=1e-4)


def test_ridge_shrinks_towards_the_mean_of_the_targets():
    windows = collate(linear_system(100, noise=1.0))
    shrunk = LinearAutoregression(ridge=1e6).fit(windows).predict(windows)
    mean = windows.value[:, 3:].mean(0)
    torch.testing.assert_close(shrunk, mean.expand_as(shrunk), atol=0.05, rtol=0)


def test_missing_inputs_are_the_last_observation_and_missing_targets_leave_their_row_out():
    windows = linear_system(60)
    gap, filled = linear_system(61)[60].value.copy(), linear_system(61)[60].value.copy()
    gap[2, 1], filled[2, 1] = np.nan, filled[1, 1]
    fitted = LinearAutoregression().fit(windows)
    torch.testing.assert_close(fitted.predict(collate([record(gap, 3)])), fitted.predict(collate([record(filled, 3)])))
    spoiled = linear_system(60)
    for window in spoiled[:5]:
        window.value[4, 0] = np.nan  # one target of a noiseless system: the fit must stay exact
    held_out = collate(linear_system(80)[60:])
    torch.testing.assert_close(
        LinearAutoregression().fit(spoiled).predict(held_out), held_out.value[:, 3:], atol=1e-3, rtol=1e-4
    )


def test_autoregression_says_what_is_wrong():
    batch = collate(linear_system(10))
    with pytest.raises(ValueError, match="fit"):
        LinearAutoregression().predict(batch)
    with pytest.raises(ValueError, match="same lengths"):
        LinearAutoregression().fit(linear_system(10, horizon=2)).predict(batch)
    with pytest.raises(ValueError, match="one context length"):
        persistence(collate([series(1, context=3)[0], series(2, context=4)[0]]))


def test_persistence_repeats_the_last_observation():
    value = np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, np.nan], [9.0, 9.0], [9.0, 9.0]])
    path = persistence(collate([record(value, 3)]))
    assert path[0, :, 0].tolist() == [2.0, 2.0]
    assert path[0, :, 1].isnan().all()


@pytest.mark.parametrize(
    ("low", "high", "end"),
    [(60.0, 60.0, 60.0), (96.0, 112.0, 96.0), (10.0, 33.0, 33.0), (34.0, 63.0, 40.0)],
    ids=["number", "class above", "class below", "inside stays"],
)
def test_straight_line_goes_to_the_nearest_point_of_the_goal(low, high, end):
    value = np.tile([[40.0, 1000.0]], (6, 1))
    path = straight_line(collate([with_goal(record(value, 2), low, high)]))
    np.testing.assert_allclose(path[0, :, 0], 40 + (end - 40) * np.arange(1, 5) / 4, rtol=1e-6)
    assert (path[0, :, 1] == 1000).all()  # the goal is silent about it


def test_straight_line_arrives_at_the_goal_step_and_stays():
    goal = with_goal(record(np.full((8, 2), 40.0), 2), 60.0, 60.0)
    goal.goal_step = 5
    assert straight_line(collate([goal]))[0, :, 0].tolist() == [45.0, 50.0, 55.0, 60.0, 60.0, 60.0]
