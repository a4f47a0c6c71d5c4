"""A small network and data with the interfaces that the callbacks and the command line rely on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from gssr import ranks
from gssr.sequences.batches import DealtBatches, EpochBatches, EpochLoader


class ToyRows(Dataset[tuple[Tensor, Tensor]]):
    """Rows of a linear map plus noise that depends on (seed, epoch, index)."""

    def __init__(self, size: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(size, 4, generator=generator)
        self.y = self.x @ torch.randn(4, 1, generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        noise = torch.randn(1, generator=torch.Generator().manual_seed(1000 * epoch + index))
        return self.x[index], self.y[index] + 0.1 * noise


class ToyData(LightningDataModule):
    """Args: batch_size: rows in a batch. size: training rows. seed: of the rows and their order."""

    value_names = ("y",)
    value_units = ("m",)
    value_resolution = (0.1,)
    shares_itself = True

    def __init__(
        self, batch_size: int = 4, size: int = 20, seed: int = 0, num_workers: int = 0, goal: str | None = None
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.batch_size, self.size, self.seed, self.num_workers, self.goal = batch_size, size, seed, num_workers, goal

    def train_dataloader(self) -> EpochLoader:
        batches = EpochBatches(self.size, self.batch_size, self.seed, rank=ranks.rank(), world=ranks.world())
        rows = ToyRows(self.size, self.seed)
        return EpochLoader(rows, batches, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(ToyRows(8, self.seed + 1), batch_sampler=DealtBatches(8, 4, ranks.rank(), ranks.world()))

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(ToyRows(8, self.seed + 1), batch_size=4)

    predict_dataloader = test_dataloader


class ToyBackbone:
    """Frozen, always the same and, like the real one, no nn.Module."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = nn.Linear(4, 4).eval().requires_grad_(False)


class ToyNetwork(LightningModule):
    """Args: width: of the hidden layer. lr: learning rate. alpha_text: weight of a second loss."""

    def __init__(self, width: int = 8, lr: float = 0.01, weight_decay: float = 0.01, alpha_text: float = 1.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.weight_decay, self.alpha_text = lr, weight_decay, alpha_text
        self.objective = SimpleNamespace(free_nats=0.0)
        self.backbone = ToyBackbone()
        self.rssm = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Dropout(0.3))
        self.value_head = nn.Linear(width, 1)
        self.prefix = nn.Linear(width, 4)

    def components(self) -> dict[str, nn.Module]:
        return {"rssm": self.rssm, "value_head": self.value_head, "prefix": self.prefix}

    def active_losses(self) -> dict[str, set[str]]:
        text = {"text"} if self.alpha_text else set()
        return {"rssm": {"value"} | text, "value_head": {"value"}, "prefix": text}

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, y = batch
        h = self.rssm(x) + 0.01 * torch.randn(len(x), 1)
        value = (self.value_head(h) - y).square().mean()
        text = (self.backbone.model(self.prefix(h)) - x).square().mean()
        loss = value + self.alpha_text * text
        self.log_dict({"train/loss": loss, "train/loss_value": value, "train/loss_text": text}, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        torch.randn(3)  # a validation that draws from the global stream must not change training
        self.log("val/open_loop_mae", (self.value_head(self.rssm(batch[0])) - batch[1]).abs().mean(), prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.log("test/mae", (self.value_head(self.rssm(batch[0])) - batch[1]).abs().mean())

    def predict_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return self.value_head(self.rssm(batch[0]))

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.AdamW(self.parameters_of_components(), lr=self.lr, weight_decay=self.weight_decay)
        total = self.trainer.estimated_stepping_batches  # makes Lightning build the training loader early
        assert total > 0
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + 0.1 * step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def parameters_of_components(self) -> list[nn.Parameter]:
        return [p for module in self.components().values() for p in module.parameters()]
