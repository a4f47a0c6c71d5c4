"""The training of a small part around a frozen model, which is written into a file of its own at the end."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule

from gssr.backbone.config import BackboneConfig


class AroundFrozen(LightningModule):
    """What such trainings share: the backbone stays as it is and is in no checkpoint, only its identity.

    Args:
        backbone: the frozen model.
        export: file of the trained part, written at the end of ``fit``.
        lr: peak learning rate of AdamW.
        warmup_steps: steps of linear warm-up; the rate then falls linearly to zero.
    """

    def __init__(self, backbone: BackboneConfig, export: str, lr: float, warmup_steps: int) -> None:
        super().__init__()
        self.backbone = backbone.load()
        self.export, self.lr, self.warmup_steps = Path(export), lr, warmup_steps

    def write(self, file: Path) -> None:
        """Write the trained part."""
        raise NotImplementedError

    def on_fit_start(self) -> None:
        self.backbone.to(self.device)

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimizer, which may have peak rates (``lr``) of their own."""
        return [{"params": list(self.parameters())}]

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.AdamW(self.groups(), lr=self.lr, weight_decay=0.0)
        steps = self.trainer.estimated_stepping_batches

        def rate(step: int) -> float:
            return min((step + 1) / self.warmup_steps, 1.0 - step / steps)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_end(self) -> None:
        if self.trainer.is_global_zero and self.trainer.global_step >= self.trainer.estimated_stepping_batches:
            self.export.parent.mkdir(parents=True, exist_ok=True)
            self.write(self.export)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["backbone"] = self.backbone.identity()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises ValueError for a checkpoint around another model."""
        saved = checkpoint.get("backbone", {})
        if saved.get("fingerprint") != self.backbone.fingerprint:
            raise ValueError(
                f"the checkpoint is around {saved.get('name')!r} ({saved.get('fingerprint')}), this backbone is "
                f"{self.backbone.name!r} ({self.backbone.fingerprint}); give the same weights with "
                "--model.backbone.name and .dtype"
            )
