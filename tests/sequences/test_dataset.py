import numpy as np
import pytest

from gssr.sequences import GoalWriter, Record, WindowDataset

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
