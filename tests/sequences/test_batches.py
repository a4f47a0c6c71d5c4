"""Every window comes once an epoch over all processes; each has as many steps, and its state serves any of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

import gssr.sequences.batches as module
from gssr.sequences.batches import DealtBatches, EpochBatches, EpochLoader, steps
from gssr.sequences.collate import collate
from gssr.sequences.dataset import WindowDataset
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Record

WRITER = GoalWriter(numbers={"any": [f"Form {n} {{value}} {{when}}" for n in range(40)]}, class_share=0.0)


@pytest.fixture(autouse=True, scope="module", params=["order in memory", "computed order"])
def _both_orders(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_SHUFFLED", 2**17 if request.param == "order in memory" else 0)
        yield


def ranks(size: int, batch_size: int, world: int, **options) -> list[EpochBatches]:
    return [EpochBatches(size, batch_size, rank=rank, world=world, **options) for rank in range(world)]


def epoch_of(batches: EpochBatches, epoch: int) -> list[list[tuple[int, int]]]:
    batches.set_epoch(epoch)
    return list(batches)


def indices(batches: list[list[tuple[int, int]]]) -> list[int]:
    return [index for batch in batches for _, index in batch]


def test_all_processes_together_see_every_index_once_in_equally_many_steps():
    for size, world, batch_size in itertools.product(range(1, 31), range(1, 6), range(1, 6)):
        if size < world:
            with pytest.raises(ValueError, match=f"{size} windows cannot be shared between {world} processes"):
                EpochBatches(size, batch_size, world=world)
            continue
        case = (size, world, batch_size)
        each = ranks(size, batch_size, world)
        for epoch in range(2):
            seen = [epoch_of(batches, epoch) for batches in each]
            assert {len(part) for part in seen} == {len(batches) for batches in each} == {len(each[0])}, case
            assert sorted(index for part in seen for index in indices(part)) == list(range(size)), case
            assert {e for part in seen for batch in part for e, _ in batch} == {epoch}
            sizes = [[len(part[step]) for part in seen] for step in range(len(each[0]))]
            # No process is without a window, none has more than asked for (but for batches of 1), and parts are even.
            assert all(min(row) >= 1 and max(row) <= max(batch_size, 2 if world > 1 else 1) for row in sizes), case
            assert batch_size == 1 or max(map(max, sizes)) <= batch_size, case
            assert all(max(row) - min(row) <= 1 for row in sizes), case
            assert len(each[0]) <= -(-size // (world * batch_size))


def test_processes_see_together_what_one_sees_in_larger_batches():
    together = zip(*ranks(105, 5, 4, seed=9), strict=True)
    for parts, batch in zip(together, EpochBatches(105, 20, seed=9), strict=True):
        assert sorted(key for part in parts for key in part) == sorted(batch)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_orders_are_new_in_every_epoch_and_depend_on_the_seed(size):
    batches = EpochBatches(size, 3, seed=3)
    epochs = [epoch_of(batches, epoch) for epoch in range(4)]
    if size > 10:
        assert len({tuple(indices(epoch)) for epoch in epochs}) == 4
        assert list(EpochBatches(size, 3, seed=4)) != epochs[0]
    assert list(EpochBatches(size, 3, seed=3)) == epochs[0]


def test_without_shuffling_every_epoch_is_the_first():
    batches = EpochBatches(5, 2, shuffle=False)
    assert epoch_of(batches, 0) == epoch_of(batches, 1) == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)]]


def test_an_unused_iterator_is_no_epoch_and_an_abandoned_one_is():
    keys = loader_of_keys(EpochBatches(5, 1))
    iter(keys), iter(keys)
    begun = iter(keys)
    assert next(begun)[0][0] == 0
    assert {e for batch in keys for e, _ in batch} == {1}


def test_an_epoch_that_is_set_begins_anew_and_one_that_is_set_again_does_not():
    keys = loader_of_keys(EpochBatches(5, 1))
    first = list(keys)
    keys.batch_sampler.set_epoch(3)
    begun = iter(keys)
    assert next(begun)[0][0] == 3
    keys.batch_sampler.set_epoch(3)
    assert [e for batch in begun for e, _ in batch] == [3] * 4
    keys.batch_sampler.set_epoch(0)
    assert list(keys) == first


class Keys(Dataset):
    """Each key is its own sample."""

    def __getitem__(self, key):
        return key


def loader_of_keys(batches: EpochBatches) -> EpochLoader:
    return EpochLoader(Keys(), batches, collate_fn=list)


def stream(batches: EpochBatches, count: int) -> list:
    """What a loader yields in epoch after epoch."""
    keys, found = loader_of_keys(batches), []
    while len(found) < count:
        found += itertools.islice(keys, count - len(found))
    return found


@pytest.mark.parametrize("stop", [0, 2, 3, 4, 6])  # an epoch of 11 in batches of 2 by 2 processes has 3 steps
def test_a_restored_process_goes_on_and_the_state_of_any_serves(stop):
    for rank in range(2):
        whole = stream(EpochBatches(11, 2, 5, rank=rank, world=2), 12)
        other = EpochBatches(11, 2, 5, rank=1 - rank, world=2)
        stream(other, stop)
        resumed = EpochBatches(11, 2, 5, rank=rank, world=2)
        resumed.load_state_dict(other.state_dict())
        assert stream(resumed, 12 - stop) == whole[stop:]


@settings(deadline=None)
@given(
    size=st.integers(12, 60),
    before=st.tuples(st.integers(1, 4), st.integers(1, 7)),
    after=st.tuples(st.integers(1, 4), st.integers(1, 7)),
    percent=st.integers(0, 100),  # no floats: hypothesis wants denormals, which training flushes
)
def test_the_rest_of_an_epoch_in_other_batches_by_other_processes(size, before, after, percent):
    world, batch_size = before
    first = ranks(size, batch_size, world)
    stop = percent * (len(first[0]) - 1) // 100
    seen = [index for batches in first for index in indices(stream(batches, stop))]
    assert len(seen) == first[0].position
    second = ranks(size, after[1], after[0])
    state = first[0].state_dict()
    if 0 < size - len(seen) < after[0]:
        with pytest.raises(ValueError, match=f"resume with at most {size - len(seen)}"):
            second[0].load_state_dict(state)
        return
    for batches in second:
        batches.load_state_dict(state)
    rest = [list(batches) for batches in second]
    assert {len(part) for part in rest} == {steps(size - len(seen), after[1], after[0])}
    assert sorted(seen + [index for part in rest for index in indices(part)]) == list(range(size))


def test_a_state_of_other_data_is_refused():
    with pytest.raises(ValueError, match="5 windows"):
        EpochBatches(6, 1).load_state_dict(EpochBatches(5, 1).state_dict())
    with pytest.raises(ValueError, match="seed"):
        EpochBatches(5, 1, seed=1).load_state_dict(EpochBatches(5, 1).state_dict())
    with pytest.raises(ValueError, match="size"):
        EpochBatches(0, 1)


def test_evaluation_deals_out_the_batches_of_one_process():
    for size, batch_size, world in itertools.product(range(1, 12), range(1, 5), range(1, 6)):
        alone = list(DealtBatches(size, batch_size))
        each = [DealtBatches(size, batch_size, rank, world) for rank in range(world)]
        counted = [(n, batch) for part in each if part.counts for n, batch in zip(part.numbers, part, strict=True)]
        assert [batch for _, batch in sorted(counted)] == alone
        assert [n for n, _ in sorted(counted)] == list(range(len(alone)))
        assert all(len(part) >= 1 and len(list(part)) == len(part) for part in each)  # none is skipped


def windows(count: int) -> list[Record]:
    return [
        Record(f"s{i}", np.arange(4) * 6.0, np.full((4, 1), 50.0 + i), ["x"] * 4, goal_start=1) for i in range(count)
    ]


def loader(workers: int, rank: int = 0, world: int = 1) -> EpochLoader:
    dataset = WindowDataset(windows(11), WRITER, seed=5)
    batches = EpochBatches(11, 3, 5, rank=rank, world=world)
    return EpochLoader(dataset, batches, collate_fn=collate, num_workers=workers)


def content(batch) -> tuple:
    return tuple(batch.series), tuple(batch.goal), batch.value.sum().item()


@pytest.mark.parametrize(
    ("workers", "stops", "rank", "world"), [(0, [1, 3, 4, 5, 9], 0, 1), (2, [2], 0, 1), (0, [1, 2, 3], 1, 2)]
)
def test_a_loader_resumes_in_mid_epoch_with_the_same_batches(workers, stops, rank, world):
    whole, states, source = [], {}, loader(workers, rank, world)
    epoch = len(source)
    for _ in range(3):
        for batch in source:
            whole.append(content(batch))
            if len(whole) in stops:
                states[len(whole)] = source.state_dict()
    assert epoch == -(-11 // (3 * world)) and len(whole) == 3 * epoch and len(set(whole)) == 3 * epoch
    for stop, state in states.items():
        resumed, rest = loader(workers, rank, world), []
        resumed.load_state_dict(state)
        lengths = []
        while len(rest) < 3 * epoch - stop:
            before = len(rest)
            rest += [content(batch) for batch in resumed]
            lengths.append(len(rest) - before)
        assert rest == whole[stop:]
        assert lengths[0] == (-stop % epoch or epoch)  # what was left of the epoch, or all of the next


def test_a_state_taken_after_an_epoch_begins_the_next():
    source = loader(0)
    list(source)
    state = source.state_dict()
    following = [content(batch) for batch in source]
    resumed = loader(0)
    resumed.load_state_dict(state)
    assert [content(batch) for batch in resumed] == following


def test_workers_change_nothing():
    assert [content(batch) for batch in loader(2)] == [content(batch) for batch in loader(0)]
    plain = DataLoader(WindowDataset(windows(11), WRITER, seed=5), 11, collate_fn=collate)
    assert next(iter(plain)).series == [f"s{i}" for i in range(11)]
