"""Train a projector around a frozen model.

    python train.py fit --config configs/facts.yaml     # facts: what is written
    python train.py fit --config configs/force.yaml     # words: what is said next

The batches are those of `FactProjector.judge` and `TokenProjector.judge`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from gssr.backbone.config import BackboneConfig
from gssr.control.compose import beginning
from gssr.control.projector import Batch, FactProjector, Projector, shapes_of
from gssr.control.saved import save_projector
from gssr.domains import Count, Positive, checked


@checked
class ProjectorTraining(LightningModule):
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
        super().__init__()
        self.backbone = backbone.load()
        self.projector = projector()
        self.projector.prepare(self.backbone, shapes_of(beginning(self.backbone)))
        self.export, self.lr, self.warmup_steps = Path(export), lr, warmup_steps

    def on_fit_start(self) -> None:
        self.backbone.to(self.device)

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

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.AdamW(self.projector.parameters(), lr=self.lr, weight_decay=0.0)
        steps = self.trainer.estimated_stepping_batches

        def rate(step: int) -> float:
            return min((step + 1) / self.warmup_steps, 1.0 - step / steps)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_end(self) -> None:
        if self.trainer.is_global_zero and self.trainer.global_step >= self.trainer.estimated_stepping_batches:
            self.export.parent.mkdir(parents=True, exist_ok=True)
            save_projector(self.export, self.projector, self.backbone)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["backbone"] = self.backbone.identity()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get("backbone", {})
        if saved.get("fingerprint") != self.backbone.fingerprint:
            raise ValueError(
                f"the checkpoint is around {saved.get('name')!r} ({saved.get('fingerprint')}), this backbone is "
                f"{self.backbone.name!r} ({self.backbone.fingerprint}); give the same weights with "
                "--model.backbone.name and .dtype"
            )

    def _log(self, stage: str) -> None:
        means = {name: torch.cat(parts).float().mean() for name, parts in self._right.items()}
        for name, right in means.items():
            self.log(f"{stage}/right_{name}", right)
        if means:
            self.log(f"{stage}/right", torch.stack(list(means.values())).mean(), prog_bar=True)
