"""Training does not depend on what a cache holds: a run after another one, or without the cache, has the same bits."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Callback, Trainer

from datamodules.table_sequences import TableSequences
from gssr.backbone import FrozenBackbone
from gssr.backbone.table import TextTable, cache_folder
from gssr.network import GoalNetwork
from gssr.runs.folders import LAST, checkpoint_file
from tests.callbacks.training import train
from tests.networks import make_network

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    g = np.random.default_rng(0)
    frame = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=60).strftime("%Y-%m-%d")})
    frame["level"] = g.normal(size=60).cumsum().round(2)
    frame["words"] = [f"near {i * 7919 % 101} knots" + " and weakening" * (i % 5) for i in range(60)]
    frame.to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


def data(table: Path) -> TableSequences:
    options: dict[str, Any] = {"time_column": "date", "value_columns": ["level"], "text_column": "words"}
    return TableSequences(str(table), **options, context=4, horizon=3, batch_size=8)


def network(folder: Path | str) -> GoalNetwork:
    return make_network(
        folder, latent_dim=4, hidden_dim=16, text_layers=(1,), goal_layer=2, text_steps=2, warmup_steps=1
    )


def checkpoint(trainer: Trainer) -> dict[str, torch.Tensor]:
    file = checkpoint_file(Path(trainer.default_root_dir), LAST)
    assert file is not None
    return torch.load(file, weights_only=True)["state_dict"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_the_cache_s_history_and_its_loss_change_no_entry_of_a_checkpoint(table: Path, tmp_path: Path) -> None:
    """With nano: the kernels of a tinier model seldom differ by shape."""

    def fit(name: str, **options: Any) -> Trainer:
        return train(tmp_path / name, network=network("nano"), data=data(table), max_epochs=2, **options)

    whole = checkpoint(fit("whole"))
    # A cache that other texts were read into, in another order, and a validation before.
    shutil.rmtree(cache_folder())
    for texts in (["near 12 knots", "something else"], [f"near {i * 7919 % 101} knots" for i in range(0, 60, 7)][::-1]):
        TextTable(FrozenBackbone(), [1]).add(texts)
    second = network("nano")
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    Trainer(accelerator="cpu", default_root_dir=tmp_path / "v", **options).validate(
        train(tmp_path / "short", network=second, data=data(table), max_steps=1).lightning_module,
        datamodule=data(table),
        verbose=False,
    )
    same(checkpoint(fit("after")), whole)
    fit("resumed", stop=4)
    shutil.rmtree(cache_folder())
    same(checkpoint(fit("resumed", resume=True)), whole)


class Poison(Callback):
    """Puts a number into a weight that no state survives."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if trainer.global_step == 2:
            with torch.no_grad():
                pl_module.world.rssm.first_h.fill_(torch.nan)


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_a_score_that_is_not_finite_ends_with_an_error(
    command: str, table: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    if command == "fit":
        with pytest.raises(RuntimeError, match="not finite"):
            train(
                tmp_path / "run", network=network(tiny_folder), data=data(table), max_epochs=1, callbacks=[Poison()],
                limit_val_batches=0,
            )  # fmt: skip
        assert not checkpoint_file(tmp_path / "run", LAST).exists()
        return
    trained = train(tmp_path / "run", network=network(tiny_folder), data=data(table), max_steps=1).lightning_module
    with torch.no_grad():
        trained.world.rssm.first_h.fill_(torch.nan)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    with pytest.raises(RuntimeError, match="val/.* are not finite"):
        trainer.validate(trained, datamodule=data(table), verbose=False)
