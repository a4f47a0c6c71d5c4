"""The worth of texts: the process of the table, its best forecasts, and the share of the gain."""

import numpy as np
import pytest
import torch

from benchmarks.texts import __main__ as command
from datamodules import Sines
from gssr.metrics import fair_crps


def test_news_announce_each_jump_two_days_before_and_idle_ones_tell_nothing() -> None:
    told, idle = command.made(0, True), command.made(0, False)
    np.testing.assert_array_equal(told.price, idle.price)
    change = np.diff(told.price)
    for day, text in enumerate(told.news[:-3]):
        way = 0 if text is None else next(w for w in (1, -1) if text in command.NEWS[w])
        assert change[day + 1] == pytest.approx(command.JUMP * way, abs=6 * command.NOISE)
    assert {text for text in idle.news if text} == set(command.NEWS[0])
    assert [text is None for text in idle.news] == [text is None for text in told.news]


def test_what_is_known_of_jumps_makes_the_first_days_exact() -> None:
    table, origins = command.made(0, True), list(range(20, 400))
    truth = torch.from_numpy(np.stack([table.price[o + 1 : o + 1 + command.HORIZON] for o in origins])).float()
    scores = []
    for knows in (True, False):
        draws = command.best(table, origins, knows, np.random.default_rng(0))
        scores.append(fair_crps(draws, truth).mean(0))
    # The CRPS of a normal distribution that is right is its deviation over the root of pi.
    right = command.NOISE * torch.arange(1, 3).sqrt() / np.sqrt(np.pi)
    torch.testing.assert_close(scores[0][:2].double(), right.double(), rtol=0.15, atol=0)
    assert (scores[0] < scores[1]).all() and scores[1][0] > 2 * scores[0][0]


def test_the_best_of_sines_is_better_with_the_text() -> None:
    data = Sines(series=400)
    data.setup("test")
    windows = list(data.windows("test"))
    truth = torch.from_numpy(np.stack([w.value[w.goal_start + 1 :, 0] for w in windows]))
    known, blind = (
        fair_crps(command.sine_draws(data, windows, knows, np.random.default_rng(0)), truth).mean()
        for knows in (True, False)
    )
    assert known < 0.9 * blind


def test_the_share_is_of_the_possible_gain() -> None:
    scores = {
        "news": (0.6, 0.5),
        "no news": (1.0, 0.9),
        "idle news": (1.01, 0.9),
        "with texts": (2, 1),
        "without": (4, 3),
    }
    text = command.report(scores)
    assert "0.600 | 1.000 | 0.500 | 0.900 | 100 % |" in text and "2.000 | 4.000 | 1.000 | 3.000 | 100 % |" in text
    assert "(+1.0 %)" in text
