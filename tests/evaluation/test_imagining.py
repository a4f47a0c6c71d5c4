"""Rollouts in chunks, and goals borrowed from other series."""

import numpy as np
import pytest
import torch

from gssr.evaluation.imagining import evaluating, imagine, match_donors, pick_evenly, seed_of
from gssr.sequences.collate import collate
from tests.evaluation.fakes import FakeNetwork, series, with_goal


def windows(count: int = 12):
    return [with_goal(r, float(r.value[-1, 0]), float(r.value[-1, 0])) for n in range(count) for r in series(n)]


def test_borrowed_goals_come_from_another_series_that_starts_within_the_tolerance():
    batch = collate(windows())
    kept, chosen = match_donors(batch, batch, dimension=0, tolerance=10.0, seed=0)
    assert len(kept) > 20 and len(set(chosen)) > 10
    start = batch.value[:, 3, 0]
    for row, donor in zip(kept, chosen, strict=True):
        assert batch.series[row] != batch.series[donor]
        assert abs(float(start[row] - start[donor])) <= 10.0


def test_borrowing_is_decided_by_its_seed_and_finds_every_one_that_can_be_served():
    batch = collate(windows())
    assert match_donors(batch, batch, 0, 10.0, seed=1) == match_donors(batch, batch, 0, 10.0, seed=1)
    assert match_donors(batch, batch, 0, 10.0, seed=1) != match_donors(batch, batch, 0, 10.0, seed=2)
    kept = set(match_donors(batch, batch, 0, 1.5)[0])
    start = batch.value[:, 3, 0]
    for row in range(len(batch)):
        near = (start - start[row]).abs() <= 1.5
        alone = all(batch.series[i] == batch.series[row] for i in torch.nonzero(near).flatten().tolist())
        assert (row in kept) != alone


def test_who_has_no_goal_lends_none_and_who_has_no_start_borrows_none():
    records = windows(6)
    records[0].value[3, 0] = np.nan
    for record in records[3:]:
        record.goal = None
    batch = collate(records)
    kept, chosen = match_donors(batch, batch, 0, 1000.0)
    assert 0 not in kept and 0 not in chosen
    assert set(chosen) <= {1, 2}
    assert not {1, 2} & set(kept)  # all goals there are belong to their own series


def test_imagine_is_the_same_for_a_seed_and_covers_all_windows_in_chunks():
    batch, network = collate(windows(4)), FakeNetwork(noise=3.0)
    first = imagine(network, batch, batch.goal, samples=5, seed=7, batch_size=5)
    assert network.calls == [(5, 5), (5, 5), (2, 5)]
    assert first.mean.shape == (5, 12, 8, 2)
    again = imagine(FakeNetwork(noise=3.0), batch, batch.goal, samples=5, seed=7, batch_size=5)
    assert torch.equal(first.sample, again.sample)
    assert not torch.equal(first.sample, imagine(network, batch, batch.goal, 5, seed=8, batch_size=5).sample)
    assert torch.equal(first.select([3, 1]).mean, first.mean[:, [3, 1]])
    exact = imagine(FakeNetwork(), batch, batch.goal, samples=2, seed=7, batch_size=5)
    goals = [float(goal.split()[2]) for goal in batch.goal]
    assert exact.mean[0, :, -1, 0].tolist() == pytest.approx(goals)  # every window under its own goal
    with pytest.raises(ValueError, match="12 sequences"):
        imagine(network, batch, ["Be at 40 kt"], samples=5, seed=7)


def test_evaluating_puts_mode_gradients_and_random_numbers_back():
    class Network(torch.nn.Module):
        device = torch.device("cpu")

    network = Network()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with evaluating(network, seed=5):
        assert not network.training and not torch.is_grad_enabled()
        inside = torch.rand(3)
    assert network.training and torch.is_grad_enabled()
    assert torch.equal(torch.rand(3), expected)
    with evaluating(network, seed=5):
        assert torch.equal(torch.rand(3), inside)


def test_seeds_of_different_purposes_differ():
    seeds = {seed_of(s, *parts) for s in (0, 1) for parts in (("a",), ("b",), ("a", 1), ("a", 2), ())}
    assert len(seeds) == 10


def test_pick_evenly_spans_all():
    assert pick_evenly(5, 9) == [0, 1, 2, 3, 4]
    picked = pick_evenly(1000, 100)
    assert len(set(picked)) == 100 and picked[0] == 0 and picked[-1] == 999
    assert max(np.diff(picked)) <= 11
