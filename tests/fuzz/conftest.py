"""Small good files of every kind, which the tests damage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning import Trainer

from callbacks.atomic_io import AtomicCheckpointIO
from gssr.runs.folders import CHECKPOINTS, CONFIG
from gssr.runs.sharing import push
from tests.networks import make_network


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with a cache of its own, for all examples of a module."""
    folder, before, cache = tmp_path_factory.mktemp("fuzz"), Path.cwd(), os.environ.get("GSSR_CACHE")
    os.chdir(folder)
    os.environ["GSSR_CACHE"] = str(folder / "cache")
    yield folder
    os.chdir(before)
    os.environ.pop("GSSR_CACHE") if cache is None else os.environ.__setitem__("GSSR_CACHE", cache)


@pytest.fixture(autouse=True)
def _own_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSSR_CACHE", str(place / "cache"))


@pytest.fixture(scope="module")
def run(place: Path, tiny_folder: Path) -> Path:
    """A run of a small network, with its best checkpoint."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make_network(
            tiny_folder, ["wind"], ["kt"], [5.0], latent_dim=4, hidden_dim=8, text_layers=(1,), goal_layer=1
        )
    network.world.scaler.mean.fill_(50.0)
    network.world.scaler.std.fill_(10.0)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
    )  # fmt: skip
    trainer.strategy.connect(network)
    folder = place / "runs" / "one"
    trainer.save_checkpoint(folder / CHECKPOINTS / "best.ckpt")
    (folder / CONFIG).write_text("threads: 1\n")
    return folder


@pytest.fixture(scope="module")
def pushed(run: Path, place: Path) -> Path:
    push(str(run), place / "pushed")
    return place / "pushed"
