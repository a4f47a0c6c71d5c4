"""A running average of the weights, which validation, checkpoints and the end of training use."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from gssr.domains import ProperFraction, checked


@checked
class WeightAverage(Callback):
    """Keeps an exponential average of all parameters over the optimizer steps (Polyak & Juditsky 1992).

    After t steps the decay is min(decay, (1 + t) / (10 + t)). So the average reaches back over about the last ninth of
    training, and at most over 1 / (1 - decay) steps. Buffers are not averaged.

    The module holds the average from the start of a validation to the next training batch, and after training: for
    scores, pictures, and calibration. A checkpoint's `state_dict` is the average. This callback's part of the
    checkpoint holds the trained weights, from which a resumed run goes on; without them the average starts from the
    module's weights.

    Lightning's WeightAveraging copies the complete module with its frozen language model, does not keep buffers in
    step, and restores the trained weights before the module's own end of validation.

    Args:
        decay: largest share of the average that a step keeps; at least 0 and less than 1.
    """

    def __init__(self, decay: ProperFraction = 0.999) -> None:
        self.decay = decay
        self._aside: dict[str, Tensor] = {}  # the set of weights that is not in the module
        self._average_in_place = False
        self._trained: dict[str, Tensor] | None = None  # from the checkpoint that is resumed
        self._step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A checkpoint has put the average into the module.
        self._aside = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
        if self._trained is not None:
            self._aside = {name: self._trained[name].to(old) for name, old in self._aside.items()}
            self._trained = None
        self._average_in_place = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put(pl_module, average=False)
        self._step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._put(pl_module, average=False)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:  # gradients are being accumulated
            return
        self._step = trainer.global_step
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        for name, p in pl_module.named_parameters():
            self._aside[name].lerp_(p.detach(), 1 - decay)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._put(pl_module, average=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put(pl_module, average=True)

    @torch.no_grad()
    def _put(self, pl_module: LightningModule, average: bool) -> None:
        """Exchange the two sets of weights, unless the module holds the right one."""
        if average == self._average_in_place:
            return
        for name, p in pl_module.named_parameters():
            kept = p.detach().clone()
            p.copy_(self._aside[name])
            self._aside[name] = kept
        self._average_in_place = average

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self._aside:  # outside of training there is one set of weights
            return
        inside = {name: checkpoint["state_dict"][name] for name in self._aside}
        average, trained = (inside, self._aside) if self._average_in_place else (self._aside, inside)
        own = {id(p): name for name, p in pl_module.named_parameters()}
        for name, p in pl_module.named_parameters(remove_duplicate=False):  # a shared parameter has several names
            checkpoint["state_dict"][name] = average[own[id(p)]]
        checkpoint["callbacks"][self.state_key] = {"trained": trained}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._trained = state_dict["trained"]
