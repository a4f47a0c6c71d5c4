"""Short runs of the toy network, for the tests of everything that stops and resumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything

from callbacks import AtomicCheckpointIO, CsvLog, Interrupted, ResumePosition, RunCheckpoints, TrainingRandomness
from gssr.runs.folders import LAST, checkpoint_file
from tests.toy import ToyData, ToyNetwork


class StopAfter(Callback):
    """Asks for a stop as Ctrl-C does, after an optimizer step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            saver = next(callback for callback in trainer.callbacks if isinstance(callback, RunCheckpoints))
            saver._asked_to_stop(2, None)


def trainer_for(
    folder: Path, callbacks: Sequence[Callback] = (), resume_step: int | None = None, **options: Any
) -> Trainer:
    """A trainer as train.py makes it, without bars and tables."""
    usual = {"max_epochs": 3, "checkpoint": {"every_n_steps": 1000, "keep": 0}, "logger": None}
    options = usual | {"num_sanity_val_steps": 0} | options
    checkpoint = RunCheckpoints(**options.pop("checkpoint"))
    if options["logger"] is None:
        options["logger"] = CsvLog(folder, resume_step)
    return Trainer(
        default_root_dir=folder,
        callbacks=[TrainingRandomness(), ResumePosition(), *callbacks, checkpoint],
        plugins=[AtomicCheckpointIO()],
        accelerator="cpu",
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def train(
    folder: Path,
    stop: int | None = None,
    resume: bool = False,
    network: LightningModule | None = None,
    data: ToyData | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Trainer:
    """Train from the start or from the folder's last checkpoint, up to the end or to a stop."""
    seed_everything(0, verbose=False)
    network, data = network or ToyNetwork(), data or ToyData()
    last = checkpoint_file(folder, LAST) if resume else None
    step = None if last is None else torch.load(last, weights_only=True)["global_step"]
    trainer = trainer_for(folder, [*callbacks, *([] if stop is None else [StopAfter(stop)])], step, **options)
    try:
        trainer.fit(network, datamodule=data, ckpt_path=last, weights_only=True)
    except Interrupted:
        assert stop is not None
    return trainer


def weights(trainer: Trainer) -> list[torch.Tensor]:
    assert trainer.lightning_module is not None
    return [value.clone() for value in trainer.lightning_module.state_dict().values()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))
