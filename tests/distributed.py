"""What two processes do together, each writing down what it saw: run by tests/test_distributed.py, once for each rank.

LOCAL_RANK=0 NODE_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=... python -m tests.distributed BACKBONE OUT
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from callbacks import FrozenBackboneGuard, GradientError, GradientNormCheck, Interrupted
from datamodules.sequence_data import SequenceData
from gssr.network import GoalNetwork
from gssr.runs.folders import LAST, checkpoint_file
from gssr.sequences.batches import EpochBatches
from gssr.sequences.record import Record
from tests.callbacks.training import StopAfter, trainer_for, weights
from tests.toy import ToyData, ToyNetwork

PAIR: dict[str, Any] = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False}
C, H = 4, 3
GOAL, TEXT = "Weaken to 35 knots in 48 hours", "Tropical storm Alex near 30.0 north 60.0 west."
# Training windows 10, validation windows 5. In an epoch's order every second window goes to rank 0; in validation
# rank 1 has the second of three batches of two. No window of rank 1 has a text or a goal.
TALKATIVE = {"train": {int(i) for i in EpochBatches(10, 2).order(0)[::2]}, "val": {0, 1, 4}, "test": {0}}


class Windows(SequenceData):
    """Five or ten windows a part, a series each; where `silent`, there are neither goals nor texts."""

    value_names = ("a", "b")
    value_units = ("u", "v")
    value_resolution = (1.0, 1.0)

    def __init__(self, batch_size: int = 2, silent: bool = False) -> None:
        super().__init__(batch_size, C, H, 1, None, None, seed=0, num_workers=0)
        self.silent = silent

    def read_windows(self) -> dict[str, Sequence[Record]]:
        return {part: [self._window(part, i) for i in range(10 if part == "train" else 5)] for part in TALKATIVE}

    def _window(self, part: str, i: int) -> Record:
        g = np.random.default_rng([i, len(part)])
        says = not self.silent and i in TALKATIVE[part]
        texts = [f"{TEXT} {i}" if says and t % 2 else None for t in range(C + H)]
        values = g.normal(50, 10, (C + H, 2)).astype(np.float32)
        low, high = (np.array([bound if says else np.nan, np.nan], np.float32) for bound in (30.0, 40.0))
        return Record(
            f"{part}{i}", np.arange(C + H) * 1.0, values, texts, GOAL if says else None, low, high, goal_start=C - 1
        )


def network(backbone: str, **options: Any) -> GoalNetwork:
    options = {"latent_dim": 4, "hidden_dim": 16, "text_layers": (1,), "goal_layer": 1, "text_steps": 3} | options
    return GoalNetwork(backbone, warmup_steps=1, **options)


def without_noise(backbone: str) -> GoalNetwork:
    """A network whose loss is a function of the batch: no noise, and every context as long as can be."""
    plain = network(backbone, min_context=C + H - 1, text_dropout=0.0, goal_dropout=0.0, alpha_text=0.0, free_nats=0.0)
    plain.draw = lambda *shape, generator=None: torch.zeros(shape)
    return plain


class Gradients(Callback):
    """Of the first step, before it is made."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.global_step == 0:
            self.found = {name: p.grad.clone() for name, p in pl_module.named_parameters()}


class FirstNoise(Callback):
    """The first numbers that training would draw, without drawing them."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.drawn = torch.randn(4, generator=pl_module.noise.clone_state())


class Rows(ToyNetwork):
    """Writes down which rows it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Tensor] = []

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        self.rows.append(batch[0])
        return super().training_step(batch, index)


class Explodes(ToyNetwork):
    """Its loss is NaN at the third step of rank 1."""

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = super().training_step(batch, index)
        return loss * float("nan") if self.global_rank == 1 and index == 2 else loss


def toy(folder: Path, callbacks: Sequence[Callback] = (), model: Rows | None = None, **options: Any) -> dict[str, Any]:
    """A run of the toy network, or its continuation; 23 rows in batches of 3 by two processes are 4 steps an epoch."""
    seed_everything(0, verbose=False)
    model, last = model or Rows(), checkpoint_file(folder, LAST)
    resumed = last if last.exists() else None
    trainer = trainer_for(folder, callbacks, None if resumed is None else 0, **(PAIR | options))
    trainer.strategy.barrier()
    with suppress(Interrupted):
        trainer.fit(model, datamodule=ToyData(3, 23), ckpt_path=resumed, weights_only=True)
    return {"rows": model.rows, "weights": weights(trainer), "step": trainer.global_step}


def stopped(out: Path, rank: int) -> dict[str, Any]:
    """An uninterrupted run, and one in which only the second process hears of a stop, within an epoch."""
    whole = toy(out / "whole")
    first = toy(out / "parts", [StopAfter(6)] if rank == 1 else [])
    if rank == 0:
        shutil.copytree(out / "parts", out / "alone")  # where one process will go on
    return {"whole": whole, "first": first, "second": toy(out / "parts")}


def exploded(out: Path, rank: int) -> dict[str, Any]:
    try:
        toy(out / "exploded", [GradientNormCheck()], Explodes())
    except GradientError as error:
        return {"error": str(error)}
    return {"error": None}


def goals(out: Path, rank: int, backbone: str) -> dict[str, Any]:
    """Training in which rank 1 never sees a goal or a text, and validation of what came of it."""
    seed_everything(0, verbose=False)
    first, model = FirstNoise(), network(backbone)
    guards = [GradientNormCheck(patience=1), FrozenBackboneGuard(), first]
    trainer = trainer_for(out / "goals", guards, max_epochs=1, logger=False, **PAIR)
    trainer.fit(model, datamodule=Windows())
    told = {"weights": weights(trainer), "first": first.drawn, "noise": model.noise.get_state()}
    resumed = network(backbone)
    last = checkpoint_file(out / "goals", LAST)
    trainer = trainer_for(out / "goals", max_epochs=1, logger=False, **PAIR)
    trainer.fit(resumed, datamodule=Windows(), ckpt_path=last, weights_only=True)
    told["resumed"] = resumed.noise.get_state()
    for batch_size in (2, 8):
        told[f"validated {batch_size}"] = validated(out, backbone, batch_size, **PAIR)
    return told


def validated(out: Path, backbone: str, batch_size: int, **options: Any) -> dict[str, float]:
    """The scores of the last checkpoint."""
    seed_everything(0, verbose=False)
    trainer = trainer_for(out / "validation", logger=False, **options)
    last = checkpoint_file(out / "goals", LAST)
    (scores,) = trainer.validate(
        network(backbone), Windows(batch_size), ckpt_path=last, weights_only=True, verbose=False
    )
    return scores


def gradients(out: Path, backbone: str, batch_size: int, **options: Any) -> dict[str, Tensor]:
    """Of the first step, without noise."""
    seed_everything(0, verbose=False)
    kept = Gradients()
    trainer = trainer_for(
        out / "gradients", [kept], max_epochs=-1, max_steps=1, logger=False, limit_val_batches=0, **options
    )
    trainer.fit(without_noise(backbone), datamodule=Windows(batch_size, silent=True))
    return kept.found


def main(backbone: str, folder: str) -> None:
    torch.set_num_threads(1)
    rank, out = int(os.environ["LOCAL_RANK"]), Path(folder)
    os.environ["GSSR_CACHE"] = str(out / "cache")
    told = {
        "stopped": stopped(out, rank),
        "exploded": exploded(out, rank),
        "goals": goals(out, rank, backbone),
        "gradients": gradients(out, backbone, 2, **PAIR),
    }
    torch.save(told, out / f"rank{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
