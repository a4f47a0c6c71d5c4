"""Train a projector around a frozen model.

    python train.py fit --config configs/facts.yaml     # facts: what is written
    python train.py fit --config configs/force.yaml     # words: what is said next

The batches are those of `FactProjector.judge` and `TokenProjector.judge`.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gssr.backbone.config import BackboneConfig
from gssr.control.compose import beginning
from gssr.control.projector import Batch, FactProjector, Projector, shapes_of
from gssr.control.saved import save_projector
from gssr.domains import Count, Positive, checked
from gssr.training.around_frozen import AroundFrozen


@checked
class ProjectorTraining(AroundFrozen):
    """A projector; the backbone stays as it is.

    Args:
        backbone: the frozen model.
        projector: a class of `gssr.control.projector`.
        export: safetensors file of the projector, written at the end of ``fit``.
        lr: peak learning rate of AdamW.
        warmup_steps: steps of linear warm-up; the rate then falls linearly to zero.
    """

    def __init__(
        self,
        backbone: BackboneConfig = BackboneConfig(),  # noqa: B008, frozen
        projector: Callable[[], Projector] = FactProjector,
        export: str = "projector.safetensors",
        lr: Positive = 3e-3,
        warmup_steps: Count = 20,
    ) -> None:
        super().__init__(backbone, export, lr, warmup_steps)
        self.projector = projector()
        self.projector.prepare(self.backbone, shapes_of(beginning(self.backbone)))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        loss, right = self.projector.judge(self.backbone, batch)
        self.log("train/nats", loss, prog_bar=True)
        self.log("train/right", right.float().mean())
        return loss

    def on_validation_epoch_start(self) -> None:
        self._right: dict[str, list[Tensor]] = {}

    def validation_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        name = self.trainer.datamodule.sources[dataloader_idx]
        self._right.setdefault(name, []).append(self.projector.judge(self.backbone, batch)[1].flatten().cpu())

    def on_validation_epoch_end(self) -> None:
        self._log("val")

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def test_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        self.validation_step(batch, index, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        self._log("test")

    def write(self, file: Path) -> None:
        save_projector(file, self.projector, self.backbone)

    def _log(self, stage: str) -> None:
        means = {name: torch.cat(parts).float().mean() for name, parts in self._right.items()}
        for name, right in means.items():
            self.log(f"{stage}/right_{name}", right)
        if means:
            self.log(f"{stage}/right", torch.stack(list(means.values())).mean(), prog_bar=True)
