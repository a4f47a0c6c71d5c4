"""Corpora that do not fit into memory: each source and split is tokenised once into a file, and rows are mapped.

A folder of shards holds ``<source>.<split>.tokens``, the documents in the corpus's order, each closed by end-of-text,
and ``about.json``, written last: a folder without it is not complete and is written again.

Shapes: n rows of L + 1 tokens, each row's last token being the next row's first.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from datamodules.text.rows import Rows
from gssr.files import atomic_write

DOCUMENTS = 256  # read and tokenised at once
COLUMNS = ("source", "split", "text")


class Shards:
    """The token files of a corpus, made where they are missing or belong to another corpus or tokenizer.

    Args:
        corpus: a Parquet file with the columns source, split and text.
        folder: of the shards; what is in it is replaced.
        joined: share of training documents without an end-of-text behind them.
        seed: decides which.

    Raises:
        ValueError: a file without these columns, one with answers, or documents of no known split.
    """

    def __init__(
        self, corpus: Path, folder: Path, tokenizer: PreTrainedTokenizerBase, joined: float = 0.0, seed: int = 0
    ) -> None:
        self.folder, self.pad = folder, tokenizer.pad_token_id
        known = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
        stat = corpus.stat()
        wanted = {"corpus": [stat.st_size, stat.st_mtime_ns], "tokenizer": known, "joined": joined, "seed": seed}
        about = folder / "about.json"
        if not about.exists() or json.loads(about.read_text(encoding="utf-8"))["of"] != wanted:
            _require_own(folder)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            parts = _write(corpus, folder, tokenizer, joined, seed)
            with atomic_write(about) as file:
                json.dump({"of": wanted, "parts": parts}, file)
        self.parts: dict[str, dict[str, Any]] = json.loads(about.read_text(encoding="utf-8"))["parts"]

    def bytes(self, source: str, split: str) -> int:
        """Bytes of the source's text."""
        return int(self.parts[f"{source}.{split}"]["bytes"])

    @property
    def names(self) -> set[tuple[str, str]]:
        """Source and split of each file."""
        return {(source, split) for source, _, split in (name.rpartition(".") for name in self.parts)}

    def rows(self, source: str, split: str, length: int) -> Rows:
        """Mapped rows of ``length`` + 1 tokens, with a weight of 1 for each but padding."""
        name = f"{source}.{split}"
        stream = np.memmap(self.folder / f"{name}.tokens", self.parts[name]["dtype"], "r")
        return Rows(MappedRows(stream, length, self.pad), MappedRows(stream, length, self.pad, weights=True))


class MappedRows:
    """Rows of a stream of tokens (n, L+1), each made where it is asked for: int32, or float32 weights."""

    def __init__(self, stream: np.ndarray, length: int, pad: int, weights: bool = False) -> None:
        self.stream, self.length, self.pad, self.weights = stream, length, pad, weights

    def __len__(self) -> int:
        return max(1, -(-(len(self.stream) - 1) // self.length))

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < len(self):
            raise IndexError(index)
        own = self.stream[index * self.length :][: self.length + 1].astype(np.int32)
        missing = self.length + 1 - len(own)
        if self.weights:
            return torch.from_numpy(np.pad(np.ones(len(own), np.float32), (0, missing)))
        return torch.from_numpy(np.pad(own, (0, missing), constant_values=self.pad))


def texts(corpus: Path, split: str | None = None) -> Iterator[tuple[str, str, str]]:
    """Source, split and text of each document, a few at a time.

    Raises ValueError for a file without these columns, or one with answers.
    """
    file = pq.ParquetFile(corpus, memory_map=True)
    columns = set(file.schema_arrow.names)
    if missing := sorted(set(COLUMNS) - columns):
        raise ValueError(f"{corpus} lacks the columns {missing}; it has {sorted(columns)}")
    if "answers" in columns:
        raise ValueError(f"{corpus} weighs answers, which shards do not keep; leave shards null, or the column out")
    for batch in file.iter_batches(DOCUMENTS, columns=list(COLUMNS)):
        for row in batch.to_pylist():
            if split in (None, row["split"]):
                yield row["source"], row["split"], row["text"]


def _write(
    corpus: Path, folder: Path, tokenizer: PreTrainedTokenizerBase, joined: float, seed: int
) -> dict[str, dict[str, Any]]:
    dtype = np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)
    end, generator = tokenizer.eos_token_id, np.random.default_rng(seed)
    files: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {}
    waiting: list[tuple[str, str, str]] = []
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()

    def flush() -> None:
        # Without places of characters and masks, which a call of the tokenizer itself makes.
        encoded = backend.encode_batch_fast([text for *_, text in waiting], add_special_tokens=False)
        for (source, split, text), encoding in zip(waiting, encoded, strict=True):
            ids = encoding.ids
            if split not in ("train", "heldout") or not source or "/" in source or source.startswith("."):
                raise ValueError(f"{corpus} has the split {split!r} of {source!r}; expected train or heldout of a name")
            name = f"{source}.{split}"
            if name not in files:
                files[name] = open(folder / f"{name}.tokens", "wb")  # noqa: SIM115, closed below
                files[name].write(np.array([end], dtype).tobytes())
                parts[name] = {"dtype": dtype.name, "bytes": 0}
            bare = split == "train" and len(ids) > 0 and generator.random() < joined
            files[name].write(np.array(ids if bare else [*ids, end], dtype).tobytes())
            parts[name]["bytes"] += len(text.encode())
        waiting.clear()

    try:
        for document in texts(corpus):
            waiting.append(document)
            if len(waiting) == DOCUMENTS:
                flush()
        flush()
    finally:
        for file in files.values():
            file.close()
    return parts


def _require_own(folder: Path) -> None:
    """Refuse to replace what is no folder of shards."""
    if folder.exists() and (not folder.is_dir() or any(f.suffix not in (".tokens", ".json") for f in folder.iterdir())):
        raise ValueError(f"{folder} holds other files, which shards would replace; give a folder of their own")
