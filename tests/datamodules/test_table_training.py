"""A network is trained on tables with and without goals and texts, validated, and forecasts beyond the table's end."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks import GradientNormCheck, PlanRollouts, PredictionWriter
from datamodules.table_sequences import TableSequences
from tests.conftest import SENTENCES
from tests.networks import make_network

C, H = 4, 3
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]


def trainer(folder: Path, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", default_root_dir=str(folder), enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0, log_every_n_steps=1, **options,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["bare", "said", "written"])
def test_fit_and_predict(kind: str, tiny_folder: Path, tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    frame = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=90).strftime("%Y-%m-%d")})
    frame["small"] = (g.normal(size=90).cumsum() * 1e-4).round(7)
    frame["words"] = [None if i % 3 else SENTENCES[i % 4] for i in range(90)]
    frame["aim"] = [None if i % 2 else "Be at 0.0003" for i in range(90)]
    frame.to_csv(tmp_path / "t.csv", index=False)
    options: dict[str, Any] = {
        "bare": {"goals": None}, "said": {"goal_column": "aim", "text_column": "words"},
        "written": {"text_column": "words"},
    }[kind]  # fmt: skip
    options |= {"time_column": "date", "value_columns": ["small"], "context": C, "horizon": H, "batch_size": 8}
    network = make_network(
        tiny_folder,
        latent_dim=4,
        hidden_dim=16,
        text_layers=(1,),
        goal_layer=1,
        text_steps=4,
        open_samples=4,
        warmup_steps=1,
    )
    checks = [GradientNormCheck(patience=2), PlanRollouts(windows=1, samples=4, texts=False)]
    fit = trainer(
        tmp_path, max_epochs=1, limit_train_batches=4, callbacks=checks, logger=TensorBoardLogger(str(tmp_path), "")
    )
    fit.fit(network, datamodule=TableSequences(str(tmp_path / "t.csv"), **options))
    scores = fit.callback_metrics
    assert math.isfinite(scores["val/open_loop_mae"]) and scores["val/persistence_mae"] > 0
    assert ("val/hit_true" in scores) == (kind == "written")

    network.calibration.text_gain.fill_(1.0)  # of a tiny model it is nothing
    asked = options | ({} if kind == "bare" else {"goal": "Raise small to 0.0005 within 3 days"})
    network.backbone.generate = lambda prefix, *rest: ["a text"] * len(prefix)  # of a tiny model it means nothing
    writer = trainer(tmp_path / "out", logger=False, callbacks=[PredictionWriter(charts=1, rollouts=2)])
    writer.predict(network, datamodule=TableSequences(str(tmp_path / "t.csv"), **asked), return_predictions=False)
    (line,) = [json.loads(raw) for raw in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert line["truth"] == [[None]] * H and line["time"][C].startswith("2024-03-31")
    np.testing.assert_allclose(np.array(line["context"])[:, 0], frame["small"][-C:], atol=1e-6)
    assert (line["with_goal"] is None) == (kind == "bare")
    assert (line["without_goal"]["text"] is None) == (kind == "bare")
    assert len({tuple(step) for step in line["without_goal"]["mean"]}) > 1, "digits were rounded away"
    assert list((tmp_path / "out").glob("fan_*.png"))
