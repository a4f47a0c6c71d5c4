"""Particles against a linear Gaussian walk: its chances are known in closed form, and its best twist, too."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from gssr.search.beliefs import smc
from gssr.sequences.conditions import Condition

H, KEEPS, SPREAD, START = 6, 0.9, 0.5, 1.0
ISLANDS = 300
END = NormalDist(KEEPS**H * START, SPREAD * sum(KEEPS ** (2 * k) for k in range(H)) ** 0.5)


class State(NamedTuple):
    y: Tensor

    def select(self, rows: Tensor) -> "State":
        return State(self.y[rows])

    def features(self) -> Tensor:
        return self.y


class Walk:
    """y_t = 0.9 y_{t-1} + 0.5 u, from 1."""

    steps, width, values = H, 1, 1

    def begin(self, samples: int, generator: torch.Generator) -> State:
        return State(torch.full((samples, 1), START))

    def advance(self, state: State, noise: Tensor, t: int) -> tuple[State, Tensor, Tensor]:
        y = KEEPS * state.y + SPREAD * noise
        return State(y), y, y

    def data_units(self, value: Tensor, t: int) -> Tensor:
        return value


@dataclass
class Forecaster:
    """Later values as a walk that keeps another share, and has another spread."""

    keeps: float = KEEPS
    spread: float = SPREAD

    def paths(self, features: Tensor, noise: Tensor) -> Tensor:
        y, found = features.expand(len(noise), *features.shape), []
        for k in range(noise.shape[1]):
            y = self.keeps * y + self.spread * noise[:, None, k]
            found.append(y)
        return torch.stack(found, 2)


class Ignorant:
    """A twist that knows nothing, so that particles are plain rollouts."""

    def paths(self, features: Tensor, noise: Tensor) -> Tensor:
        return torch.zeros(len(noise), len(features), noise.shape[1], 1)


GOOD = Forecaster()
TWISTS = {"right": GOOD, "a wrong share": Forecaster(0.75, SPREAD), "too sure": Forecaster(KEEPS, 0.35)}
# Behind P(y >= 3.2 at 6), whose truth is known, chances of paths, which a million walks tell.
EVENTS = {
    "end": "y >= 3.2 at 6",
    "peak": "y >= 2.9 within 5 and y <= 1.2 at 6",
    "between": "y 1.8..2.0 at 3 and not y <= 0.5 within 5",
    "either": "y +1.9 within 4 or y <= -1.9 at 6",
}


def asked(text: str) -> smc.Asked:
    event = Condition(text, ["y"]).over(np.arange(H + 1.0))
    return smc.Asked(event, torch.tensor([START]), torch.tensor([1.0]))


def drawn(text: str, twist: smc.Ahead = GOOD, islands: int = ISLANDS, **options: object) -> smc.Particles:
    return smc.draw(Walk(), twist, asked(text), islands, torch.Generator().manual_seed(0), **options)


@pytest.fixture(scope="module")
def truths() -> dict[str, float]:
    generator, walk, paths = torch.Generator().manual_seed(1), Walk(), []
    state = walk.begin(1_000_000, generator)
    for t in range(H):
        state, _, y = walk.advance(state, torch.randn(len(state.y), 1, generator=generator), t)
        paths.append(y)
    counted = {
        name: float(asked(text).event(torch.stack(paths, 1), torch.tensor([START])).double().mean())
        for name, text in EVENTS.items()
    }
    known = 1 - END.cdf(3.2)
    assert counted["end"] == pytest.approx(known, abs=4 * (known / 1e6) ** 0.5)
    return counted | {"end": known}


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "twisted"])
@pytest.mark.parametrize("twist", TWISTS)
@pytest.mark.parametrize("event", EVENTS)
def test_the_chance_has_no_bias_whatever_the_twist(
    event: str, twist: str, guided: bool, truths: dict[str, float]
) -> None:
    found = drawn(EVENTS[event], TWISTS[twist], guided=guided).chances
    truth, error = truths[event], float(found.std()) / ISLANDS**0.5
    counted = (truth / 1e6) ** 0.5
    assert 1e-4 < truth < 0.04 and error < (0.15 if twist == "right" else 1) * truth
    assert abs(float(found.mean()) - truth) < 4 * (error**2 + counted**2) ** 0.5


def test_a_twist_and_its_guide_save_particles(truths: dict[str, float]) -> None:
    errors = [
        float(drawn(EVENTS["end"], twist, guided=guided).chances.std()) / truths["end"]
        for twist, guided in ((Ignorant(), False), (GOOD, False), (GOOD, True))
    ]
    # Of 64 plain rollouts, by the binomial distribution.
    assert errors[0] == pytest.approx((64 * truths["end"]) ** -0.5, rel=0.3)
    assert errors[1] < 0.6 * errors[0] and errors[2] < 0.3 * errors[1]


def test_paths_are_those_of_the_walk_given_the_condition() -> None:
    found = drawn("y >= 3.2 at 6")
    weights = found.log_weights.exp()
    end, middle = found.paths[:, -1, 0], found.paths[:, 2, 0]
    assert (found.log_weights.isfinite() == (end >= 3.2)).all() and (weights > 0).double().mean() > 0.7
    assert weights.mean() == pytest.approx(float(found.chances.mean()))
    weights = weights / weights.sum()
    beyond = (3.2 - END.mean) / END.stdev
    normal = NormalDist()
    mean = END.mean + END.stdev * normal.pdf(beyond) / (1 - normal.cdf(beyond))
    effective = float(1 / weights.square().sum())
    assert float((weights * end).sum()) == pytest.approx(mean, abs=4 * 0.2 / effective**0.5)
    # The way there follows the end by the covariance of the walk.
    covariance = KEEPS**3 * SPREAD**2 * sum(KEEPS ** (2 * k) for k in range(3))
    there = KEEPS**3 * START + covariance / END.variance * (mean - END.mean)
    assert float((weights * middle).sum()) == pytest.approx(there, abs=4 * 0.6 / effective**0.5)


def test_islands_are_independent_and_know_their_ancestors() -> None:
    found = drawn("y >= 3.2 at 6", islands=8)
    island = torch.arange(8).repeat_interleave(smc.ISLAND)
    assert (found.origins // smc.ISLAND == island).all()
    assert 8 <= len(found.origins[found.log_weights > -torch.inf].unique()) < 8 * smc.ISLAND


def test_what_cannot_be_has_no_chance_and_what_is_sure_has_chance_one() -> None:
    never = drawn("y >= 50 at 6", islands=4)
    assert never.chances.sum() == 0 and not never.log_weights.isfinite().any() and never.paths.isfinite().all()
    sure = drawn("y >= -50 until 6", islands=4)
    assert sure.chances.tolist() == pytest.approx([1.0] * 4)
