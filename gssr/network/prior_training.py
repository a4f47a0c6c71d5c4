"""Train a forecaster of any single series on generated ones.

python train.py fit --config configs/pretrain_series.yaml
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from gssr.backbone.cpu import prepare_cpu
from gssr.domains import Count, Fraction, NonNegative, Positive, checked
from gssr.network.prior import SeriesPrior, spread_of

FREEDOM = 5.0  # of Student's t, whose likelihood is the loss: a wild series must not decide
FLAT = 1e-3  # spread of a context that says nothing
MOST = 50.0  # nats of a value
FARTHEST = 10.0  # spreads of an error that is counted


@checked
class SeriesPriorTraining(LightningModule):
    """Batches are those of `datamodules.GeneratedSeries`. The loss is in nats a value, in units of a context's spread.

    Args:
        lr: peak learning rate of AdamW; behind ``constant`` of the steps it falls to 0 as a cosine.
        weight_decay: of AdamW.
        warmup_steps: steps of linear warm-up.
        constant: first share of the steps with the peak learning rate.
        export: file of the finished weights, written at the end of ``fit``.
    """

    def __init__(
        self,
        lr: Positive = 2e-3,
        weight_decay: NonNegative = 0.01,
        warmup_steps: Count = 200,
        constant: Fraction = 0.36,
        export: str = "prior.safetensors",
    ) -> None:
        super().__init__()
        prepare_cpu()
        self.prior = SeriesPrior()
        self.lr, self.weight_decay, self.warmup_steps = lr, weight_decay, warmup_steps
        self.constant, self.export = constant, export

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        loss, _ = self._scores(batch)
        self.log("train/nats_per_value", loss, prog_bar=True)
        self.log("train/lr", self.optimizers().param_groups[0]["lr"])
        return loss

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        loss, error = self._scores(batch)
        self.log("val/nats_per_value", loss, prog_bar=True, batch_size=1)
        self.log("val/absolute_error", error, batch_size=1)

    def _scores(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Nats a value, and the mean absolute error, of the contexts that are not flat."""
        unit = spread_of(batch["context"])
        rows = unit[:, 0] > FLAT
        context, season, ahead, value = (batch[key][rows] for key in ("context", "season", "ahead", "value"))
        unit = unit[rows]
        mean, scale = self.prior(context, season, ahead)
        # Far beyond any likely one, so that no square overflows.
        error = ((value - mean) / scale).clamp(-1e4, 1e4)
        nats = (scale / unit).log() + (FREEDOM + 1) / 2 * (error.square() / FREEDOM).log1p()
        return nats.clamp(max=MOST).mean(), ((value - mean).abs() / unit).clamp(max=FARTHEST).mean()

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        total = self.trainer.estimated_stepping_batches

        def rate(step: int) -> float:
            behind = max(0.0, step / total - self.constant) / max(1e-9, 1 - self.constant)
            return min(1.0, (step + 1) / self.warmup_steps) * (1 + math.cos(math.pi * min(1.0, behind))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_end(self) -> None:
        if self.trainer.is_global_zero and self.trainer.global_step >= self.trainer.estimated_stepping_batches:
            self.prior.save(Path(self.export), {"steps": str(self.trainer.global_step)})
