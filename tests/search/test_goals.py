"""How likely goals are without any pull: the share of the network's own rollouts within their bounds."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from callbacks import PredictionWriter
from gssr.network import GoalNetwork
from gssr.search.beliefs import chance, goal_chances
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record
from gssr.understanding import Reader, Understood
from tests.networks import make_network

C, H = 3, 4
BOUNDS: list[tuple[Any, Any, int]] = [
    ([-0.5, np.nan], [0.5, np.nan], H),  # a range
    ([0.2, np.nan], [0.2, np.nan], H),  # a number
    ([0.0, -0.3], [np.inf, 0.3], 2),  # both values, open above, at an earlier step
    ([np.nan, np.nan], [np.nan, np.nan], H),  # typed by a user
]


@pytest.fixture(scope="module")
def network(tiny_folder: Path) -> GoalNetwork:
    sizes = {"latent_dim": 4, "hidden_dim": 8, "text_layers": (2,), "goal_layer": 2}
    made = make_network(tiny_folder, names=["y", "z"], units=["m", ""], resolution=[0.15, 0.0], **sizes).eval()
    made.backbone.generate = lambda prefix, *rest: ["a text"] * len(prefix)
    return made


@pytest.fixture
def batch() -> Batch:
    records = []
    for low, high, step in [*BOUNDS, (None, None, H)]:
        value = np.full((C + H, 2), np.nan, np.float32)
        value[:C] = np.linspace(0, 0.3, C)[:, None]
        bounds = {} if low is None else {"goal": "Rise", "goal_low": np.float32(low), "goal_high": np.float32(high)}
        times = 6.0 * np.arange(C + H)
        records.append(Record("a", times, value, [None] * (C + H), goal_start=C - 1, goal_step=C - 1 + step, **bounds))
    return collate(records)


def test_a_goals_chance_is_the_share_of_rollouts_within_its_bounds(network: GoalNetwork, batch: Batch) -> None:
    found = goal_chances(network, batch, budget=3000)
    assert found[3] is None and found[4] is None
    for row, slack in ((0, 0.0), (1, 0.15), (2, 0.0)):  # a number within a resolution, more than a tenth of 1
        low, high, step = BOUNDS[row]
        paths = network.rollout(batch.select([row]), [None], 1024, torch.Generator().manual_seed(0), calibrated=False)
        value = paths.sample[:, 0, step - 1]
        inside = torch.ones(1024, dtype=torch.bool)
        for y in range(2):
            if not np.isnan(low[y]):
                inside &= (value[:, y] >= low[y] - slack) & (value[:, y] <= high[y] + slack)
        each = found[row]
        assert each is not None and 0.02 < each.probability < 0.98
        share = float(inside.double().mean())
        assert each.probability == pytest.approx(share, abs=4 * (share * (1 - share) * (1 / 1024 + 1 / 3000)) ** 0.5)


def test_predictions_hold_the_chances_of_their_goals(
    network: GoalNetwork, batch: Batch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer: Any = SimpleNamespace(datamodule=None, is_global_zero=True, default_root_dir=str(tmp_path))
    writer = PredictionWriter(charts=0)
    writer.on_predict_start(trainer, network)
    writer.on_predict_batch_end(trainer, network, network.predict_step(batch, 0), batch, 0)
    writer.on_predict_end(trainer, network)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    own = goal_chances(network, batch)
    assert [line["chance"] and line["chance"]["probability"] for line in lines] == [e and e.probability for e in own]
    assert lines[0]["chance"]["method"] == "rollouts" and lines[0]["chance"]["rollouts"] <= 256
    assert f"chance of the goal without its pull: {own[0]}" in capsys.readouterr().out


def test_typed_goals_have_the_chance_of_what_they_mean_and_no_goal_changes_nothing(
    network: GoalNetwork,
    batch: Batch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    meant = {"Rise": "y >= 0 at 4 steps", "Sing": None}
    kinds = {"Rise": "goal", "Sing": "none"}
    reader = SimpleNamespace(read=lambda text, setting: Understood(kinds[text], meant[text], 0.9, "it changes nothing"))
    monkeypatch.setattr(Reader, "bundled", lambda: reader)
    typed = batch.select([3, 3, 3])
    typed.goal = ["Rise", "Sing", None]
    (own, *nothing) = goal_chances(network, typed, conditions=["y >= 0 at 4 steps", None, None])
    ((same,),) = chance(network, typed.select([0]), ["y >= 0 at 4"], budget=256)
    assert own == same and 0 < same.probability < 1 and nothing == [None, None]
    assert goal_chances(network, typed, conditions=["y >= 0 at 9 steps", None, None])[0] is None  # beyond the horizon

    trainer: Any = SimpleNamespace(
        datamodule=SimpleNamespace(goal="Rise", goal_dim=0, value_guides=()),
        is_global_zero=True,
        default_root_dir=str(tmp_path),
    )
    writer = PredictionWriter(charts=0)
    writer.on_predict_start(trainer, network)
    writer.on_predict_batch_start(trainer, network, typed, 0)
    assert typed.goal == ["Rise", None, None]
    writer.on_predict_batch_end(trainer, network, network.predict_step(typed, 0), typed, 0)
    writer.on_predict_end(trainer, network)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    said = [line["understood"] and (line["understood"]["condition"], line["understood"]["mode"]) for line in lines]
    assert said == [("y >= 0 at 4 steps", "pull"), (None, "none"), None]
    assert lines[0]["chance"]["probability"] == same.probability and lines[1]["chance"] is None
    assert "understood as: y >= 0 at 4 steps" in capsys.readouterr().out
