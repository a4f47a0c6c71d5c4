"""Which futures a plan tells: the typical one first, then others that stand for the rest, each with its own words."""

from pathlib import Path

import pytest
import torch

from gssr.network.futures import representatives
from gssr.sequences.collate import collate
from tests.network.test_prompts import prompting, record


def test_each_group_of_rollouts_has_one_that_is_told() -> None:
    centres = torch.tensor([0.0] * 6 + [10.0] * 3 + [-9.0] * 2)
    points = (centres + 0.01 * torch.arange(11.0))[:, None, None].expand(-1, 2, 3).clone()
    points[:, 1] = points[:, 1].flip(0)  # the other sequence has them in another order
    chosen, share = representatives(points, 3)
    assert chosen.shape == share.shape == (3, 2)
    found = points[chosen, torch.arange(2)][..., 0].round()
    assert found[0].tolist() == [0, 0] and sorted(found[:, 0].tolist()) == sorted(found[:, 1].tolist()) == [-9, 0, 10]
    assert torch.allclose(share.sum(0), torch.ones(2)) and share[0, 0] == 6 / 11
    typical = (points - points.mean(0)).square().sum(-1).argmin(0)
    assert torch.equal(chosen[0], typical) and torch.equal(representatives(points, 1)[0][0], typical)


def test_all_rollouts_can_be_told_and_none_twice() -> None:
    chosen, share = representatives(torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)), 4)
    assert chosen.sort(0).values.T.tolist() == [[0, 1, 2, 3]] * 3 and torch.equal(share, torch.full((4, 3), 0.25))
    chosen, share = representatives(torch.zeros(3, 2, 5), 3)  # all alike
    assert chosen.sort(0).values.T.tolist() == [[0, 1, 2]] * 2 and share.sum(0).tolist() == [1, 1]


def test_futures_have_own_words_and_the_first_is_the_plan(tiny_folder: Path) -> None:
    net = prompting(tiny_folder, history=1)
    batch = collate([record(["one", "two", None, None]), record(["one", None, None, None])])
    alone = net.plan(batch, [None, None], samples=6)
    net.forecaster.told = 3
    plan = net.plan(batch, [None, None], samples=6)
    assert plan.text == alone.text == plan.futures[0].text and torch.equal(plan.spoken, alone.spoken)
    assert len(plan.futures) == 3 and len(alone.futures) == 1 and alone.futures[0].share.tolist() == [1, 1]
    for future in plan.futures:
        assert [len(texts) for texts in future.text] == [2, 2]
        assert torch.equal(future.values, plan.rollouts.mean[future.rollout, torch.arange(2)])
    assert not net.plan(batch, [None, None], samples=6, texts=False).futures
    net.forecaster.told = 7
    with pytest.raises(ValueError, match="7 futures are to be told of 6 rollouts"):
        net.plan(batch, [None, None], samples=6)
