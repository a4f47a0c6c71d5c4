"""Plain text for training a language model: packed rows of tokens, mixed from sources, and held-out rows by source.

Shapes: L + 1 tokens in a row.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
from lightning import LightningDataModule
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast

from datamodules.text.rows import ANSWER_WEIGHT, REPEATS, WINDOWS, MixedRows, Packing, RowsInTurn, repeated_rows
from datamodules.text.shards import MappedRows, Shards, texts
from gssr.domains import Count, Fraction, Items, NonNegative, Positive, ProperFraction, Range, Seed, Vocabulary, checked
from gssr.sequences.batches import EpochBatches, EpochLoader

Window = Annotated[int, Range(1, 2**16)]
END_OF_TEXT, PAD = "<|end_of_text|>", "<|pad|>"
# Each digit is one token, so that the model reads numbers by position: " 25" and " 45" become two tokens each.
PRE_TOKENS = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
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
@dataclass(frozen=True)
class Mixture:
    """Which rows a part of training draws. Recurrent states learn to recall only if nothing easier is there first.

    Args:
        rows: rows of this part, batch_size x optimizer steps.
        weights: share of each source, by name, in any unit; a source without one is left out.
        repeats: share of rows with repeated random tokens, in the unit of ``weights``.
        cut_share: share of rows in which attention sees a window only: one for all sources, or one for each by
            its name.
        windows: narrowest and widest window, in tokens.
        answer_weight: weight of an answer's token; other tokens have 1.

    Raises ValueError for windows whose narrowest is not first, and for a mixture without rows.
    """

    rows: Count
    weights: dict[str, NonNegative]
    repeats: NonNegative = 0.0
    cut_share: Fraction | dict[str, Fraction] = 1.0
    windows: tuple[Window, Window] = WINDOWS
    answer_weight: Positive = ANSWER_WEIGHT

    def __post_init__(self) -> None:
        _check_windows(self.windows)
        if not self.repeats + sum(self.weights.values()):
            raise ValueError("a mixture has no rows: all of its weights and its repeats are 0")


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
        rows: training rows, batch_size x optimizer steps, those of ``opening`` included.
        opening: mixtures with which training begins, in turn.
        repeats: share of rows with repeated random tokens, in the unit of ``weights``.
        cut_share: share of training rows in which attention sees a window only: one for all sources, or one for each
            by its name (repeats among them); a source without one is not cut.
        windows: narrowest and widest window, in tokens.
        answer_weight: weight of an answer's token; other tokens have 1.
        joined: share of training documents without an end-of-text behind them, so that a model learns to forget
            unasked.
        dropout: share of the activations that training zeroes in the rows of a source, by name; a source without one
            keeps all. For little text that comes many times, which a model would learn by heart.
        shards: folder of token files, for a corpus that does not fit into memory: it is tokenised once, in its own
            order, and rows are read from the files. None keeps all rows in memory.
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
        opening: tuple[Mixture, ...] = (),
        repeats: NonNegative = 0.0,
        cut_share: Fraction | dict[str, Fraction] = 0.0,
        windows: tuple[Window, Window] = WINDOWS,
        answer_weight: Positive = ANSWER_WEIGHT,
        joined: Fraction = 0.0,
        dropout: dict[str, ProperFraction] | None = None,
        shards: str | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.path, self.tokenizer_folder = Path(path), Path(tokenizer)
        self.weights, self.vocab_size, self.row_length = weights, vocab_size, row_length
        self.batch_size, self.rows, self.seed = batch_size, rows, seed
        self.repeats, self.cut_share, self.joined, self.opening = repeats, cut_share, joined, opening
        self.windows, self.answer_weight, self.dropout = windows, answer_weight, dropout or {}
        _check_windows(windows)
        if (opened := sum(mixture.rows for mixture in opening)) >= rows:
            raise ValueError(f"the opening has {opened} rows and the training has {rows}; give it more rows")
        self.shards = None if shards is None else Path(shards)

    def prepare_data(self) -> None:
        self._require_corpus()
        if not (self.tokenizer_folder / "tokenizer.json").exists():
            if self.shards is None:
                frame = self._frame()
                documents = iter(frame[frame["split"] == "train"]["text"].tolist())
            else:
                documents = (text for *_, text in texts(self.path, "train"))
            train_tokenizer(documents, self.vocab_size).save_pretrained(self.tokenizer_folder)

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "heldout"):
            return
        self._require_corpus()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(self.tokenizer_folder)
        if self.shards is None:
            weights = self._pack()
        else:
            shards = Shards(self.path, self.shards, self.tokenizer, self.joined, self.seed)
            weights = self._shares(shards.names)
            self.train = {name: shards.rows(name, "train", self.row_length) for name in weights}
            self.heldout = {name: shards.rows(name, "heldout", self.row_length).tokens for name in weights}
            self.heldout_bytes = {name: shards.bytes(name, "heldout") for name in weights}
        self.sources = list(weights)
        rest = self.rows - sum(mixture.rows for mixture in self.opening)
        last = Mixture(rest, weights, self.repeats, self.cut_share, self.windows, self.answer_weight)
        self.mixtures = (*self.opening, last)
        if unknown := sorted(set(self.dropout) - set(weights)):
            raise ValueError(f"dropout names {unknown}; {self.path} has {sorted(weights)}")
        for mixture in self.mixtures:
            cut = set(mixture.cut_share) if isinstance(mixture.cut_share, dict) else set()
            if unknown := sorted(set(mixture.weights) - set(weights) | cut - {*weights, REPEATS}):
                raise ValueError(
                    f"a mixture names {unknown}; {self.path} has {sorted(weights)}, and {REPEATS} beside them"
                )
        # Enough for their share of the rows, so that none comes twice in a mixture.
        repeated = [x.rows * x.repeats / (x.repeats + sum(x.weights.values())) for x in self.mixtures if x.repeats]
        if repeated:
            count = round(1.2 * sum(repeated)) + 1
            self.train[REPEATS] = repeated_rows(
                count, self.row_length, len(self.tokenizer), self.tokenizer.eos_token_id, self.seed
            )

    def _pack(self) -> dict[str, float]:
        """All rows in memory; the sources and their shares."""
        frame = self._frame()
        parts = {key: group["text"].tolist() for key, group in frame.groupby(["source", "split"])}
        weights = self._shares(set(parts))
        packing = Packing(self.tokenizer, self.row_length, self.seed, self.joined)
        self.heldout = {name: packing.heldout(parts[name, "heldout"]) for name in weights}
        self.train = {}
        for name in weights:
            rows = frame[(frame["source"] == name) & (frame["split"] == "train")]
            answers = rows["answers"].tolist() if "answers" in frame else [None] * len(rows)
            self.train[name] = packing.training(parts[name, "train"], [[] if a is None else list(a) for a in answers])
        self.heldout_bytes = {name: sum(len(text.encode()) for text in parts[name, "heldout"]) for name in weights}
        return weights

    def _shares(self, parts: set[tuple[str, str]]) -> dict[str, float]:
        """Share of each source. Raises ValueError where those of ``weights`` are not those that have text."""
        sources = sorted({source for source, _ in parts})
        weights = self.weights or dict.fromkeys(sources, 1.0)
        if sorted(weights) != sources:
            raise ValueError(f"weights name {sorted(weights)}, {self.path} holds {sources}; give each source a weight")
        absent = [(name, split) for name in weights for split in ("train", "heldout") if (name, split) not in parts]
        if absent:
            raise ValueError(f"{self.path} has no text for {absent}; every source needs train and heldout documents")
        return weights

    def train_dataloader(self) -> EpochLoader:
        made = []
        for number, mixture in enumerate(self.mixtures):
            shares = {**mixture.weights, REPEATS: mixture.repeats} if mixture.repeats else mixture.weights
            seed = self.seed + len(self.opening) - number  # the last has the seed itself, whatever the opening
            how = mixture.cut_share, mixture.windows, mixture.answer_weight, self.dropout
            made.append(MixedRows(self.train, shares, mixture.rows, seed, *how))
        complete = self.rows - self.rows % self.batch_size  # rows of complete batches
        return EpochLoader(RowsInTurn(made), EpochBatches(complete, self.batch_size, shuffle=False))

    def val_dataloader(self) -> list[DataLoader]:
        """The held-out rows of each source."""
        return [
            DataLoader(_Unweighted(self.heldout[name]), batch_size=self.batch_size, shuffle=False)
            for name in self.sources
        ]

    def _require_corpus(self) -> None:
        if not self.path.exists():
            raise ValueError(
                f"no corpus at {self.path}; build it with: python -m datamodules.text.build --out {self.path.parent}"
            )

    def _frame(self) -> pd.DataFrame:
        self._require_corpus()
        frame = pd.read_parquet(self.path)
        missing = {"source", "split", "text"} - set(frame.columns)
        if missing:
            raise ValueError(f"{self.path} lacks the columns {sorted(missing)}; it has {list(frame.columns)}")
        return frame


def _check_windows(windows: tuple[int, int]) -> None:
    if windows[0] > windows[1]:
        raise ValueError(f"windows are {windows}; expected the narrowest first")


class _Unweighted(Dataset[dict[str, torch.Tensor]]):
    """Rows of held-out text, each token with a weight of 1."""

    def __init__(self, rows: torch.Tensor | MappedRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index]
        return {"tokens": row, "weights": torch.ones(len(row))}
