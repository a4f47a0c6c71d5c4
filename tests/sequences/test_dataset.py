import copy

import numpy as np
import pytest
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from gssr.sequences import EpochSampler, GoalWriter, Record, WindowDataset, collate

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


@pytest.mark.parametrize("size", [1, 7, 100])
def test_the_sampler_visits_every_index_once_an_epoch_in_new_orders(size):
    sampler = EpochSampler(size, seed=3)
    epochs = [list(sampler) for _ in range(4)]
    for epoch, keys in enumerate(epochs):
        assert [e for e, _ in keys] == [epoch] * size and sorted(i for _, i in keys) == list(range(size))
    if size > 10:
        assert len({tuple(i for _, i in keys) for keys in epochs}) == 4
        assert list(EpochSampler(size, seed=4)) != epochs[0]
    assert list(EpochSampler(size, seed=3)) == epochs[0] and len(sampler) == size
    assert [i for _, i in EpochSampler(size, shuffle=False)] == list(range(size))


def test_an_untouched_iterator_is_no_epoch_and_an_abandoned_one_is():
    sampler = EpochSampler(5)
    iter(sampler), iter(sampler)
    begun = iter(sampler)
    assert next(begun)[0] == 0
    assert {e for e, _ in sampler} == {1}


@pytest.mark.parametrize("taken", [0, 3, 5, 6, 10])
def test_a_restored_sampler_goes_on(taken):
    def stream(sampler, count):
        keys = []
        while len(keys) < count:
            for key in sampler:
                keys.append(key)
                if len(keys) == count:
                    break
        return keys

    whole = stream(EpochSampler(5, seed=2), 20)
    first = EpochSampler(5, seed=2)
    assert stream(first, taken) == whole[:taken]
    second = EpochSampler(5, seed=2)
    second.load_state_dict(first.state_dict())
    assert stream(second, 20 - taken) == whole[taken:]


def test_a_state_of_other_data_is_refused():
    with pytest.raises(ValueError, match="5 windows"):
        EpochSampler(6).load_state_dict(EpochSampler(5).state_dict())
    with pytest.raises(ValueError, match="seed"):
        EpochSampler(5, seed=1).load_state_dict(EpochSampler(5).state_dict())
    with pytest.raises(ValueError, match="size"):
        EpochSampler(0)


def loader(workers: int) -> StatefulDataLoader:
    dataset = WindowDataset(windows(11), WRITER, seed=5)
    return StatefulDataLoader(dataset, 3, sampler=EpochSampler(11, 5), collate_fn=collate, num_workers=workers)


def content(batch) -> tuple:
    return tuple(batch.series), tuple(batch.goal), batch.value.sum().item()


@pytest.mark.filterwarnings("ignore:'set_vital'")
@pytest.mark.parametrize(("workers", "stops"), [(0, [1, 3, 4, 5, 9]), (2, [2])])
def test_a_loader_resumes_in_mid_epoch_with_the_same_batches(workers, stops):
    whole, states, source = [], {}, loader(workers)
    for _ in range(3):  # epochs of 4 batches
        for batch in source:
            whole.append(content(batch))
            if len(whole) in stops:
                states[len(whole)] = copy.deepcopy(source.state_dict())
    assert len(whole) == 12 and len(set(whole)) == 12
    for stop, state in states.items():
        resumed, rest = loader(workers), []
        resumed.load_state_dict(state)
        lengths = []
        while len(rest) < 12 - stop:
            before = len(rest)
            rest += [content(batch) for batch in resumed]
            lengths.append(len(rest) - before)
        assert rest == whole[stop:]
        assert lengths[0] == -stop % 4  # what was left of the epoch, nothing of the next


@pytest.mark.filterwarnings("ignore:'set_vital'")
def test_a_state_taken_after_an_epoch_begins_the_next():
    source = loader(0)
    list(source)
    state = source.state_dict()
    following = [content(batch) for batch in source]
    resumed = loader(0)
    resumed.load_state_dict(state)
    assert [content(batch) for batch in resumed] == following


@pytest.mark.filterwarnings("ignore:'set_vital'")
def test_workers_change_nothing():
    assert [content(batch) for batch in loader(2)] == [content(batch) for batch in loader(0)]
    plain = DataLoader(WindowDataset(windows(11), WRITER, seed=5), 11, collate_fn=collate)
    assert next(iter(plain)).series == [f"s{i}" for i in range(11)]
