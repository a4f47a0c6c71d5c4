"""Generated series as batches: contexts of any length, and some of the values that follow."""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.generated.series import generate
from gssr.domains import Count, Items, Seed, checked
from gssr.sequences.batches import EpochBatches, EpochLoader, Key

POOL = 2048  # series that are made at once
AGAIN = 3  # times that each is cut
LENGTH = 160
CONTEXT = (16, 96)  # shortest and longest
HORIZONS = (24, 24, 24, 48)
PARTS = {"train": 0, "val": 1}
Row = dict[str, Tensor]


class Cut(Dataset[Row]):
    """Batches of generated series, the only one of each key; keys are (epoch, index), or index.

    {"context" (B, C), "season" (B), "ahead" (B, Q), "value" (B, Q)}: season in steps, 0 for none; Q steps ahead, from
    1, and the values there. Seed, part and number of a batch determine it.
    """

    def __init__(self, part: str, size: int, rows: int, steps: int, seed: int) -> None:
        self.part, self.size, self.rows, self.steps, self.seed = PARTS[part], size, rows, steps, seed
        self._made: tuple[int, tuple[Tensor, Tensor]] | None = None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: Key | int) -> Row:
        index = key[1] if isinstance(key, tuple) else key
        each = max(1, POOL // self.rows)
        series, season = self._pool(index // (AGAIN * each))
        again, place = divmod(index % (AGAIN * each), each)
        order = torch.randperm(len(series), generator=self._generator(1, index // (AGAIN * each), again))
        rows = order[place * self.rows : (place + 1) * self.rows]
        generator = self._generator(2, index, 0)
        context = int(torch.randint(CONTEXT[0], CONTEXT[1] + 1, (), generator=generator))
        horizon = HORIZONS[int(torch.randint(len(HORIZONS), (), generator=generator))]
        first = int(torch.randint(LENGTH - context - horizon + 1, (), generator=generator))
        cut = series[rows, first : first + context + horizon]
        ahead = torch.randint(1, horizon + 1, (len(rows), self.steps), generator=generator)
        return {
            "context": cut[:, :context],
            "season": season[rows],
            "ahead": ahead,
            "value": cut.gather(1, context - 1 + ahead),
        }

    def _pool(self, number: int) -> tuple[Tensor, Tensor]:
        if self._made is None or self._made[0] != number:
            self._made = number, generate(POOL, LENGTH, self._generator(0, number, 0))
        return self._made[1]

    def _generator(self, kind: int, number: int, again: int) -> torch.Generator:
        mixed = ((self.seed * 2 + self.part) * 3 + kind) * 8 + again
        return torch.Generator().manual_seed((mixed * 1_000_003 + number) % (1 << 63))


@checked
class GeneratedSeries(LightningDataModule):
    """For `gssr.network.prior_training`.

    Args:
        batches: of training, at least one for each optimizer step.
        batch_size: series in a batch, at most 2048.
        steps: ahead, of each series.
        heldout_batches: that validate.
        seed: of the series.
    """

    def __init__(
        self,
        batches: Count = 5000,
        batch_size: Items = 256,
        steps: Count = 4,
        heldout_batches: Count = 24,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        if batch_size > POOL:
            raise ValueError(f"batch_size is {batch_size}; series are made {POOL} at once, so give that or less")
        self.save_hyperparameters()
        self.batches, self.batch_size, self.steps = batches, batch_size, steps
        self.heldout_batches, self.seed = heldout_batches, seed

    def train_dataloader(self) -> EpochLoader:
        return self._loader("train", self.batches)

    def val_dataloader(self) -> EpochLoader:
        return self._loader("val", self.heldout_batches)

    def _loader(self, part: str, size: int) -> EpochLoader:
        cut = Cut(part, size, self.batch_size, self.steps, self.seed)
        return EpochLoader(cut, EpochBatches(size, 1, shuffle=False), collate_fn=_only)


def _only(rows: list[Any]) -> Any:
    (row,) = rows
    return row
