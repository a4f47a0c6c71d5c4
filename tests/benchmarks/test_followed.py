"""What the benchmark of followed goals computes of its own."""

import numpy as np
import pytest
import torch

from benchmarks.goals.followed import ALL, LOOSE, NAMED, Found, above, borrowed, rows
from benchmarks.goals.follower import METHODS, Ensemble, scores
from benchmarks.goals.linear import LinearGaussian
from gssr.sequences.collate import collate
from gssr.sequences.record import Record

C, H = 3, 2


def window(series: str, start: float, end: float) -> Record:
    value = np.linspace(start, end, C + H, dtype=np.float32)[:, None]
    value[:C] = start
    bound = value[-1]
    times = 6.0 * np.arange(C + H)
    return Record(series, times, value, [None] * (C + H), f"reach {end}", bound, bound, goal_start=C - 1)


def test_a_goal_is_borrowed_from_another_series_with_the_nearest_start() -> None:
    records = [window("a", 10, 20), window("a", 11, 40), window("b", 30, 50), window("c", 12, 60)]
    lent = borrowed(records)
    assert [record.goal for record in lent] == ["reach 60", "reach 60", "reach 60", "reach 40"]
    assert [record.goal_low[0] for record in lent] == [60, 60, 60, 40]
    assert all(np.array_equal(a.value, b.value) for a, b in zip(records, lent, strict=True))


def test_how_often_a_true_goal_is_likelier_counts_ties_half() -> None:
    pairs = [(0.5, 0.1), (0.2, 0.2), (0.1, 0.3)]
    assert above(pairs) == 0.5
    assert above(pairs, every=True) == pytest.approx((1 + 1 + 1 + 1 + 0.5 + 0 + 0.5 + 0 + 0) / 9)


def test_a_linear_autoregression_draws_errors_as_they_were() -> None:
    generator = np.random.default_rng(0)
    walks = generator.normal(0, 1, (800, C + H, 1)).cumsum(1).astype(np.float32)
    times = 6.0 * np.arange(C + H)
    windows = [Record(f"{i}", times, walk, [None] * (C + H), goal_start=C - 1) for i, walk in enumerate(walks)]
    linear, batch = LinearGaussian(windows), collate([windows[0]])
    paths = linear.paths(batch, 4000, torch.Generator().manual_seed(0))[..., 0]
    assert paths.mean(0) == pytest.approx([walks[0, C - 1, 0]] * H, abs=0.2)
    assert torch.cov(paths.T).flatten().tolist() == pytest.approx([1, 1, 1, 2], abs=0.2)  # of a random walk


def test_a_fan_is_stretched_around_its_weighted_median() -> None:
    paths = torch.tensor([0.0, 1.0, 2.0, 30.0]).view(4, 1, 1)
    fan = Ensemble(paths, torch.tensor([0.25, 0.5, 0.25, 0.0])).stretched(torch.tensor([[0.5]]))
    assert fan.paths.flatten()[:3].tolist() == [0.5, 1.0, 1.5]


def test_goals_whose_words_name_no_step_are_told_apart() -> None:
    record, found = window("a", 10, 20), Found()
    paths = torch.tensor(record.value[C:]) + torch.linspace(-1, 1, 5).view(5, 1, 1)
    for goal in ("Reach 20 in 12 hours", "Reach 20 within 12 hours"):
        for method in METHODS:
            for name, value in scores({method: Ensemble.equal(paths)}, record, torch.ones(1), ["y"])[method].items():
                found.add(goal, method, name, value)
    assert LOOSE.search("Reach 20 over the next day") and not LOOSE.search("Reach overnight 20")
    assert [len(found.scores[group]["pull"]["hit"]) for group in (ALL, NAMED)] == [2, 1]
    line = rows([found], ALL)[1]
    assert line["paths"] == "pull" and line["hit"] == "100 %" and line["in 80 %"] == "100 %"
    assert rows([found, found], ALL)[0]["hit"] == "100 % (100–100)"
