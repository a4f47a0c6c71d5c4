"""Pictures while training: the same windows every time, and training does not notice."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks import PlanRollouts, ScalarLayout
from callbacks.plan_rollouts import in_words, spread
from gssr.network.forecaster import QUANTILE_LEVELS, Plan, Rollouts
from gssr.network.futures import Future
from gssr.search.beliefs import goal_chances
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record
from tests.callbacks.training import same, train, weights
from tests.toy import ToyData, ToyNetwork

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")
CONTEXT, HORIZON = 3, 2


def record(series: str, level: float = 0.0) -> Record:
    steps = CONTEXT + HORIZON
    value = np.linspace(level, level + 1, steps, dtype=np.float32)[:, None]
    bound = np.array([level + 1], np.float32)
    return Record(
        series,
        np.arange(steps) * 6.0,
        value,
        [None] * steps,
        f"reach {level + 1}",
        bound,
        bound,
        goal_start=CONTEXT - 1,
    )


class Windows(ToyData):
    goal_dim, value_guides, has_text, has_goals = 0, (), True, True

    def windows_evaluation(self, split: str, goals: str) -> list[Record]:
        assert (split, goals) == ("val", "combinations")
        return [record(f"series {i // 3}", float(i)) for i in range(12)]


class Planner(ToyNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[list[str], list[str | None], float]] = []

    def plan(
        self, batch: Batch, goals: list[str | None], samples: int, texts: bool, generator: torch.Generator
    ) -> Plan:
        assert not self.training
        assert not torch.is_grad_enabled()
        torch.randn(5)  # a plan that takes from the global stream, too
        noise = torch.randn(samples, len(batch), HORIZON, 1, generator=generator)
        self.calls.append((batch.series, goals, float(noise.sum())))
        quantiles = noise.quantile(torch.tensor(QUANTILE_LEVELS), dim=0).movedim(0, -1)
        words = [[f"step {h} | of a\nplan" for h in range(HORIZON)] for _ in range(len(batch))]
        return Plan(Rollouts(noise, noise, noise), noise.mean(0), quantiles, words if texts else [[] for _ in goals])


def board(folder: Path) -> TensorBoardLogger:
    return TensorBoardLogger(str(folder), name="", version="", default_hp_metric=False)


def events(folder: Path) -> EventAccumulator:
    reader = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    reader.Reload()
    return reader


def test_pictures_and_words_in_tensorboard(tmp_path: Path) -> None:
    network, other = Planner(), Planner()
    other.load_state_dict(network.state_dict())
    callback = PlanRollouts(every_n_epochs=2, windows=2, samples=16)
    seen = train(tmp_path, network=network, data=Windows(), callbacks=[callback], logger=board(tmp_path))
    plain = train(tmp_path / "plain", network=other, data=Windows())
    assert same(weights(seen), weights(plain)), "pictures changed training"

    # Epochs 2 and 3 (the last), each with the goal and without, the same windows and the same noise.
    assert [goals[0] is None for _, goals, _ in network.calls] == [False, True, False, True]
    assert len({(*series, noise) for series, _, noise in network.calls}) == 1
    assert len(set(network.calls[0][0])) == 2, "windows of one series"

    reader = events(tmp_path)
    assert reader.Tags()["images"] == ["plan/0", "plan/1"]
    images = reader.Images("plan/1")
    assert [image.step for image in images] == [10, 15]
    assert all(image.width > 400 for image in images)
    text = reader.Tensors("plan/0/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "reach" in text
    assert "step 1 &#124; of a plan |" in text
    assert "| +6 h |" in text


class Judge(Planner):
    """Half of its rollouts end at 1, and the others at 5."""

    value_names, value_units = ["y"], [""]

    def __init__(self) -> None:
        super().__init__()
        self.validation = SimpleNamespace(closeness=torch.tensor([0.1]))

    def rollout(self, batch: Batch, goals: list[str | None], samples: int, *_: Any, calibrated: bool) -> Rollouts:
        assert goals == [None] and not calibrated
        paths = torch.where(torch.arange(samples) % 2 == 0, 1.0, 5.0).view(-1, 1, 1, 1).expand(-1, 1, HORIZON, 1)
        return Rollouts(paths, paths, paths)


def test_the_chance_of_a_goal_is_a_scalar(tmp_path: Path) -> None:
    callback = PlanRollouts(windows=2, samples=4, texts=False)
    train(tmp_path, network=Judge(), data=Windows(), callbacks=[callback], logger=board(tmp_path), max_epochs=1)
    found = [[event.value for event in events(tmp_path).Scalars(f"chance/{i}")] for i in range(2)]
    assert found == [[0.0], [0.0]]  # their goals are to reach 4 and 10
    drawn = collate([record("a", 0.0)])
    assert goal_chances(Judge(), drawn)[0].probability == 0.5  # type: ignore[union-attr]


def test_further_futures_are_told_below_the_table() -> None:
    batch, planner = collate([record("series 1")]), Planner().eval()
    with torch.no_grad():
        plan = planner.plan(batch, [None], 4, True, torch.Generator().manual_seed(0))
    shares = [torch.tensor([0.75]), torch.tensor([0.25])]
    told = tuple(Future(torch.zeros(1), share, plan.mean, [[f"{share.item()}"] * HORIZON]) for share in shares)
    text = in_words(batch, 0, replace(plan, futures=told), Windows())
    assert "| 0.75 |" in text and "〃" in text
    assert "**future 2 of 2: another rollout, told for 1 of 4**" in text and "1. 0.25" in text


def test_without_tensorboard_nothing_is_drawn(tmp_path: Path) -> None:
    network = Planner()
    train(tmp_path, network=network, data=Windows(), callbacks=[PlanRollouts()], max_epochs=1)
    assert network.calls == []


def test_windows_are_spread() -> None:
    series = [record(f"series {i}") for i in range(10)]
    assert [r.series for r in spread(series, 2)] == ["series 2", "series 7"]
    assert [r.series for r in spread(series, 20)] == [f"series {i}" for i in range(10)]
    same_storm = [record("one", float(i)) for i in range(6)]
    assert len({float(r.value[0, 0]) for r in spread(same_storm, 3)}) == 3
    with pytest.raises(ValueError, match="there is no validation window"):
        spread([], 3)


def test_kl_and_text_come_first_in_custom_scalars(tmp_path: Path) -> None:
    from tensorboard.plugins.custom_scalar import layout_pb2

    train(tmp_path, callbacks=[ScalarLayout()], logger=board(tmp_path), max_epochs=1)
    reader: Any = events(tmp_path)
    raw = reader.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = layout_pb2.Layout.FromString(raw)
    first = layout.category[0]
    assert first.title == "1 KL and text"
    assert "train/kl_raw" in first.chart[0].multiline.tag
    assert first.chart[1].title.startswith("text loss")
