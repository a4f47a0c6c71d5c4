"""Checks that the frozen model stays frozen."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from gssr.domains import checked

_CHUNK = 1 << 24


def weight_checksum(model: nn.Module) -> int:
    """A number that changes with any bit of any parameter or buffer: 64-bit words times odd numbers, summed mod 2^64.

    The sum is computed on the weights' own device. In integers the order of additions does not matter.
    """
    total = 0
    for k, (_, tensor) in enumerate(sorted(model.state_dict().items())):
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        rest = data.numel() % 8
        words = data[: data.numel() - rest].clone() if data.storage_offset() % 8 else data[: data.numel() - rest]
        for part in (*words.view(torch.int64).split(_CHUNK), data[data.numel() - rest :].to(torch.int64)):
            place = 2 * torch.arange(part.numel(), device=part.device) + 1
            total = (total * 1_000_003 + (k + 1) * int((part * place).sum())) % (1 << 64)
    return total


@checked
class FrozenBackboneGuard(Callback):
    """Stops a run in which the backbone could be trained, is not in eval mode, or has changed.

    At the start of training `pl_module.backbone.model` must be in eval mode, require no gradient, and be in no
    optimizer and no state dict of the network. A checksum of its weights is compared at every validation and at the
    end.

    Args:
        every_validation: compare the weights at every validation, not only at the end of training.
    """

    needs = ("backbone",)

    def __init__(self, every_validation: bool = True) -> None:
        self.every_validation = every_validation
        self.checksum: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model = _model(pl_module)
        self._check_state(model)
        own = {id(parameter) for parameter in model.parameters()}
        trained = [p for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]]
        assert not any(id(parameter) in own for parameter in trained), (
            "weights of the frozen backbone are in an optimizer"
        )
        storages = {tensor.data_ptr() for tensor in model.state_dict().values() if tensor.numel()}
        saved = [name for name, value in pl_module.state_dict().items() if _pointer(value) in storages]
        assert not saved, f"weights of the frozen backbone would be saved in every checkpoint: {saved[:3]}"
        self.checksum = weight_checksum(model)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_state(_model(pl_module))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_validation and not trainer.sanity_checking:
            self._check_weights(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_weights(pl_module)

    def _check_weights(self, pl_module: LightningModule) -> None:
        if self.checksum is not None:
            model = _model(pl_module)
            self._check_state(model)
            assert weight_checksum(model) == self.checksum, "the weights of the frozen backbone have changed"

    @staticmethod
    def _check_state(model: nn.Module) -> None:
        loud = [name for name, module in model.named_modules() if module.training]
        assert not loud, f"the frozen backbone is not in eval mode: {loud[:3]}"
        trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        assert not trained, f"weights of the frozen backbone require gradients: {trained[:3]}"


def _model(pl_module: LightningModule) -> nn.Module:
    backbone: Any = getattr(pl_module, "backbone", None)
    model = getattr(backbone, "model", None)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"FrozenBackboneGuard needs backbone.model, which {type(pl_module).__name__} lacks; leave the callback out"
        )
    return model


def _pointer(value: Any) -> int | None:
    return value.data_ptr() if isinstance(value, Tensor) and value.numel() else None
