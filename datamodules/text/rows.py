"""Rows of tokens for training: documents packed into rows, repeated random tokens, and a mixture of both.

Shapes: n rows of L + 1 tokens. Each row has a weight for each token, the weight with which it counts in the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from gssr.sequences.batches import MOST_SHUFFLED, Key
from gssr.sequences.shuffle import Shuffle

ANSWER_WEIGHT = 4.0
REPEATS = "repeats"  # the name of the rows of repeated random tokens among the sources
WINDOWS = 4, 128


class Rows(NamedTuple):
    """Tokens (n, L+1), int32, and weights (n, L+1), float32."""

    tokens: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Packing:
    """How documents become rows of ``length`` + 1 tokens, each row's last token being the next row's first.

    ``joined`` is the share of training documents without an end-of-text behind them.
    """

    tokenizer: PreTrainedTokenizerBase
    length: int
    seed: int
    joined: float = 0.0

    def training(self, texts: Sequence[str], answers: Sequence[Sequence[int]]) -> Rows:
        """Documents in a shuffled order. ``answers`` has the places of each document's answers in characters, in turn.

        Documents with answers are not cut from what they ask for: one that does not fit begins the next row anew.
        """
        generator = np.random.default_rng(self.seed)
        order = generator.permutation(len(texts))
        encoded = self.tokenizer([texts[i] for i in order], add_special_tokens=False, return_offsets_mapping=True)
        documents = []
        for i, ids, places in zip(order, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            weights = np.ones(len(ids) + 1, np.float32)
            starts, ends = np.asarray(answers[i][::2]), np.asarray(answers[i][1::2])
            if len(starts):
                first, last = np.asarray(places)[:, :1], np.asarray(places)[:, 1:]
                weights[:-1][((first < ends) & (last > starts)).any(1)] = ANSWER_WEIGHT
            documents.append((np.append(np.asarray(ids, np.int64), self.tokenizer.eos_token_id), weights))
        if any(len(places) for places in answers):
            return self._whole(documents)
        joined = generator.random(len(documents)) < self.joined
        kept = [
            (d[:-1], w[:-1]) if bare and len(d) > 1 else (d, w) for (d, w), bare in zip(documents, joined, strict=True)
        ]
        return self._stream(kept)

    def heldout(self, texts: Sequence[str]) -> Tensor:
        """Documents in their order, joined by end-of-text, tokens (n, L+1)."""
        end = self.tokenizer.eos_token_id
        encoded = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        documents = [np.append(np.asarray(ids, np.int64), end) for ids in encoded]
        return self._stream([(ids, np.ones(len(ids), np.float32)) for ids in documents]).tokens

    def _stream(self, documents: list[tuple[np.ndarray, np.ndarray]]) -> Rows:
        tokens = np.concatenate([[self.tokenizer.eos_token_id], *[ids for ids, _ in documents]])
        weights = np.concatenate([np.ones(1, np.float32), *[weights for _, weights in documents]])
        count = max(1, -(-(len(tokens) - 1) // self.length))
        size = count * self.length + 1
        tokens = np.pad(tokens, (0, size - len(tokens)), constant_values=self.tokenizer.pad_token_id)
        weights = np.pad(weights, (0, size - len(weights)))
        places = np.arange(count)[:, None] * self.length + np.arange(self.length + 1)
        return Rows(torch.from_numpy(tokens[places].astype(np.int32)), torch.from_numpy(weights[places]))

    def _whole(self, documents: list[tuple[np.ndarray, np.ndarray]]) -> Rows:
        width, end = self.length + 1, self.tokenizer.eos_token_id
        rows, row = [], [(np.array([end]), np.ones(1, np.float32))]
        for document in documents:
            row.append(document)
            if sum(len(ids) for ids, _ in row) >= width:
                rows.append(tuple(np.concatenate(parts)[:width] for parts in zip(*row, strict=True)))
                row = [row[0]] if len(document[0]) >= width else [row[0], document]
        filled = (
            np.concatenate([ids for ids, _ in row])[:width],
            np.concatenate([weights for _, weights in row])[:width],
        )
        if not rows or len(filled[0]) > 1:
            pad = width - len(filled[0])
            rows.append(
                (np.pad(filled[0], (0, pad), constant_values=self.tokenizer.pad_token_id), np.pad(filled[1], (0, pad)))
            )
        tokens, weights = (np.stack(parts) for parts in zip(*rows, strict=True))
        return Rows(torch.from_numpy(tokens.astype(np.int32)), torch.from_numpy(weights.astype(np.float32)))


def repeated_rows(count: int, length: int, vocabulary: int, end: int, seed: int) -> Rows:
    """Stretches of random tokens, each said again once or more; only what can be known has a weight.

    A row is made of stretches of one size, 8 to 256 tokens. Each is followed by itself, or comes back behind others.
    Every second row begins with the token ``end``, as every text that is read: a model that never saw random tokens
    behind it takes them for a text, and looks up fewer of them.
    """
    generator = np.random.default_rng(seed)
    tokens, weights = np.zeros((count, length + 1), np.int32), np.zeros((count, length + 1), np.float32)
    for row in range(count):
        size = min(int(np.exp(generator.uniform(np.log(8), np.log(257)))), length // 2)
        pool: list[np.ndarray] = []
        begin = row % 2
        tokens[row, :begin] = end
        for start in range(begin, length + 1, size):
            stop = min(length + 1, start + size)
            again = bool(pool) and generator.random() < 0.6
            if not again:
                pool = [*pool, generator.integers(2, vocabulary, size)][-max(1, 256 // size) :]
            chosen = pool[int(generator.integers(len(pool)))] if again else pool[-1]
            tokens[row, start:stop] = chosen[: stop - start]
            # The first tokens say which stretch it is.
            weights[row, start + min(2, size) : stop] = float(again)
    return Rows(torch.from_numpy(tokens), torch.from_numpy(weights))


class MixedRows(Dataset[dict[str, Tensor]]):
    """A shuffled mixture of rows: {"tokens", "weights", "first"}, each (L+1), as `gssr.training.objectives` has them.

    With them come ``repeated``, a boolean: whether it is a row of repeated random tokens, and ``dropout``, a float.

    Seed, length and index determine a row, so that a resumed run sees the same rows.

    Args:
        rows: of each source, by name.
        shares: share of each source, in any unit.
        length: number of rows in the mixture; a source repeats no row before all of its rows were drawn.
        cut_share: share of rows in which attention sees a window only, so that only recurrent and conv states carry
            what was said before. One for all sources, or one for each by its name; a source without one is not cut.
        windows: narrowest and widest window, in tokens; log-uniform between them.
        answer_weight: weight of an answer's token.
        dropout: of the activations in the rows of a source, by name; 0 for a source without one.
    """

    def __init__(
        self,
        rows: dict[str, Rows],
        shares: dict[str, float],
        length: int,
        seed: int,
        cut_share: float | dict[str, float] = 0.0,
        windows: tuple[int, int] = WINDOWS,
        answer_weight: float = ANSWER_WEIGHT,
        dropout: dict[str, float] | None = None,
    ) -> None:
        generator = np.random.default_rng(seed)
        self.names, self.rows, self.seed = list(shares), rows, seed
        self.dropout = dropout or {}
        self.windows, self.answer_weight = windows, answer_weight
        self.cut = cut_share if isinstance(cut_share, dict) else dict.fromkeys(self.names, cut_share)
        share = np.array([shares[name] for name in self.names], dtype=float)
        self.source = generator.choice(len(self.names), size=length, p=share / share.sum())
        self.row = np.zeros(length, dtype=np.int64)
        for k, name in enumerate(self.names):
            wanted, size = np.flatnonzero(self.source == k), len(rows[name])
            for number, start in enumerate(range(0, len(wanted), size)):
                places = wanted[start : start + size]
                large = size > MOST_SHUFFLED
                order = Shuffle(size, [seed, k, number]) if large else generator.permutation(size)
                self.row[places] = order[: len(places)]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        _, index = key  # the same row in every epoch
        name = self.names[self.source[index]]
        tokens, weights = (part[self.row[index]] for part in self.rows[name])
        weights = torch.where(weights == ANSWER_WEIGHT, self.answer_weight, weights)
        return {
            "tokens": tokens.long(),
            "weights": weights,
            "first": self._first(index, len(tokens), name),
            "repeated": torch.tensor(name == REPEATS),
            "dropout": torch.tensor(self.dropout.get(name, 0.0)),
        }

    def _first(self, index: int, width: int, name: str) -> Tensor:
        """The place that attention sees back to, from each place of the row."""
        generator = np.random.default_rng([self.seed, index])
        if generator.random() >= self.cut.get(name, 0.0):
            return torch.zeros(width, dtype=torch.long)
        size = int(np.exp(generator.uniform(*np.log(self.windows))))
        return torch.arange(width).sub(size - 1).clamp(min=0)


class RowsInTurn(Dataset[dict[str, Tensor]]):
    """Mixtures one after the other."""

    def __init__(self, mixtures: Sequence[MixedRows]) -> None:
        self.mixtures, self.ends = mixtures, np.cumsum([len(mixture) for mixture in mixtures])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        epoch, index = key
        number = int(np.searchsorted(self.ends, index, side="right"))
        mixture = self.mixtures[number]
        return mixture[epoch, index - int(self.ends[number]) + len(mixture)]
