from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn

from callbacks import FrozenBackboneGuard
from callbacks.frozen_backbone import weight_checksum
from tests.callbacks.training import train
from tests.toy import ToyNetwork

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_any_bit_changes_the_checksum(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5)).to(dtype)
    before = weight_checksum(model)
    assert weight_checksum(model) == before
    for name, tensor in model.state_dict().items():
        raw = tensor.view(-1) if tensor.ndim else tensor
        bits = raw.view(torch.uint8) if raw.ndim else raw
        original = bits.clone()
        places = range(bits.numel()) if bits.ndim else [None]
        for place in places:
            if place is None:
                bits += 1
            else:
                bits[place] ^= 1
            assert weight_checksum(model) != before, f"{name} at {place}"
            bits.copy_(original)
    weight = model[0].weight.data
    weight[0], weight[1] = weight[1].clone(), weight[0].clone()
    assert weight_checksum(model) != before, "rows that change places keep every sum but the weighted one"


def test_a_frozen_backbone_passes(tmp_path: Path) -> None:
    guard = FrozenBackboneGuard()
    assert train(tmp_path, callbacks=[guard]).global_step == 15
    assert guard.checksum is not None


class Trained(ToyNetwork):
    def parameters_of_components(self) -> list[nn.Parameter]:
        return [*super().parameters_of_components(), *self.backbone.model.parameters()]


class Registered(ToyNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.language_model = self.backbone.model


class RequiresGradient(ToyNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.backbone.model.requires_grad_(True)


class InTrainingMode(ToyNetwork):
    def on_train_epoch_start(self) -> None:
        self.backbone.model.train()


class Changes(ToyNetwork):
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        if self.global_step == 3:
            self.backbone.model.bias.data[0] += 1e-6
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Trained, "are in an optimizer"),
        (Registered, "would be saved in every checkpoint: .'language_model.weight'"),
        (RequiresGradient, "require gradients"),
        (InTrainingMode, "not in eval mode"),
        (Changes, "have changed"),
    ],
)
def test_every_way_to_thaw_is_caught(network: type[ToyNetwork], message: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=message):
        train(tmp_path, network=network(), callbacks=[FrozenBackboneGuard()])


def test_a_network_without_a_backbone_is_told() -> None:
    trainer: Any = None
    with pytest.raises(ValueError, match="needs backbone.model, which LightningModule lacks"):
        FrozenBackboneGuard().on_train_start(trainer, LightningModule())
