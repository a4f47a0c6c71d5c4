"""Train a small language model: which one, for what, and on which data are three choices of a config.

python -m datamodules.text.build --out corpus
python train.py fit --config configs/pretrain_nano.yaml
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning import LightningModule
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from gssr.backbone.accelerate import accelerate_on_cpu
from gssr.backbone.cpu import prepare_cpu
from gssr.backbone.loading import decoder_layers
from gssr.domains import checked
from gssr.training.architectures import Architecture, Nano
from gssr.training.dropout import row_dropout
from gssr.training.objectives import Batch, NextToken, Objective
from gssr.training.optimizers import MuonAdamWConfig


class LanguageModelData(Protocol):
    """What the training needs of a LightningDataModule whose batches are those of `gssr.training.objectives`.

    ``sources`` names the validation loaders in their order. ``heldout_bytes`` holds the bytes of each source's
    held-out text; a mapping without entries stands for data that is not measured in bytes. ``tokenizer`` is saved
    with the finished model.
    """

    sources: Sequence[str]
    heldout_bytes: Mapping[str, int]
    tokenizer: PreTrainedTokenizerBase


@checked
class LanguageModelTraining(LightningModule):
    """A language model under an objective.

    Validation reports bits per byte for each source, or nats per token where the data counts no bytes.

    Args:
        architecture: the model, a class of `gssr.training.architectures` or a subclass of ``Architecture``.
        objective: the loss, a class of `gssr.training.objectives` or a subclass of ``Objective``.
        optimizer: options of Muon and AdamW.
        compile_layers: fuse each layer with ``torch.compile``: about twice as fast on a CPU; needs a C++ compiler.
        export: folder for the finished model (bfloat16 safetensors, config, tokenizer), written at the end of ``fit``.
    """

    def __init__(
        self,
        architecture: Callable[[], Architecture] = Nano,
        objective: Callable[[], Objective] = NextToken,
        optimizer: MuonAdamWConfig = MuonAdamWConfig(),  # noqa: B008, frozen
        compile_layers: bool = True,
        export: str = "corpus/nano",
    ) -> None:
        super().__init__()
        prepare_cpu()
        self.model = architecture().build()
        accelerate_on_cpu(sys.modules[type(self.model).__module__])
        self.objective, self.optimizer = objective(), optimizer
        self.compile_layers, self.export = compile_layers, export

    def setup(self, stage: str) -> None:
        if self.trainer.datamodule is None:
            raise ValueError(
                "a language model takes its sources and its tokenizer from a data module, and this trainer has none; "
                "give one, such as trainer.fit(model, datamodule=...)"
            )

    def on_fit_start(self) -> None:
        if self.trainer.world_size > 1:
            raise ValueError(
                f"language models are trained in one process, not in {self.trainer.world_size}: validation sums over "
                "all held-out rows; set --trainer.devices 1"
            )
        if self.compile_layers:
            hooked = self.objective.hooks_layers or bool(getattr(self.trainer.datamodule, "dropout", None))
            if hooked:
                raise ValueError(
                    "compiled layers know no hooks, which dropout by rows and InductionHeads need; set "
                    "--model.compile_layers false"
                )
            for layer in decoder_layers(self.model):
                layer.compile()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        with row_dropout(self.model, batch.get("dropout")):
            total, weight = self.objective(self.model, batch)
        loss = total / weight
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"the loss is {loss.item()} at step {self.global_step}; resume from the last checkpoint with a lower lr"
            )
        self.log("train/nats_per_token", loss, prog_bar=True)
        self.log("train/lr", self.optimizers().param_groups[0]["lr"])
        return loss

    def on_validation_epoch_start(self) -> None:
        self._nats = dict.fromkeys(self.trainer.datamodule.sources, 0.0)
        self._weights = dict(self._nats)

    def validation_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        source = self.trainer.datamodule.sources[dataloader_idx]
        total, weight = self.objective(self.model, batch)
        self._nats[source] += total.double().item()
        self._weights[source] += weight.double().item()

    def on_validation_epoch_end(self) -> None:
        found = {s: nats for s, nats in self._nats.items() if self._weights[s]}
        if not found:
            return
        if size := self.trainer.datamodule.heldout_bytes:
            name, values = "val/bits_per_byte", {s: nats / math.log(2) / size[s] for s, nats in found.items()}
        else:
            name, values = "val/nats_per_token", {s: nats / self._weights[s] for s, nats in found.items()}
        for source, value in values.items():
            self.log(f"{name}_{source}", value)
        self.log(name, sum(values.values()) / len(values), prog_bar=True)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.optimizer.build(self.named_parameters())
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.optimizer.rate(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_end(self) -> None:
        if self.trainer.is_global_zero and self.trainer.global_step >= self.trainer.estimated_stepping_batches:
            self.save_pretrained(Path(self.export))

    def save_pretrained(self, folder: Path) -> None:
        """Write the model as a transformers folder: bfloat16 safetensors, config and tokenizer."""
        model = type(self.model)(self.model.config)
        model.load_state_dict(self.model.state_dict())
        model.to(torch.bfloat16).save_pretrained(folder)
        self.trainer.datamodule.tokenizer.save_pretrained(folder)
