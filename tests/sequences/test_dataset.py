import numpy as np
import pytest

from gssr.sequences.dataset import WindowDataset
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Record

WRITER = GoalWriter(numbers={"any": [f"Form {n} {{value}} {{when}}" for n in range(40)]}, class_share=0.0)


def windows(count: int) -> list[Record]:
    return [
        Record(f"s{i}", np.arange(4) * 6.0, np.full((4, 1), 50.0 + i), ["x"] * 4, goal_start=1) for i in range(count)
    ]


def test_a_goal_depends_on_seed_epoch_and_index_alone():
    dataset = WindowDataset(windows(8), WRITER, seed=1)
    goals = {(e, i): dataset[e, i].goal for e in range(3) for i in range(8)}
    assert {key: dataset[key].goal for key in reversed(goals)} == goals
    assert [dataset[i].goal for i in range(8)] == [goals[0, i] for i in range(8)]
    assert sum(goals[0, i] != goals[1, i] for i in range(8)) > 5
    assert sum(WindowDataset(windows(8), WRITER, seed=2)[i].goal != goals[0, i] for i in range(8)) > 5
    assert dataset[-1].series == "s7"
    with pytest.raises(IndexError):
        dataset[8]


def test_goals_repeat_after_a_cycle():
    dataset = WindowDataset(windows(8), WRITER, goal_cycle=3)
    for i in range(8):
        goals = [dataset[e, i].goal for e in range(9)]
        assert goals == goals[:3] * 3 and len(set(goals)) > 1


def test_without_a_writer_the_goal_of_the_record_stays():
    record = windows(1)[0]
    record.goal = "typed"
    assert WindowDataset([record])[4, 0].goal == "typed"
    with pytest.raises(ValueError, match="mode"):
        WindowDataset([record], mode="test")
    with pytest.raises(ValueError, match="seed"):
        WindowDataset([record], seed=-1)


def test_a_window_is_at_another_level_in_each_epoch_and_its_goal_is_true_there():
    records = [
        Record(
            "s",
            np.arange(4) * 6.0,
            np.array([[40.0, 2, 7], [50, 3, 8], [np.nan, 4, 9], [60, 5, 10]]),
            ["x"] * 4,
            goal_start=1,
        )
    ]
    dataset = WindowDataset(records, WRITER, seed=3, level_jitter=0.3, known_values=1)
    factors = []
    for epoch in range(200):
        window = dataset[epoch, 0]
        factor = window.value[0, 0] / 40
        np.testing.assert_allclose(window.value[:, :2], records[0].value[:, :2] * factor, rtol=1e-6)
        np.testing.assert_array_equal(window.value[:, 2], records[0].value[:, 2])
        if window.goal is not None:
            assert window.goal_low[0] <= window.value[3, 0] + 2.5 and window.goal_high[0] >= window.value[3, 0] - 2.5
        factors.append(factor)
    logs = np.log(factors)
    assert abs(logs.mean()) < 0.07 and 0.25 < logs.std() < 0.35
    assert dataset[5, 0].value[0, 0] == 40 * factors[5]
    assert records[0].value[0, 0] == 40
    plain = WindowDataset(records, WRITER, seed=3)
    assert plain[5, 0].value[0, 0] == 40


def test_levels_repeat_with_the_goals_of_a_cycle():
    dataset = WindowDataset(windows(2), WRITER, goal_cycle=2, level_jitter=0.5)
    assert [(dataset[e, 1].goal, dataset[e, 1].value[0, 0]) for e in range(2)] == [
        (dataset[e + 2, 1].goal, dataset[e + 2, 1].value[0, 0]) for e in range(2)
    ]


@pytest.mark.parametrize("jitter", [-0.1, float("nan"), float("inf")])
def test_a_spread_of_levels_that_is_none_is_refused(jitter: float):
    with pytest.raises(ValueError, match="level_jitter"):
        WindowDataset(windows(1), WRITER, level_jitter=jitter)
