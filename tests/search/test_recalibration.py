"""Corrections of chances: against a network whose chances are known, and known to be wrong."""

import numpy as np
import pytest
import torch

from gssr.search.beliefs import Chance, Corrected, Recalibration, recalibrate
from gssr.sequences.record import Record
from tests.search.test_rejection import Walk

DRIFT = 1.0  # that the network does not know of


def windows(count: int, drift: float, horizon: int = 1) -> list[Record]:
    """Values that were 0, 1 or 2 and go on with a drift."""
    random, found = np.random.default_rng(0), []
    for number in range(count):
        start = float(number % 3)
        path = start + (drift + random.standard_normal(horizon)).cumsum()
        value = np.concatenate([[start], path]).astype(np.float32)[:, None]
        found.append(Record("a", 6.0 * np.arange(len(value)), value, [None] * len(value), goal_start=0))
    return found


def test_a_wrong_chance_is_corrected_to_what_came_true() -> None:
    normal = torch.distributions.Normal(0.0, 1.0)
    (found,) = recalibrate(Walk(), windows(512, DRIFT), ["y >= 2 at 1"])
    assert found.windows == 512 and 0 < found.came_true < 512
    for start in (0.0, 1.0, 2.0):
        own, truth = (1 - normal.cdf(torch.tensor(2.0 - start - drift)).item() for drift in (0.0, DRIFT))
        assert abs(found(own) - truth) < 0.07 < abs(own - truth)


def test_a_right_chance_stays_and_order_is_kept() -> None:
    (found,) = recalibrate(Walk(), windows(512, 0.0), ["y >= 2 at 1"])
    chances = np.linspace(0.001, 0.999, 50)
    corrected = [found(p) for p in chances]
    assert np.all(np.diff(corrected) > 0)
    assert max(abs(q - p) for p, q in zip(chances, corrected, strict=True) if 0.02 <= p <= 0.5) < 0.06
    assert found(0.0) == 0.0 and found(1.0) == 1.0


def test_without_evidence_nothing_is_changed_and_windows_that_overlap_count_less() -> None:
    p, y = torch.full((40,), 0.2), torch.arange(40) % 2 == 0
    assert Recalibration.fit(p, y, 0.0)(0.3) == pytest.approx(0.3, abs=1e-6)
    few, all_ = (Recalibration.fit(p, y, independent)(0.2) for independent in (4, 40))
    assert 0.2 < few < all_ < 0.5


def test_the_likeliest_numbers_are_found() -> None:
    random = torch.Generator().manual_seed(0)
    p = torch.rand(20_000, generator=random) * 0.98 + 0.01
    truth = Recalibration(0.5, 1.5, 0.7, 0, 0)
    y = torch.rand(20_000, generator=random) < torch.tensor([truth(float(each)) for each in p])
    found = Recalibration.fit(p, y, 20_000)
    assert (found.a, found.b, found.c) == pytest.approx((0.5, 1.5, 0.7), abs=0.1)


def test_error_and_interval_follow_the_chance() -> None:
    of, by = Chance(100, 1000), Recalibration(0.7, 1.3, 0.4, 50, 10)
    found = Corrected(of, by)
    assert found.probability == by(0.1) and found.interval == (by(of.interval[0]), by(of.interval[1]))
    assert found.error == pytest.approx(of.error * (by(0.1001) - by(0.0999)) / 0.0002, rel=1e-3)
    assert found.plain()["hits"] == 100 and found.plain()["method"] == "rollouts"


def test_too_few_windows_and_events_beyond_them_are_refused() -> None:
    with pytest.raises(ValueError, match="20 or more"):
        recalibrate(Walk(), windows(19, 0.0), ["y >= 2 at 1"])
    with pytest.raises(ValueError, match="beyond the horizon"):
        recalibrate(Walk(), windows(30, 0.0), ["y >= 2 at 9"])
    with pytest.raises(ValueError, match="20 or more"):
        recalibrate(Walk(), [], ["y >= 2 at 1"])
