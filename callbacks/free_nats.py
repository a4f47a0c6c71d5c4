"""Annealing of the KL's free nats."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer

from gssr.domains import CountOrNone, NonNegative, checked


@checked
class FreeNatsAnnealing(Callback):
    """Moves `pl_module.objective.free_nats` from `start` to `end` in a straight line over the first `steps` steps.

    A pure function of `trainer.global_step`, so that a resumed run needs no state. Logged as `train/free_nats`.
    """

    needs = ("objective", "active_losses")

    def __init__(self, start: NonNegative = 1.0, end: NonNegative = 0.1, steps: CountOrNone = 1000) -> None:
        self.start, self.end, self.steps = start, end, steps

    def value(self, step: int) -> float:
        """Free nats (per sequence and step, over all of D) at an optimizer step."""
        share = 1.0 if step >= self.steps else step / self.steps
        return self.start + (self.end - self.start) * share

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not hasattr(getattr(pl_module, "objective", None), "free_nats"):
            raise ValueError(
                f"FreeNatsAnnealing sets objective.free_nats, which {type(pl_module).__name__} lacks; leave the "
                "callback out"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.objective.free_nats = self.value(trainer.global_step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        pl_module.objective.free_nats = self.value(trainer.global_step)
        self.log("train/free_nats", pl_module.objective.free_nats)
