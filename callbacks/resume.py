"""Restores what Lightning does not: random numbers, the place in an epoch, and options that the user changed."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from callbacks.lightning_internals import batches_done, close_complete_epoch, count_batches_as
from gssr import ranks
from gssr.files import atomic_write
from gssr.sequences.batches import EpochBatches, EpochLoader, steps


def random_state() -> dict[str, Any]:
    """The state of every global generator, in types that `torch.load(weights_only=True)` reads."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Inverse of `random_state`. States of GPUs are set only if their number is the same."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0):
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


class TrainingRandomness(Callback):
    """Gives training its own stream of random numbers, and keeps it in the checkpoint.

    The state at the end of one batch is restored at the start of the next. So a validation, a new iterator or a figure
    that draws numbers in between does not change training, and a stopped run goes on exactly.

    Each of several processes has its own stream, and the checkpoint holds all of them; the first process has the stream
    of a run in one process. With more processes than before, the additional ones begin new streams.
    """

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None
        self._saved: list[dict[str, Any]] = []  # by rank, of the checkpoint that is resumed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rank, world = ranks.rank(), ranks.world()
        if self._saved and len(self._saved) != world:
            rank_zero_info(
                f"The checkpoint is of {len(self._saved)} processes, this run has {world}: every window still comes "
                "once an epoch, but batches and random numbers differ from those of an uninterrupted run"
            )
        if rank < len(self._saved):
            self._state = self._saved[rank]
        elif rank > 0 and self._state is None:
            seed = ranks.seed_of(torch.initial_seed(), rank)
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
        self._saved = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._state is not None:
            set_random_state(self._state)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._state = random_state()

    def state_dict(self) -> dict[str, Any]:
        """Collective, as saving a checkpoint is."""
        states = ranks.gather(self._state)
        return {} if None in states else {"ranks": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict.get("ranks", [])


class ResumePosition(Callback):
    """Keeps in the checkpoint how many windows of the epoch training has received, and goes on behind them.

    Another batch size, number of workers or number of processes is honoured: what is left of the epoch comes in batches
    of the new size. Works for data modules whose training loader is an `EpochLoader`; the state of any other loader is
    left to Lightning. Raises ValueError where the loader cannot go on, and warns where the scaler of the data module
    shows other training data than those of the checkpoint.
    """

    def __init__(self) -> None:
        self._loader: EpochLoader | None = None
        self._epoch: dict[str, int] | None = None  # the size of an epoch, see `_describe`
        self._order: dict[str, int] | None = None  # the loader's state in the checkpoint that is resumed
        self._scaler: dict[str, list[float]] | None = None  # of the training data

    def state_dict(self) -> dict[str, Any]:
        order = None if self._loader is None else self._loader.state_dict()
        return {"order": order, "epoch": self._epoch, "scaler": self._scaler}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._order, self._epoch, self._scaler = (state_dict[name] for name in ("order", "epoch", "scaler"))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        close_complete_epoch(trainer)
        loader = trainer.train_dataloader
        self._loader = loader if isinstance(loader, EpochLoader) else None
        if self._loader is not None:
            if self._order is not None:
                self._loader.load_state_dict(self._order)
            now = self._describe(self._loader.batch_sampler, int(trainer.num_training_batches))
            if self._epoch is not None and now != self._epoch:
                self._count_anew(trainer, self._loader.batch_sampler, self._epoch, now)
            self._epoch, self._order = now, None
        self._compare_scaler(trainer)

    @staticmethod
    def _describe(batches: EpochBatches, limit: int) -> dict[str, int]:
        """Batches of an epoch: how many are trained on, how many there are, and of what size each is."""
        return {"limit": limit, "batches": len(batches), "batch_size": batches.batch_size, "world": batches.world}

    @staticmethod
    def _count_anew(trainer: Trainer, batches: EpochBatches, old: dict[str, int], new: dict[str, int]) -> None:
        """Count the part of the epoch that is done in batches of the new size."""
        done = batches_done(trainer)
        if done >= old["limit"]:
            count_batches_as(trainer, new["limit"])
        elif done > 0:
            if any(epoch["limit"] != epoch["batches"] for epoch in (old, new)):
                raise ValueError(
                    f"the checkpoint lies within an epoch of {old['limit']} batches of {old['batch_size']}, an epoch "
                    f"now has {new['limit']} of {new['batch_size']}; change limit_train_batches at the end of an "
                    "epoch, or leave it as it was"
                )
            left = steps(batches.size - batches.position, batches.batch_size, batches.world)
            count_batches_as(trainer, new["batches"] - left)

    def _compare_scaler(self, trainer: Trainer) -> None:
        scaler = getattr(trainer.datamodule, "scaler", None)
        if not isinstance(scaler, nn.Module):
            return
        fitted = {name: value.double().flatten().tolist() for name, value in scaler.state_dict().items()}
        if self._scaler is not None and self._scaler != fitted:
            rank_zero_warn(
                f"the training data are not those of the checkpoint: their scaler is {fitted}, the checkpoint's is "
                f"{self._scaler}. Training goes on with the new data and the old scaler; for the old data, give the "
                "data options and files that the run began with."
            )
        self._scaler = fitted


class ConfigOfResumedRun(Callback):
    """Writes the options of a resumed run into its folder after the first optimizer step that was made with them.

    Options that end a run before that leave the former ones, with which it goes on. The former options, if they differ,
    stay beside the new ones as `config-until-step-<n>.yaml`.
    """

    def __init__(self, file: Path, text: str, step: int) -> None:
        self.file, self.text, self.step = file, text, step
        self._written = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._written or trainer.global_step == self.step:
            return
        self._written = True
        if not trainer.is_global_zero or self.file.read_text(encoding="utf-8") == self.text:
            return
        until = self.file.with_name(f"{self.file.stem}-until-step-{self.step:06d}{self.file.suffix}")
        for file, text in ((until, self.file.read_text(encoding="utf-8")), (self.file, self.text)):
            with atomic_write(file) as draft:
                draft.write(text)


class HonourOptimizerOptions(Callback):
    """Lets the options and the schedule of this call win over those of the checkpoint.

    Loading the state of an optimizer or a scheduler brings back the old options, and the rate that the old schedule
    had for the next step. The schedule keeps its position. The rate of a `LambdaLR` is computed anew for that position,
    since the length of training may have changed; that of another scheduler is scaled. Where nothing was changed, no
    bit changes.

    Args:
        options: Whether options of the optimizer may have been changed. Otherwise only the schedule counts, since
            optimizers and other schedulers change options in training, too.
    """

    def __init__(self, options: bool = True) -> None:
        self.options = options
        self._wanted: list[list[dict[str, Any]]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._wanted = [[_options(group) for group in optimizer.param_groups] for optimizer in trainer.optimizers]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer, groups in zip(trainer.optimizers, self._wanted, strict=True):
            schedulers = [c.scheduler for c in trainer.lr_scheduler_configs if c.scheduler.optimizer is optimizer]
            for i, (group, wanted) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
                before = dict(group)
                if self.options:
                    self._honour(group, wanted)
                for scheduler in schedulers:
                    if self.options and "initial_lr" in wanted and hasattr(scheduler, "base_lrs"):
                        scheduler.base_lrs[i] = wanted["initial_lr"]
                    if isinstance(scheduler, LambdaLR):
                        group["lr"] = scheduler.base_lrs[i] * scheduler.lr_lambdas[i](scheduler.last_epoch)
                    scheduler._last_lr[i] = group["lr"]
                for name, value in group.items():
                    if name != "params" and before.get(name) != value:
                        rank_zero_info(f"{type(optimizer).__name__}: {name} {before.get(name)} -> {value} from here on")

    @staticmethod
    def _honour(group: dict[str, Any], wanted: dict[str, Any]) -> None:
        old = group.get("initial_lr")
        group |= {name: value for name, value in wanted.items() if name != "lr"}
        if "initial_lr" not in wanted:  # no schedule
            group["lr"] = wanted["lr"]
        elif old:
            group["lr"] *= wanted["initial_lr"] / old


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy({name: value for name, value in group.items() if name != "params"})
