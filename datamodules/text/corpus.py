"""Plain text for training a language model: packed rows of tokens, mixed from sources, and held-out rows by source.

Shapes: L + 1 tokens in a row.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning import LightningDataModule
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast

from gssr.domains import Count, Items, NonNegative, Seed, Vocabulary, checked
from gssr.sequences.batches import EpochBatches, EpochLoader, Key

END_OF_TEXT, PAD = "<|end_of_text|>", "<|pad|>"
# Each digit is one token, so that the model reads numbers by position: " 25" and " 45" become two tokens each.
PRE_TOKENS = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE with single digits. Every string round-trips, since the alphabet has all 256 bytes."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=True,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


class MixedRows(Dataset[dict[str, Tensor]]):
    """A shuffled mixture of rows, each as {"tokens": (L+1)}, the batch that `gssr.training.objectives` describes.

    Seed, length and index determine a row, so that a resumed run sees the same rows.

    Args:
        rows: tokens (rows, L+1) of each source, by name.
        weights: share of each source, in any unit.
        length: number of rows in the mixture; a source repeats no row before all of its rows were drawn.
    """

    def __init__(self, rows: dict[str, Tensor], weights: dict[str, float], length: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        names = list(rows)
        share = np.array([weights[name] for name in names], dtype=float)
        self.rows = rows
        self.source = generator.choice(len(names), size=length, p=share / share.sum())
        self.row = np.zeros(length, dtype=np.int64)
        for k, name in enumerate(names):
            wanted = np.flatnonzero(self.source == k)
            rounds = -(-len(wanted) // len(rows[name])) if len(wanted) else 0
            order = [generator.permutation(len(rows[name])) for _ in range(rounds)]
            self.row[wanted] = np.concatenate(order)[: len(wanted)] if order else 0
        self.names = names

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        _, index = key  # the same row in every epoch
        return {"tokens": self.rows[self.names[self.source[index]]][self.row[index]].long()}


@checked
class TextCorpus(LightningDataModule):
    """Rows of tokens from a Parquet file with the columns ``source``, ``split`` (train, heldout) and ``text``.

    Args:
        path: the Parquet file; ``python -m datamodules.text.build --help`` shows how to build that of the bundled
            model.
        tokenizer: folder of the tokenizer. If it holds none, one is trained on the training part and saved there.
        weights: share of each source in the mixture, by name, in any unit; None gives all sources the same share.
        vocab_size: V of a tokenizer that is trained.
        row_length: L.
        batch_size: rows in a batch.
        rows: training rows, batch_size x optimizer steps.
        seed: of the order of documents and rows.
    """

    def __init__(
        self,
        path: str = "corpus/corpus.parquet",
        tokenizer: str = "corpus/tokenizer",
        weights: dict[str, NonNegative] | None = None,
        vocab_size: Vocabulary = 4096,
        row_length: Items = 512,
        batch_size: Items = 16,
        rows: Count = 48_000,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.path, self.tokenizer_folder = Path(path), Path(tokenizer)
        self.weights, self.vocab_size, self.row_length = weights, vocab_size, row_length
        self.batch_size, self.rows, self.seed = batch_size, rows, seed

    def prepare_data(self) -> None:
        frame = self._frame()
        if not (self.tokenizer_folder / "tokenizer.json").exists():
            texts = frame[frame["split"] == "train"]["text"].tolist()
            train_tokenizer(texts, self.vocab_size).save_pretrained(self.tokenizer_folder)

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "heldout"):
            return
        frame = self._frame()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(self.tokenizer_folder)
        weights = self.weights or dict.fromkeys(sorted(set(frame["source"])), 1.0)
        unknown = sorted(set(weights) ^ set(frame["source"]))
        if unknown:
            raise ValueError(
                f"weights name {sorted(weights)}, {self.path} holds {sorted(set(frame['source']))}; give each source a "
                "weight"
            )
        parts = {key: group["text"].tolist() for key, group in frame.groupby(["source", "split"])}
        absent = [(name, split) for name in weights for split in ("train", "heldout") if (name, split) not in parts]
        if absent:
            raise ValueError(f"{self.path} has no text for {absent}; every source needs train and heldout documents")
        self.sources = list(weights)
        self.train = {name: self._pack(parts[name, "train"], shuffle=True) for name in weights}
        self.heldout = {name: self._pack(parts[name, "heldout"], shuffle=False) for name in weights}
        self.heldout_bytes = {name: sum(len(text.encode()) for text in parts[name, "heldout"]) for name in weights}
        self._train_weights = weights

    def train_dataloader(self) -> EpochLoader:
        mixture = MixedRows(self.train, self._train_weights, self.rows, self.seed)
        complete = self.rows - self.rows % self.batch_size  # rows of complete batches
        return EpochLoader(mixture, EpochBatches(complete, self.batch_size, shuffle=False))

    def val_dataloader(self) -> list[DataLoader]:
        """The held-out rows of each source."""
        parts = ([{"tokens": row} for row in self.heldout[name]] for name in self.sources)
        return [DataLoader(rows, batch_size=self.batch_size, shuffle=False) for rows in parts]

    def _frame(self) -> pd.DataFrame:
        if not self.path.exists():
            raise ValueError(
                f"no corpus at {self.path}; build it with: python -m datamodules.text.build --out {self.path.parent}"
            )
        frame = pd.read_parquet(self.path)
        missing = {"source", "split", "text"} - set(frame.columns)
        if missing:
            raise ValueError(f"{self.path} lacks the columns {sorted(missing)}; it has {list(frame.columns)}")
        return frame

    def _pack(self, texts: list[str], shuffle: bool) -> Tensor:
        """Join documents by end-of-text and cut them into rows (rows, L+1) that overlap by one token."""
        end = self.tokenizer.eos_token_id
        order = np.random.default_rng(self.seed).permutation(len(texts)) if shuffle else range(len(texts))
        encoded = self.tokenizer([texts[i] for i in order], add_special_tokens=False)["input_ids"]
        stream = np.concatenate([[end], *[np.append(np.asarray(ids, dtype=np.int64), end) for ids in encoded]])
        count = max(1, -(-(len(stream) - 1) // self.row_length))
        padded = np.full(count * self.row_length + 1, self.tokenizer.pad_token_id, dtype=np.int32)
        padded[: len(stream)] = stream
        starts = np.arange(count)[:, None] * self.row_length
        return torch.from_numpy(padded[starts + np.arange(self.row_length + 1)])
