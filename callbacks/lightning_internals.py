"""The private parts of Lightning 2.6 that exact resuming needs, and why. Only `gssr.network.fitting` uses one more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning import Trainer


def validation_follows(trainer: Trainer) -> bool:
    """Whether a validation follows the batch that ends now.

    Lightning has no public answer, and it skips a validation that was due when a checkpoint was saved.
    """
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def log_step(trainer: Trainer) -> None:
    """Log the step that ends now; Lightning logs it again, with the same values, after `on_train_batch_end`.

    A process that is killed between a save in that hook and Lightning's own logging would leave a state whose log lacks
    the step.
    """
    trainer._logger_connector.update_train_step_metrics()


@contextmanager
def step_counted(trainer: Trainer) -> Iterator[None]:
    """Count the step that a validation follows as done, in what is saved meanwhile.

    Lightning counts it after the validation. A resumed run that would not validate there would log its next step as the
    same one.
    """
    loop = trainer.fit_loop.epoch_loop
    loop._batches_that_stepped += 1
    try:
        yield
    finally:
        loop._batches_that_stepped -= 1


def close_complete_epoch(trainer: Trainer) -> None:
    """Let a run that was saved at the end of an epoch go on with the next one.

    With `max_steps`, Lightning treats such an epoch as unfinished and trains a step of the next one as a part of it.
    """
    loop = trainer.fit_loop
    if not loop.restarted_on_epoch_end:
        return
    for progress in (loop.epoch_progress.total, loop.epoch_progress.current):
        progress.completed = progress.processed
    loop.reset_restart_stage()
    loop._restarting = loop.epoch_loop.restarting = False


def batches_done(trainer: Trainer) -> int:
    """Batches of the current epoch that training has received, as Lightning counts them."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready


def count_batches_as(trainer: Trainer, done: int) -> None:
    """Set that count, where a resumed run has another batch size: Lightning ends an epoch by it."""
    progress = trainer.fit_loop.epoch_loop.batch_progress.current
    change = done - progress.ready
    for name in ("completed", "processed", "started", "ready"):
        setattr(progress, name, getattr(progress, name) + change)
