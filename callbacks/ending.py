"""When a run validates and ends, and which scores may choose its best checkpoint."""

from typing import Any

from lightning import Trainer

from gssr.runs.folders import RunError


def listed_scores(monitor: list[str] | str | None) -> list[str]:
    """The scores that choose the best checkpoint, if there are any."""
    return [monitor] if isinstance(monitor, str) else list(monitor or ())


def check_monitor(monitor: list[str] | str | None, datamodule: Any) -> None:
    """Raises ValueError for a score of windows that the data module trains on."""
    through = getattr(datamodule, "train_through", "train")
    if monitor is not None and through != "train":
        raise ValueError(
            f"data.train_through is {through}: {' and '.join(listed_scores(monitor))} scores windows that are trained "
            "on, and cannot choose the best checkpoint; add --checkpoint.monitor null, and as many passes "
            "(--trainer.max_epochs) as were best before"
        )


def check_interval(trainer: Trainer) -> None:
    """Raises RunError where a validation would fall between two optimizer steps: a checkpoint keeps no gradients."""
    window, every, batches = trainer.accumulate_grad_batches, trainer.val_check_batch, trainer.num_training_batches
    by_batches = trainer.check_val_every_n_epoch is None
    if window > 1 and ((every < batches and every % window) or (by_batches and batches % window)):
        raise RunError(
            f"with trainer.accumulate_grad_batches {window} a validation every {every} of {batches} batches falls "
            f"between two optimizer steps; choose a trainer.val_check_interval that is a multiple of {window}, or "
            "leave it out"
        )


def is_final_step(trainer: Trainer) -> bool:
    """Whether training ends after this step.

    Its state is saved at once: after the end of the epoch Lightning would count the epoch as complete.
    """
    if trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step:
        return True
    epochs = trainer.max_epochs
    return trainer.is_last_batch and epochs is not None and 0 <= epochs <= trainer.current_epoch + 1
