"""Documents of facts as batches. Seed, part and number of a batch determine it; none is stored.

A batch has documents of one length, so that none is padded: short ones early in training, then all lengths.
Shapes: B documents, L+1 tokens.
"""

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.facts.documents import write
from datamodules.facts.language import BEGIN, Language, Writer, make_tokenizer
from gssr.domains import Count, Fraction, Items, Seed, checked
from gssr.sequences.batches import EpochBatches, EpochLoader, Key

PARTS = {"train": 0, "val": 1, "test": 2}
# Until a share of the training: lengths with their chances, facts of an episode at most, easy documents alone.
STAGES: tuple[tuple[float, dict[int, float], int, bool], ...] = (
    (0.02, {64: 1.0}, 2, True),
    (0.05, {64: 0.3, 128: 0.7}, 4, True),
    (0.12, {64: 0.1, 128: 0.5, 256: 0.4}, 8, False),
    (1.0, {64: 0.05, 128: 0.25, 256: 0.35, 512: 0.2, 1024: 0.15}, 10, False),
)
SOURCES = ("names", "phrasings")
SLIPS = 0.4  # share of training's statements and questions with a word left out or put in the place of another
Row = dict[str, Tensor]


class Batches(Dataset[Row]):
    """Batches {"tokens", "weights"}, (B, L+1) each; keys are (epoch, index), or index.

    Args:
        count: number of batches. tokens: B · (L+1) of each, about. source: a kind of `SOURCES` that validates, or none.
        start: share of the stages that lies behind.
    """

    def __init__(
        self,
        language: Language,
        part: str,
        count: int,
        tokens: int,
        seed: int,
        source: str | None = None,
        start: float = 0.0,
    ) -> None:
        self.language, self.part, self.count, self.tokens, self.seed = language, PARTS[part], count, tokens, seed
        self.source, self.start = source, start

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Key | int) -> Row:
        index = key[1] if isinstance(key, tuple) else key
        generator = np.random.default_rng([self.seed, self.part, index])
        held_out = self.source is not None
        stage = 1.0 if held_out else self.start + (1 - self.start) * index / self.count
        _, lengths, most, easy = next(each for each in STAGES if stage <= each[0])
        length = int(generator.choice(list(lengths), p=list(lengths.values())))
        writer = Writer(
            self.language, generator, held_out, self.source == "phrasings", slips=0.0 if held_out else SLIPS
        )
        documents = [write(writer, length, most, easy) for _ in range(max(1, self.tokens // length))]
        weights = np.array([[0.0, *document.weights] for document in documents], np.float32)
        return {
            "tokens": torch.tensor([[self.language.ids[word] for word in (BEGIN, *d.words)] for d in documents]),
            "weights": torch.from_numpy(weights if not held_out else (weights == 1.0).astype(np.float32)),
        }


@checked
class FactDocuments(LightningDataModule):
    """Documents of facts, for `gssr.training.language_model`.

    Validation has held-out names, and counts answers alone: in phrasings of training, and in those held out.

    Args:
        tokens: tokens in a batch, about.
        batches: of training, one for each optimizer step.
        heldout_batches: of each kind of validation.
        seed: of the documents.
        start: share of the stages that lies behind, for a model that is trained further.
    """

    def __init__(
        self,
        tokens: Items = 4096,
        batches: Count = 1000,
        heldout_batches: Items = 4,
        seed: Seed = 0,
        start: Fraction = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.tokens, self.batches, self.heldout_batches, self.seed = tokens, batches, heldout_batches, seed
        self.start = start
        self.sources, self.heldout_bytes = list(SOURCES), dict[str, int]()
        self.language = Language()
        self.tokenizer = make_tokenizer(self.language)

    def train_dataloader(self) -> EpochLoader:
        made = Batches(self.language, "train", self.batches, self.tokens, self.seed, start=self.start)
        return EpochLoader(made, EpochBatches(self.batches, 1, shuffle=False), collate_fn=only)

    def val_dataloader(self) -> list[DataLoader[Row]]:
        return [
            DataLoader(
                Batches(self.language, "val", self.heldout_batches, self.tokens, self.seed, source), collate_fn=only
            )
            for source in SOURCES
        ]


def only(rows: list[Row]) -> Row:
    (row,) = rows
    return row
