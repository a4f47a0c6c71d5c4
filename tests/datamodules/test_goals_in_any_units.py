"""Goals of hindsight where each window has units of its own: a fit, forecasts and plans pull to levels as they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightning import Trainer, seed_everything

from callbacks import PredictionWriter
from datamodules.table_sequences import TableSequences
from gssr.network import GoalNetwork
from gssr.sequences.collate import collate
from tests.commands.test_plan import lines, run
from tests.networks import make_network

C, H, ROWS = 8, 4, 240
# All numbers are trained on, so that a few steps teach them.
GOALS = {"numbers": {"any": ["Be at {value}"]}, "held_out_values": [], "combination_share": 1_000_000}
TABLE = {"time_column": "date", "goals": GOALS, "context": C, "horizon": H, "batch_size": 32}
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]


def growing() -> np.ndarray:
    """An amount whose changes grow with its level."""
    return (100 * np.exp(np.random.default_rng(1).normal(0.01, 0.05, ROWS).cumsum())).round(1)


def table(folder: Path, value: np.ndarray) -> str:
    times = pd.date_range("2020-01-06", periods=ROWS, freq="7D").strftime("%Y-%m-%d")
    folder.mkdir(exist_ok=True)
    pd.DataFrame({"date": times, "price": value}).to_csv(folder / "t.csv", index=False)
    return str(folder / "t.csv")


def trainer(folder: Path, **options: Any) -> Trainer:
    return Trainer(accelerator="cpu", default_root_dir=str(folder), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
        **options)  # fmt: skip


def fitted(backbone: Path, path: str, steps: int, normalisation: str) -> tuple[GoalNetwork, Trainer]:
    seed_everything(0)
    network = make_network(
        backbone, latent_dim=4, hidden_dim=32, text_layers=(1,), goal_layer=1, alpha_text=0.0, warmup_steps=1,
        lr=0.02, linear_lags=4, normalisation=normalisation, goal_dropout=0.2,
    )  # fmt: skip
    fit = trainer(Path(path).parent, max_steps=steps)
    fit.fit(network, datamodule=TableSequences(path, **TABLE))
    return network, fit


def predicted(network: GoalNetwork, path: str, goal: str) -> dict:
    """The line of `predict` for the end of the table."""
    folder = Path(path).parent / "out"
    data = TableSequences(path, **TABLE, goal=goal)
    trainer(folder, callbacks=[PredictionWriter(charts=0, rollouts=2)]).predict(network, datamodule=data)
    (line,) = [json.loads(raw) for raw in (folder / "predictions.jsonl").read_text().splitlines()]
    return line


def test_a_fit_that_chooses_its_units_pulls_in_forecasts_and_plans(tiny_folder: Path, tmp_path: Path) -> None:
    value = growing()
    path = table(tmp_path, value)
    network, fit = fitted(tiny_folder, path, 60, "auto")
    assert network.options.world.normalisation != "training"
    fit.save_checkpoint(tmp_path / "best.ckpt")
    data = TableSequences(path, **TABLE)
    data.setup("predict")
    batch = collate([data.predict_records[0]])
    zero, one = (part.item() for part in network.world.scale(batch).at(batch.goal_step))
    ends: dict[str, list[float]] = {"predict": [], "plan": []}
    for level in (zero - 2 * one, zero + 2 * one):
        goal = f"Be at {level:.1f}"
        ends["predict"].append(predicted(network, path, goal)["with_goal"]["mean"][-1][0])
        run("--input", path, "--ckpt_path", tmp_path / "best.ckpt", "--goal", goal, "--mode", "pull", "--no-texts",
            "--json", tmp_path / "plan.json")  # fmt: skip
        ends["plan"].append(lines(tmp_path / "plan.json")["with_goal"]["mean"][-1][0])
    for low, high in ends.values():
        assert abs(low - (zero - 2 * one)) < one and abs(high - (zero + 2 * one)) < one, (zero, one, ends)


@pytest.mark.parametrize("kind", ["last", "mixed"])
def test_another_unit_of_the_table_changes_nothing_else(tiny_folder: Path, tmp_path: Path, kind: str) -> None:
    value, found = growing(), []
    for name, factor, shift in (("here", 1.0, 0.0), ("there", 10.0, 5000.0)):
        path = table(tmp_path / name, value * factor + shift)
        network, _ = fitted(tiny_folder, path, 8, kind)
        line = predicted(network, path, f"Be at {round(0.9 * value[-1]) * factor + shift:g}")
        both = np.array([line[which]["mean"] for which in ("with_goal", "without_goal")])
        found.append((both - shift) / factor)
    assert np.abs(found[0][0] - found[0][1]).max() > 0.5
    np.testing.assert_allclose(found[1], found[0], atol=0.05)
