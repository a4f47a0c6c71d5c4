"""The checkpoints of a run: the newest state, the best, a few older ones. Ctrl-C stops without losing a step."""

from __future__ import annotations

import copy
import math
import os
import re
import shutil
import signal
import statistics
import threading
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from callbacks.ending import check_interval, check_monitor, is_final_step, listed_scores
from callbacks.lightning_internals import log_step, step_counted, validation_follows
from gssr import ranks
from gssr.domains import Count, CountOrNone, checked
from gssr.files import atomic_path
from gssr.runs.folders import BEST, CHECKPOINTS, LAST, checkpoint_file

_STATE = ("monitor", "mode", "best_scores", "best_step", "worse", "scores")
_STEP_FILE = re.compile(r"step-(\d+)\.ckpt")


class Interrupted(Exception):
    """Training stopped on request, after a complete step, with its state saved.

    Args:
        message: what happened.
        signal: number of the signal.
    """

    def __init__(self, message: str, signal: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.signal = signal


@checked
class RunCheckpoints(Checkpoint):
    """Saves into `<trainer.default_root_dir>/checkpoints`: `last.ckpt`, `best.ckpt` and `step-<n>.ckpt`.

    Training goes on from each of these files bit for bit. So `last` is written after a complete optimizer step, or
    after the validation that follows it: Lightning skips a validation that was due when the state was saved.

    Ctrl-C and SIGTERM finish the step (or the validation), save, and raise `Interrupted`. A second Ctrl-C stops at
    once. A second SIGTERM does nothing, since schedulers send it both to a process and to its group. A save needs all
    processes of a run; so they exchange after each step whether a signal came, and stop after the same step.

    A save that fails, as on a full disk, ends training with its error; older files stay as they are.

    The last step is validated in any case, wherever in an epoch it is. With a trainer that validates all batches before
    its first step (`num_sanity_val_steps: -1`) the network that was not trained yet may be the best.

    Args:
        monitor: name of the logged validation score that decides which checkpoint is best, or several: then a
            checkpoint is better where the sum of its scores is, each divided by the score's standard deviation over the
            validations so far. All but the first may be absent, as that of texts where there are none. None keeps no
            best; a data module that trains on its validation part (`train_through`) requires that.
        mode: whether small or large scores are good.
        patience: validations in a row without a better score after which training ends; None, or no monitor: it
            never does. A run that is resumed goes on counting.
        every_n_steps: optimizer steps between two states of `last`; the end of training always writes one.
        keep: number of the newest `step-<n>.ckpt` that remain; 0 writes none.
    """

    def __init__(
        self,
        monitor: list[str] | str | None = "val/open_loop_mae",
        mode: Literal["min", "max"] = "min",
        patience: Count | None = None,
        every_n_steps: Count = 200,
        keep: CountOrNone = 2,
    ) -> None:
        super().__init__()
        self.monitor, self.mode, self.every_n_steps, self.keep = monitor, mode, every_n_steps, keep
        self.patience = patience
        self.best_scores: dict[str, float] = {}
        self.scores: dict[str, list[float]] = {}  # of all validations
        self.best_step: int | None = None
        self.worse = 0  # validations since the best
        self._seen = self._saved = 0  # optimizer steps at the last batch, and at the last save
        self._due = False  # whether `last` is to be written
        self._asked = False  # whether a signal asked this process to stop
        self._stop = False  # whether any process was asked
        self._signal: int = signal.SIGINT
        self._validating = False
        self._extra = False  # whether the last step is validated only since it is the last
        self._handlers: dict[int, Any] = {}

    # Saving.

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_interval(trainer)
        self._seen = self._saved = trainer.global_step
        self._due = self._stop = self._asked = self._validating = self._extra = False
        trainer.should_stop |= self.ran_out
        self._listen()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.world_size == 1:
            self._agree()
        if self._stop and self._saved == trainer.global_step:
            raise Interrupted(f"stopped after step {trainer.global_step}", self._signal)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.fast_dev_run or trainer.global_step == self._seen:  # gradients are being accumulated
            return
        self._seen = trainer.global_step
        self._agree()
        final = is_final_step(trainer)
        if final:  # Lightning validates the step after which it was asked to stop, if its epoch is validated
            due = validation_follows(trainer)
            trainer.should_stop, trainer.check_val_every_n_epoch = True, 1
            self._extra = not due and validation_follows(trainer)
        if self._stop or trainer.global_step % self.every_n_steps == 0 or final:
            self._due = True
            if not trainer.is_last_batch and not validation_follows(trainer):
                log_step(trainer)
                self._save_last(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validating = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validating = trainer.state.fn == "fit" and not (trainer.sanity_checking or trainer.fast_dev_run)
        if trainer.sanity_checking and trainer.num_sanity_val_steps == math.inf and self.monitor is not None:
            self._improved(trainer)
            self._save(trainer, checkpoint_file(self._folder(trainer), BEST))
        if not self._validating:
            return
        if self.monitor is not None:
            improved = self._improved(trainer)
            self.worse = 0 if improved else self.worse + 1
            trainer.should_stop |= self.ran_out
            if improved:
                self._save(trainer, checkpoint_file(self._folder(trainer), BEST))
        self._agree()
        # An epoch that is complete is saved as such, unless Lightning would validate it again.
        if (self._due or self._stop or trainer.should_stop) and not (self._extra and trainer.is_last_batch):
            self._save_last(trainer)
        self._validating = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._due:
            self._save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.fast_dev_run and self._saved != trainer.global_step:
            self._save_last(trainer)
        self._unlisten()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._unlisten()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._unlisten()

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if (state_dict["monitor"], state_dict["mode"]) == (self.monitor, self.mode):
            for name in _STATE:
                setattr(self, name, copy.copy(state_dict[name]))

    @property
    def ran_out(self) -> bool:
        """Whether training ends since no validation was better for long enough."""
        return self.patience is not None and self.worse >= self.patience

    @property
    def monitored(self) -> str:
        """The scores that decide, in words."""
        return " and ".join(listed_scores(self.monitor))

    def when_best(self, trainer: Trainer) -> str:
        """Step, pass over the training windows and score of the best checkpoint, in words."""
        assert self.best_step is not None
        batches = trainer.num_training_batches / trainer.accumulate_grad_batches
        passes = f" (pass {math.ceil(self.best_step / math.ceil(batches))})" if 0 < batches < math.inf else ""
        scores = ", ".join(f"{name} {score:.4g}" for name, score in self.best_scores.items())
        several = "; their sum, each in its own spread over the validations" if len(self.best_scores) > 1 else ""
        return f"after step {self.best_step}{passes}: {scores}{several}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            check_monitor(self.monitor, trainer.datamodule)
        self._best_exists = checkpoint_file(self._folder(trainer), BEST).exists()

    def _improved(self, trainer: Trainer) -> bool:
        logged, names = trainer.callback_metrics, listed_scores(self.monitor)
        if names[0] not in logged:
            raise ValueError(
                f"checkpoint.monitor {names[0]!r} was not logged by validation; logged were {sorted(logged)}; "
                "choose one of them, or null to keep no best checkpoint"
            )
        # The first process decides for all, since a network may log a score of its own process only.
        found = ranks.gather({name: float(logged[name]) for name in names if name in logged})[0]
        for name, score in found.items():
            if math.isfinite(score):
                self.scores.setdefault(name, []).append(score)
        # A run that branched off from another one does not have that run's best checkpoint.
        known = self.best_scores if self._best_exists else {}
        if any(map(math.isnan, found.values())) or (known and not self._better(found, known)):
            return False
        self.best_scores, self.best_step, self._best_exists = found, trainer.global_step, True
        return True

    def _better(self, found: Mapping[str, float], known: Mapping[str, float]) -> bool:
        sign, change = 1.0 if self.mode == "min" else -1.0, 0.0
        for name in found.keys() & known.keys():
            change += sign * (found[name] - known[name]) / (statistics.pstdev(self.scores.get(name, [0.0])) or 1.0)
        return change < 0

    def _save(self, trainer: Trainer, file: Path) -> None:
        with step_counted(trainer) if self._extra and self._validating else nullcontext():
            trainer.save_checkpoint(file, weights_only=False)

    def _save_last(self, trainer: Trainer) -> None:
        folder = self._folder(trainer)
        last = checkpoint_file(folder, LAST)
        self._save(trainer, last)
        self._saved, self._due = trainer.global_step, False
        for logger in trainer.loggers:
            logger.save()
        if trainer.is_global_zero and self.keep:
            step_file = folder / CHECKPOINTS / f"step-{trainer.global_step:06d}.ckpt"
            step_file.unlink(missing_ok=True)
            try:
                os.link(last, step_file)  # the next `last` is another file, this name keeps the present one
            except OSError:
                with atomic_path(step_file) as draft:
                    shutil.copyfile(last, draft)  # a file system without links
            for old in self._step_files(folder)[: -self.keep]:
                old.unlink(missing_ok=True)

    @staticmethod
    def _step_files(folder: Path) -> list[Path]:
        files = {path: _STEP_FILE.fullmatch(path.name) for path in (folder / CHECKPOINTS).glob("step-*.ckpt")}
        return sorted((path for path, match in files.items() if match), key=lambda path: int(path.stem.split("-")[1]))

    @staticmethod
    def _folder(trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir)

    # Signals.

    def _agree(self) -> None:
        self._stop = ranks.any_rank(self._asked)

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python delivers signals to the main thread only
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._asked_to_stop)

    def _unlisten(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        if not self._asked:
            self._asked, self._signal = True, number
            if ranks.rank() > 0:
                return  # the first process prints the note
            what = "validation" if self._validating else "step"
            note = f"Stopping after this {what} (Ctrl-C again: at once, back to step {self._saved}) ..."
            # Not print: a signal may interrupt a print, whose buffer cannot be entered twice.
            with suppress(OSError):
                os.write(2, f"\n{note}\n".encode())
        elif number == signal.SIGINT:
            self._unlisten()
            raise KeyboardInterrupt
