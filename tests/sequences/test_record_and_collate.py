import numpy as np
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device

from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record


def record(steps: int, name: str = "a", **changes) -> Record:
    value = np.arange(steps * 2, dtype=np.float32).reshape(steps, 2) + 1
    defaults = {
        "series": name,
        "time": np.arange(steps) * 6.0,
        "value": value,
        "text": [f"{name}{t}" for t in range(steps)],
    }
    return Record(**(defaults | changes))


def test_defaults_are_a_silent_goal_at_the_last_step():
    r = record(5)
    assert (r.goal, r.goal_start, r.goal_step) == (None, 0, 4)
    assert np.isnan(r.goal_low).all() and r.goal_low.dtype == r.value.dtype == np.float32 and r.time.dtype == np.float64


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"time": np.arange(4)}, "shape"),
        ({"time": np.array([0.0, 6, 6, 12, 18])}, "increase"),
        ({"time": np.array([0.0, 6, np.nan, 12, 18])}, "increase"),
        ({"value": np.zeros(5)}, "shape"),
        ({"value": np.full((5, 2), np.inf)}, "infinities"),
        ({"text": ["x"]}, "texts"),
        ({"step_label": ["x"]}, "labels"),
        ({"goal_step": 5}, "goal_step"),
        ({"goal_start": 3, "goal_step": 2}, "goal_step"),
        ({"goal": "be", "goal_start": 4}, "after goal_start"),
        ({"goal_low": np.zeros(1), "goal_high": np.zeros(1)}, "dimensions"),
        ({"goal_low": np.array([2.0, 0]), "goal_high": np.array([1.0, 0])}, "goal_low"),
        ({"goal_low": np.array([2.0, np.nan]), "goal_high": np.array([3.0, 1])}, "silent"),
    ],
)
def test_records_that_do_not_fit_together_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        record(5, **changes)


def test_collation_pads_on_the_right_and_masks_what_is_missing():
    short = record(2, "b", step_label=["x", "y"])
    long = record(4, "c", goal="be", goal_start=1, goal_low=np.array([3, np.nan]), goal_high=np.array([4, np.nan]))
    long.step_label = ["p", "q", "r", "s"]
    long.value[2, 1] = np.nan
    long.text[3] = None
    batch = collate([short, long])
    assert len(batch) == 2 and batch.series == ["b", "c"]
    assert batch.step_mask.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.value_mask.tolist() == [
        [[True, True], [True, True], [False, False], [False, False]],
        [[True, True], [True, True], [True, False], [True, True]],
    ]
    assert batch.value.tolist() == [[[1, 2], [3, 4], [0, 0], [0, 0]], [[1, 2], [3, 4], [5, 0], [7, 8]]]
    assert batch.time.tolist() == [[0, 6, 6, 6], [0, 6, 12, 18]] and batch.time.dtype == torch.float64
    assert batch.text == [["b0", "b1", None, None], ["c0", "c1", "c2", None]]
    assert batch.step_label == [["x", "y", "", ""], ["p", "q", "r", "s"]]
    assert batch.goal == [None, "be"] and batch.goal_start.tolist() == [0, 1] and batch.goal_step.tolist() == [1, 3]
    assert batch.context.tolist() == [1, 2]
    assert batch.goal_low.isnan().tolist() == [[True, True], [False, True]] and batch.goal_high[1, 0] == 4
    assert collate([record(2), short]).step_label is None


def test_collation_does_not_depend_on_the_rest_of_the_batch():
    records = [record(n, str(n)) for n in (3, 5, 2)]
    together = collate(records)
    for row, r in enumerate(records):
        alone = collate([r])
        assert torch.equal(together.value[row, : len(r)], alone.value[0])
        assert torch.equal(together.value_mask[row, : len(r)], alone.value_mask[0])
        assert not together.value_mask[row, len(r) :].any()


def test_collate_refuses_nothing_and_mixtures():
    with pytest.raises(ValueError, match="no records"):
        collate([])
    with pytest.raises(ValueError, match="dimensions"):
        collate([record(2), record(2, value=np.zeros((2, 3)))])


def test_select_and_with_goals_leave_the_batch_alone():
    batch = collate([record(3, name) for name in "abc"])
    picked = batch.select([2, 0, 0])
    assert picked.series == ["c", "a", "a"] and picked.text[0] == ["c0", "c1", "c2"] and picked.value.shape == (3, 3, 2)
    assert torch.equal(picked.goal_step, batch.goal_step) and picked.step_label is None
    assert torch.equal(batch.select(torch.tensor([1])).value[0], batch.value[1])
    low, high = torch.ones(3, 2), torch.full((3, 2), 2.0)
    other = batch.with_goals(["x", None, "y"], low, high)
    assert other.goal == ["x", None, "y"] and torch.equal(other.goal_high, high) and other.value is batch.value
    assert batch.goal == [None] * 3 and batch.goal_low.isnan().all()
    with pytest.raises(ValueError, match="with_goals"):
        batch.with_goals(["x"], low, high)


def test_lightning_moves_a_batch():
    moved = move_data_to_device(collate([record(2)]), torch.device("meta"))
    assert isinstance(moved, Batch) and moved.value.device.type == moved.goal_step.device.type == "meta"
    assert moved.text == [["a0", "a1"]]
