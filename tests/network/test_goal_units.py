"""Goals where each window has units of its own: the level of a sentence moves and stretches with its window."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from datamodules.tables.goals import FORMS_FILE, goal_writer, numbers_of, words_of
from gssr.network import GoalNetwork
from gssr.network.goal_units import GoalUnits, t_score
from gssr.network.normalisation import WindowScale
from gssr.sequences.collate import collate
from gssr.sequences.goal_numbers import rewritten
from gssr.sequences.record import Batch
from gssr.sequences.vocabulary import Vocabulary
from tests.network.test_goal_network import generator, record
from tests.networks import make_network

GOAL = "Rise to {} knots in 18 hours"
WORDS = Vocabulary.of(["a", "b"], ["knots", "v"]).json()


def network_of(folder: Path, normalisation: str, **options: object) -> GoalNetwork:
    network = make_network(folder, latent_dim=4, hidden_dim=16, text_layers=(2,), goal_layer=2, text_steps=6,
        normalisation=normalisation, names=["a", "b"], units=["knots", "v"], resolution=[0.0, 0.0], words=WORDS,
        **options,
    )  # fmt: skip
    network.world.steering.schedule.arrival.data.fill_(3.0)
    network.world.scaler.mean.fill_(50.0)
    network.world.scaler.std.fill_(10.0)
    return network


def batch_with(level: float, shift: float = 0.0, factor: float = 1.0) -> Batch:
    """Three windows with a goal about their first value, all of them moved."""
    level, records = level * factor + shift, []
    for i in range(3):
        bound = np.array([level, np.nan], np.float32)
        one = replace(record(i), goal=GOAL.format(f"{level:g}"), goal_low=bound, goal_high=bound)
        records.append(replace(one, value=one.value * factor + shift))
    return collate(records)


@pytest.mark.parametrize("kind", ["window", "mixed"])
def test_a_level_that_moves_with_its_window_pulls_there_as_before(tiny_folder: Path, kind: str) -> None:
    network = network_of(tiny_folder, kind)
    network.world.scaler.usual_change.fill_(10.0)
    network.world.scaler.usual_spread.fill_(10.0)
    here, there = batch_with(55.0), batch_with(55.0, 1000.0)
    near = network.rollout(here, here.goal, 4, generator(1)).sample
    far = network.rollout(there, there.goal, 4, generator(1)).sample
    assert torch.allclose(far - 1000.0, near, atol=0.05)
    free = network.rollout(here, [None] * 3, 4, generator(1)).sample
    assert (near - free).abs().mean() > 0.1
    higher = batch_with(65.0)
    assert not torch.allclose(network.rollout(here, higher.goal, 4, generator(1)).sample, near, rtol=1e-3)


def test_a_level_that_stretches_with_its_window_pulls_there_as_before(tiny_folder: Path) -> None:
    network = network_of(tiny_folder, "window")
    here, there = batch_with(55.0), batch_with(55.0, -400.0, 3.0)
    near = network.rollout(here, here.goal, 4, generator(1)).sample
    far = network.rollout(there, there.goal, 4, generator(1)).sample
    assert torch.allclose((far + 400.0) / 3, near, atol=0.05)


def test_every_loss_of_goals_is_the_same_wherever_the_window_lies(tiny_folder: Path) -> None:
    network = network_of(tiny_folder, "window", goal_dropout=0.0)
    network.objective.free_nats = 0.0
    here = network.objective(batch_with(55.0), generator(), training=True).terms
    there = network.objective(batch_with(55.0, -400.0, 2.0), generator(), training=True).terms
    for name in ("value", "kl", "open", "goal"):
        assert here[name] > 0 and torch.isclose(here[name], there[name], rtol=1e-2), name


def test_in_units_of_the_training_part_the_sentence_is_read_as_it_stands(tiny_folder: Path) -> None:
    network, read = network_of(tiny_folder, "training"), []
    network.world.goal_units = lambda *given: read.append(given)
    batch = batch_with(55.0)
    network.rollout(batch, batch.goal, 4, generator(1))
    assert not read


def test_each_window_and_step_has_its_own_number() -> None:
    mean = torch.tensor([[[100.0, 7.0], [110.0, 7.0]], [[200.0, 7.0], [220.0, 7.0]]])  # by the calendar
    scale = WindowScale(mean, torch.tensor([[[10.0, 1.0]], [[20.0, 1.0]]]))
    found = GoalUnits(WORDS)(["Be at 120 knots", "Be at 120 knots"], scale, torch.tensor([1, 0]))
    assert found == ["Be at 60 knots", "Be at 10 knots"]
    flat = WindowScale(mean[:, :1], scale.spread)
    assert GoalUnits(WORDS)([None, "Be at 150 knots"], flat, torch.tensor([1, 1])) == [None, "Be at 25 knots"]
    second = replace(Vocabulary.from_json(WORDS), column=1).json()
    assert GoalUnits(second)(["Be at 9", "Be at 8.5"], flat, torch.tensor([1, 1])) == ["Be at 70", "Be at 65"]
    assert t_score(-40.0, 0.0, 10.0) == "10" and t_score(0.3, 0.3, 1e-4) == "50"


def test_what_is_no_level_stays() -> None:
    for goal, expected in {
        "Reach 120 EUR in 12 months": "Reach <120> EUR in 12 months",
        "Be at -3.5 by 2030": "Be at <-3.5> by 2030",
        "Show a PM 2.5 of 80 in two days": "Show a PM 2.5 of <80> in two days",
        "Between 20 and 30, or 1,200.5": "Between <20> and <30>, or <1200.5>",
        "3 million in 4 weeks": "<3e+06> in 4 weeks",
        "On 2030-01-02 be at 10⁵": "On 2030-01-02 be at <100000>",
        "Rise by 10 percent": "Rise by 10 percent",
        "Stay calm": "Stay calm",
    }.items():
        assert rewritten(goal, lambda level: f"<{level:g}>", ["EUR"], ["PM 2.5", "pm"]) == expected


@pytest.mark.parametrize(("low", "high", "unit"), [(-3.0, 4.0, ""), (900.0, 90_000.0, "EUR"), (1e-6, 3e-6, "%")])
def test_the_number_of_every_written_goal_is_found(low: float, high: float, unit: str) -> None:
    words = words_of("PM_2.5", unit)
    writer = goal_writer(None, 0, numbers_of((low + high) / 2, (high - low) / 6, low, high, 0.0), words)
    draw, seen = np.random.default_rng(0), set()
    for i in range(600):
        start, target = draw.uniform(low, high, 2)
        goal = writer.sentence(start, target, 48.0, 2, ("all", "train", "forms")[i % 3], draw)
        if goal is None:
            continue
        seen.add(goal.form)
        found: list[float] = []
        rewritten(goal.text, lambda level, found=found: found.append(level) or "x", [unit], words["name"])
        assert found == [pytest.approx(goal.low, rel=1e-3, abs=1e-9)], goal.text
    forms = yaml.safe_load(FORMS_FILE.read_text(encoding="utf-8"))["numbers"]["any"]
    assert len(seen) > 0.8 * len(forms)
