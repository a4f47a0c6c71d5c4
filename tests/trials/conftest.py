"""A run of a tiny network on a table with texts and several series, trained once by the command line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import train
from tests.conftest import SENTENCES

NUMBERS = {
    "threads": 1, "trainer.max_steps": 3, "trainer.num_sanity_val_steps": 0, "trainer.val_check_interval": 3,
    "trainer.limit_val_batches": 2, "model.world.latent_dim": 4, "model.world.hidden_dim": 8,
    "model.world.goal_layer": 1, "model.objective.text_steps": 2, "model.objective.open_samples": 4,
    "data.batch_size": 8, "data.context": 4, "data.horizon": 2,
}  # fmt: skip
OTHERS = {
    "trainer.accelerator": "cpu", "trainer.enable_progress_bar": "false", "trainer.enable_model_summary": "false",
    "model.world.text_layers": "[1]", "data": "datamodules.TableSequences", "data.time_column": "when",
    "data.series_column": "id", "data.text_column": "said", "data.value_columns": "[a,b]", "data.missing": "['-9999']",
    "data.goals": "hindsight",
}  # fmt: skip
SMALL = [word for name, value in (OTHERS | NUMBERS).items() for word in (f"--{name}", str(value))]
SERIES = ("north", "south")


def days(rows: int, begin: str = "2024-01-01", step: str = "1D", seed: int = 0) -> pd.DataFrame:
    """Both series of a table: times, two random walks and texts here and there."""
    g, parts = np.random.default_rng(seed), []
    for name in SERIES:
        walks = g.normal(size=(rows, 2)).cumsum(0).round(3)
        said = [None if g.random() < 0.6 else str(g.choice(SENTENCES)) for _ in range(rows)]
        when = pd.date_range(begin, periods=rows, freq=step).strftime("%Y-%m-%dT%H:%M")
        parts.append(pd.DataFrame({"id": name, "when": when, "a": walks[:, 0], "b": walks[:, 1], "said": said}))
    return pd.concat(parts, ignore_index=True)


def fit(table: Path, run: str, backbone: Path, *more: str) -> None:
    train.main(["fit", "--run", run, *SMALL, "--data.path", str(table), "--model.backbone.name", str(backbone), *more])


@pytest.fixture(scope="session")
def trained_place(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the table `days.csv` and the run `small` on it."""
    folder, threads = tmp_path_factory.mktemp("trained"), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GSSR_CACHE", str(folder / "cache"))
        days(60).to_csv("days.csv", index=False)
        fit(Path("days.csv"), "small", tiny_folder)
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def here(trained_place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of that run, in which the test works."""
    monkeypatch.chdir(trained_place)
    return trained_place
