"""Plain text for training a language model: packed rows of tokens, mixed from sources, and held-out rows by source.

Shapes: L + 1 tokens in a row.
"""

from pathlib import Path

import pandas as pd
import torch
from lightning import LightningDataModule
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from datamodules.text.rows import MixedRows, Packing, repeated_rows
from gssr.domains import Count, Fraction, Items, NonNegative, Seed, Vocabulary, checked
from gssr.sequences.batches import EpochBatches, EpochLoader

REPEATS = "repeats"  # the name of the rows of repeated random tokens among the sources
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


@checked
class TextCorpus(LightningDataModule):
    """Rows of tokens from a Parquet file with the columns ``source``, ``split`` (train, heldout) and ``text``.

    A column ``answers`` may hold the places of each document's answers: start and end in characters, in turn. Their
    tokens have a larger weight in training.

    Args:
        path: the Parquet file; ``python -m datamodules.text.build --help`` shows how to build that of the bundled
            model.
        tokenizer: folder of the tokenizer. If it holds none, one is trained on the training part and saved there.
        weights: share of each source in the mixture, by name, in any unit; None gives all sources the same share.
        vocab_size: V of a tokenizer that is trained.
        row_length: L.
        batch_size: rows in a batch.
        rows: training rows, batch_size x optimizer steps.
        repeats: share of rows with repeated random tokens, in the unit of ``weights``.
        cut_share: share of training rows in which attention is cut at random places.
        joined: share of training documents without an end-of-text behind them, so that a model learns to forget
            unasked.
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
        repeats: NonNegative = 0.0,
        cut_share: Fraction = 0.0,
        joined: Fraction = 0.0,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.path, self.tokenizer_folder = Path(path), Path(tokenizer)
        self.weights, self.vocab_size, self.row_length = weights, vocab_size, row_length
        self.batch_size, self.rows, self.seed = batch_size, rows, seed
        self.repeats, self.cut_share, self.joined = repeats, cut_share, joined

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
        packing = Packing(self.tokenizer, self.row_length, self.seed, self.joined)
        self.heldout = {name: packing.heldout(parts[name, "heldout"]) for name in weights}
        self.train = {}
        for name in weights:
            rows = frame[(frame["source"] == name) & (frame["split"] == "train")]
            answers = rows["answers"].tolist() if "answers" in frame else [None] * len(rows)
            self.train[name] = packing.training(parts[name, "train"], [[] if a is None else list(a) for a in answers])
        if self.repeats:
            # A share of the rows, none of them twice.
            count = round(1.2 * self.rows * self.repeats / (self.repeats + sum(weights.values()))) + 1
            self.train[REPEATS] = repeated_rows(count, self.row_length, len(self.tokenizer), self.seed)
            weights = {**weights, REPEATS: self.repeats}
        self.heldout_bytes = {name: sum(len(text.encode()) for text in parts[name, "heldout"]) for name in self.sources}
        self._train_weights = weights

    def train_dataloader(self) -> EpochLoader:
        mixture = MixedRows(self.train, self._train_weights, self.rows, self.seed, self.cut_share)
        complete = self.rows - self.rows % self.batch_size  # rows of complete batches
        return EpochLoader(mixture, EpochBatches(complete, self.batch_size, shuffle=False))

    def val_dataloader(self) -> list[DataLoader]:
        """The held-out rows of each source."""
        parts = (
            [{"tokens": row, "weights": torch.ones(len(row))} for row in self.heldout[name]] for name in self.sources
        )
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
