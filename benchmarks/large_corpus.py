"""Memory and time of reading corpora of different sizes from shards: memory must not grow with the text.

    python -m benchmarks.large_corpus --megabytes 10 100 1000

Generated text goes through the tokenizer of the bundled model, once, and batches of shuffled rows are read. Each step
has a process of its own. Printed are the time and the largest growth of anonymous memory while the corpus is
tokenised, and while batches are read (see `benchmarks.large_table`); the time until a process that finds the shards has
its first batch; and whether a process that goes on from a loader's state in mid-epoch reads the same bits as one that
was never interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from transformers import PreTrainedTokenizerFast

import gssr.backbone
from benchmarks.large_table import Watch
from datamodules.text import TextCorpus
from gssr.backbone.loading import BUNDLED, NANO

NANO_FOLDER = Path(gssr.backbone.__file__).parent / BUNDLED[NANO]
WORDS = 20_000
DOCUMENT = 400  # words
BATCHES, BATCH, LENGTH = 400, 16, 512


def write_corpus(path: Path, megabytes: int) -> None:
    """Documents of words and pairs of words, frequent and rare as words are; every 50th document is held out."""
    g = np.random.default_rng(0)
    known = sorted(token[1:] for token in tokenizer().get_vocab() if token[0] == "Ġ" and token[1:].isalpha())
    pairs = g.choice(known, (WORDS, 2))
    words = np.array(
        [first + (second if rare else "") for (first, second), rare in zip(pairs, g.random(WORDS) < 0.2, strict=True)]
    )
    chances = 1 / np.arange(10, WORDS + 10)
    size = number = 0
    with pa.parquet.ParquetWriter(
        path, pa.schema([(name, pa.string()) for name in ("source", "split", "text")])
    ) as out:
        while size < megabytes * 1_000_000:
            picked = words[g.choice(WORDS, (500, DOCUMENT), p=chances / chances.sum())]
            texts = [f"{number + i}: {' '.join(row)}." for i, row in enumerate(picked)]
            splits = ["train" if (number + i) % 50 else "heldout" for i in range(500)]
            out.write_table(pa.table({"source": ["words"] * 500, "split": splits, "text": texts}))
            size, number = size + sum(map(len, texts)), number + 500


def tokenizer() -> PreTrainedTokenizerFast:
    """That of the bundled model."""
    return PreTrainedTokenizerFast.from_pretrained(NANO_FOLDER)


def corpus(folder: Path) -> TextCorpus:
    """The corpus of a folder, set up from its shards; they are made where they are missing."""
    data = TextCorpus(
        str(folder / "corpus.parquet"), str(NANO_FOLDER), row_length=LENGTH, batch_size=BATCH,
        rows=BATCHES * BATCH, shards=str(folder / "shards"),
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    return data


def read(folder: Path, batches: int, state: dict[str, int] | None) -> dict[str, Any]:
    """Read so many batches, from the epoch's begin or from a loader's state."""
    watch = Watch()
    before, began = watch.look(), time.perf_counter()
    watch.start()
    loader = corpus(folder).train_dataloader()
    opened = time.perf_counter() - began
    if state is not None:
        loader.load_state_dict(state)
    digests, began = [], time.perf_counter()
    for _, batch in zip(range(batches), loader, strict=False):
        digests.append(hashlib.blake2b(batch["tokens"].numpy().tobytes(), digest_size=8).hexdigest())
    seconds = time.perf_counter() - began
    rows = len(digests) * BATCH
    return {
        "opened": opened, "grown": watch.most - before, "rows a second": rows / seconds, "digests": digests,
        "state": loader.state_dict(),
    }  # fmt: skip


def apart(work: Callable[[], Any]) -> Any:
    """The result of work in a process of its own, which has the libraries from this one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as processes:
        return processes.submit(work).result()


def measure(folder: Path, megabytes: int) -> list[str]:
    apart(partial(write_corpus, folder / "corpus.parquet", megabytes))
    first = apart(partial(read, folder, 1, None))
    tokens = sum(file.stat().st_size for file in (folder / "shards").glob("*.tokens"))
    whole = apart(partial(read, folder, BATCHES, None))
    part = apart(partial(read, folder, BATCHES // 3, None))
    rest = apart(partial(read, folder, BATCHES, part["state"]))
    same = part["digests"] + rest["digests"] == whole["digests"]
    return [
        f"{megabytes:,} MB", f"{tokens / 2e6:,.0f} M", f"{first['opened']:.0f} s", f"{first['grown']:.0f} MB",
        f"{whole['opened']:.2f} s", f"{whole['grown']:.0f} MB", f"{whole['rows a second']:,.0f}",
        "same bits" if same else "OTHER BITS",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--megabytes", type=int, nargs="+", default=[10, 100, 1000], help="of text; default 10 100 1000"
    )
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if min(options.megabytes) < 1:
        parser.error("--megabytes are counts of at least 1")
    heads = (
        "text", "tokens", "tokenised in", "memory grown", "opened again in", "memory grown, 400 batches",
        "rows a second", "after an interruption",
    )  # fmt: skip
    print(f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", sep="\n")
    for megabytes in options.megabytes:
        folder = Path(tempfile.mkdtemp())
        try:
            print(f"| {' | '.join(measure(folder, megabytes))} |", flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
