"""What Lightning leaves out when it resumes: random numbers, and options that a checkpoint would silently undo."""

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

from gssr import ranks
from gssr.files import atomic_write
from gssr.sequences.batches import EpochBatches, steps, taken


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
    """Inverse of `random_state`. States of GPUs are set only where there are as many as there were."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0):
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


class TrainingRandomness(Callback):
    """Gives training a stream of random numbers of its own, and keeps it in the checkpoint.

    The stream goes from the end of one batch to the start of the next, whatever drew numbers in between: a validation, a data
    loader's new iterator, a figure. So neither of them changes training, and a run that was stopped anywhere goes on exactly.

    With several processes each has a stream of its own (the first one that of a run in one process), and the checkpoint holds
    all of them. With another number of processes than before, streams that are there go on, and others begin.
    """

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None
        self._saved: list[dict[str, Any]] = []  # by rank, of the checkpoint that is resumed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rank, world = ranks.rank(), ranks.world()
        if self._saved and len(self._saved) != world:
            rank_zero_info(
                f"The checkpoint is of {len(self._saved)} processes, this run has {world}: every window still comes once an epoch, "
                "but from here on batches and random numbers are others than those of a run that was not stopped"
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


class ResumeLoader(Callback):
    """Lets the training loader go on where it stood, in the cases in which Lightning drops the state that it saved.

    It does so when a network asks for `trainer.estimated_stepping_batches` while its optimizer is made (that builds the loader
    before the state is read), and when the saved epoch was complete. Another batch size is honoured, too: what is left of
    the epoch comes in batches of the new size, or in those of another number of processes. So is another number of workers. Raises
    ValueError where the loader cannot go on, and warns where the data are not those of the checkpoint.
    """

    def __init__(self) -> None:
        self._epoch: dict[str, int] | None = None  # of the run that was saved, see `_describe`
        self._scaler: dict[str, list[float]] | None = None  # of the data of the run that was saved

    def state_dict(self) -> dict[str, Any]:
        return {**(self._epoch or {}), **({"scaler": self._scaler} if self._scaler else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self._scaler = state.pop("scaler", None)
        self._epoch = state or None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Before the loops are read, since Lightning hands their state to the loader itself where it can.
        loop = checkpoint.get("loops", {}).get("fit_loop", {}).get("state_dict", {})
        workers = getattr(trainer.datamodule, "num_workers", None)
        if trainer.state.fn == "fit" and isinstance(workers, int) and loop.get("combined_loader"):
            loop["combined_loader"] = [with_workers(state, workers) for state in loop["combined_loader"]]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loop = trainer.fit_loop
        complete = loop.restarted_on_epoch_end  # and no validation was due there
        if complete:
            # Only where max_steps is given; Lightning would train a step of the next epoch as one of this.
            for progress in (loop.epoch_progress.total, loop.epoch_progress.current):
                progress.completed = progress.processed
            loop.reset_restart_stage()
            loop._restarting = loop.epoch_loop.restarting = False
        states = loop._combined_loader_states_to_load
        if states:
            assert loop._combined_loader is not None and loop._data_fetcher is not None
            try:
                loop._combined_loader._load_state_dicts(states)
                loop._combined_loader_states_to_load = []
                iter(loop._data_fetcher)  # the iterator that was made before knows nothing of the state
                if not loop.restarted_mid_epoch:
                    iter(loop._data_fetcher)  # that one stands at its end; training begins a new epoch
            except (AssertionError, KeyError, TypeError, IndexError) as error:
                raise ValueError(
                    f"the training data cannot go on from the checkpoint ({type(error).__name__}: {error}); use the data options "
                    "that it was made with"
                ) from error
        elif complete:
            iter(loop._data_fetcher)
        now = self._describe(trainer)
        if self._epoch and now and now != self._epoch:
            self._rescale(loop.epoch_loop.batch_progress, self._epoch, now)
        self._epoch = now
        self._compare_scaler(trainer)

    def _compare_scaler(self, trainer: Trainer) -> None:
        scaler = getattr(trainer.datamodule, "scaler", None)
        if not isinstance(scaler, nn.Module):
            return
        fitted = {name: value.double().flatten().tolist() for name, value in scaler.state_dict().items()}
        if self._scaler is not None and self._scaler != fitted:
            rank_zero_warn(
                f"the training data are not those of the checkpoint: they scale by {fitted}, it by {self._scaler}. Training goes on "
                "with the new data and the old scale; for the old data, give the data options and files that the run began with."
            )
        self._scaler = fitted

    @staticmethod
    def _describe(trainer: Trainer) -> dict[str, int] | None:
        """An epoch: batches that are trained on, batches there are, their size, processes, and rows over all of these."""
        loader, batches = trainer.train_dataloader, trainer.num_training_batches
        own = getattr(loader, "batch_sampler", None)
        if isinstance(own, EpochBatches):
            size, world, rows = own.batch_size, own.world, own.size
        else:
            size, world, sampler = getattr(loader, "batch_size", None), 1, getattr(loader, "sampler", None)
            rows = len(sampler) if hasattr(sampler, "__len__") else 0
        if not size or not rows or batches == float("inf"):
            return None
        return {"batches": int(batches), "whole": steps(rows, size, world), "size": size, "world": world, "rows": rows}

    @staticmethod
    def _rescale(progress: Any, old: dict[str, int], new: dict[str, int]) -> None:
        """Count the part of the epoch that is done in batches of the new size."""
        done = progress.current.ready
        ready = min(done, new["batches"]) if done < old["batches"] else new["batches"]
        if 0 < done < old["batches"]:
            if old["rows"] != new["rows"] or any(e["batches"] != e["whole"] for e in (old, new)):
                raise ValueError(
                    f"the checkpoint lies within an epoch of {old['batches']} batches of {old['size']}, an epoch now has "
                    f"{new['batches']} of {new['size']}; change the amount of data at the end of an epoch, or leave it as it was"
                )
            left = old["rows"] - taken(old["rows"], old["size"], old["world"], done)
            ready = new["batches"] - steps(left, new["size"], new["world"])
        for name in ("completed", "processed", "started", "ready"):
            setattr(progress.current, name, getattr(progress.current, name) + ready - done)


def with_workers(state: dict[str, Any], workers: int) -> dict[str, Any]:
    """The state of a `StatefulDataLoader` over a map-style dataset, as it would be with another number of worker processes.

    What comes next is decided by the sampler, whose state is the same with and without workers; those keep nothing. Raises
    ValueError where the dataset has a state of its own, which lies in as many parts as there were workers, and where the
    loader does not keep its state at every step.
    """
    snapshot = state.get("_snapshot")
    main = snapshot["_main_snapshot"] if snapshot else state
    before = main["_num_workers"] if snapshot else 0
    if before == workers or "_sampler_iter_state" not in main:
        return state
    parts = list(snapshot["_worker_snapshots"].values()) if snapshot else [state]
    stateful = any(part and (part.get("dataset_state") or part.get("fetcher_state")) for part in parts)
    if stateful or (snapshot and state["_steps_since_snapshot"]):
        raise ValueError(
            f"the training data keep a state of their own with num_workers {before} and cannot go on with {workers}; leave "
            "num_workers as it was"
        )
    done = snapshot["_snapshot_step"] if snapshot else state["_num_yielded"]
    kept = (
        "_index_sampler_state",
        "_sampler_iter_state",
        "_sampler_iter_yielded",
        "_IterableDataset_len_called",
        "_shared_seed",
    )
    common = {name: main[name] for name in kept}
    if workers == 0:
        nothing = {"fetcher_state": None, "dataset_state": None}
        return common | nothing | {"_num_yielded": done, "_iterator_finished": state["_iterator_finished"]}
    return {
        "_snapshot": {
            "_snapshot_step": done,
            "_last_yielded_worker_id": workers - 1,  # so that the next batch is the first worker's
            "_main_snapshot": common | {"_num_workers": workers, "_base_seed": main.get("_base_seed", 0)},
            "_worker_snapshots": {},
        },
        "_steps_since_snapshot": 0,
        "_iterator_finished": state["_iterator_finished"],
    }


class ConfigOfResumedRun(Callback):
    """Writes the options that a resumed run goes on with, once its checkpoint has been accepted.

    The options that held before stay beside them as `config-until-step-<n>.yaml`, if there is a difference.
    """

    def __init__(self, file: Path, text: str, step: int) -> None:
        self.file, self.text, self.step = file, text, step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or self.file.read_text(encoding="utf-8") == self.text:
            return
        until = self.file.with_name(f"{self.file.stem}-until-step-{self.step:06d}{self.file.suffix}")
        for file, text in ((until, self.file.read_text(encoding="utf-8")), (self.file, self.text)):
            with atomic_write(file) as draft:
                draft.write(text)


class HonourOptimizerOptions(Callback):
    """Lets options of the optimizer (learning rate, weight decay, ...) that were changed on resume win over the checkpoint's.

    Loading an optimizer's or a scheduler's state brings back the old ones. Used only when an option of the model was changed,
    so that an unchanged run is exactly what it was. The schedule's position stays: a learning rate is scaled, not restarted.
    """

    def __init__(self) -> None:
        self._wanted: list[list[dict[str, Any]]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._wanted = [[_options(group) for group in optimizer.param_groups] for optimizer in trainer.optimizers]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer, groups in zip(trainer.optimizers, self._wanted, strict=True):
            schedulers = [c.scheduler for c in trainer.lr_scheduler_configs if c.scheduler.optimizer is optimizer]
            for i, (group, wanted) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
                for name, value in wanted.items():
                    old = group.get(name)
                    if name == "lr" or old == value:
                        continue
                    group[name] = value
                    rank_zero_info(f"{type(optimizer).__name__}: {name} {old} -> {value} from here on")
                    if name == "initial_lr":
                        group["lr"] *= value / old
                        for scheduler in schedulers:
                            scheduler.base_lrs[i] = value
                            scheduler._last_lr[i] = group["lr"]
                if "initial_lr" not in wanted and group["lr"] != wanted["lr"]:
                    rank_zero_info(f"{type(optimizer).__name__}: lr {group['lr']} -> {wanted['lr']} from here on")
                    group["lr"] = wanted["lr"]


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy({name: value for name, value in group.items() if name != "params"})
