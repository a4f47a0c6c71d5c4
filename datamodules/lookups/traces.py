"""Tasks that take one or two calls of tools, with the trace of a right answer, to train a model that uses tools.

Three tools: ``calc`` computes, ``table`` looks a name up, ``file`` reads a file below a folder. Names, numbers and
files of a task are drawn anew, so that nothing but the tools knows them. A trace, one line each:

    ? table pear + 5
    call table pear
    > pear 12
    call calc 12 + 5
    > 17
    answer 17

Some pairs of numbers are kept out of training. Every word is one token, and so is a line break.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning import LightningDataModule
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast

from datamodules.lookups.tasks import BEGIN, PAD
from gssr.domains import Count, Items, Seed, checked
from gssr.sequences.batches import EpochBatches, EpochLoader, Key

BREAK, END = "\n", "<end>"
LARGEST = 199
NAMES = tuple(f"{a}{b}" for a in ("ba", "de", "fi", "go", "lu", "mo") for b in ("la", "ne", "ri", "so", "tu"))
FILES = tuple(f"{a}/{b}" for a in ("disk", "load", "user", "port") for b in ("first", "home", "now", "root"))
KEYWORDS = ("?", "call", "answer", ">", "calc", "table", "file", "+", "-", "*")
WORDS = (PAD, BEGIN, BREAK, END, *KEYWORDS, *NAMES, *FILES, *map(str, range(LARGEST + 1)))
KINDS = ("calc", "table", "file", "calc calc", "table calc", "file calc", "table table", "file table")
LENGTH = 32  # tokens of the longest trace
PARTS = {"train": 0, "val": 1, "test": 2}


class Task(NamedTuple):
    """``lines``: the task, and what is written and read in turn. ``table`` and ``files`` are what the tools know."""

    lines: list[str]
    table: dict[str, str]
    files: dict[str, str]

    @property
    def answer(self) -> str:
        return self.lines[-1].removeprefix("answer ")

    def write(self, folder: Path) -> None:
        """Make the working folder of the tools."""
        (folder / "table.txt").write_text("".join(f"{key} {value}\n" for key, value in self.table.items()))
        for name, value in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(f"{value}\n")


# The allow-list that a model of these traces uses.
TOOLS: dict[str, Any] = {
    "calc": {
        "does": "computes",
        "command": ["expr", "{a}", "{op}", "{b}"],
        "arguments": {"a": "number", "op": {"one_of": ["+", "-", "*"]}, "b": "number"},
    },
    "table": {
        "does": "looks a name up",
        "command": ["awk", 'BEGIN { key = ARGV[1]; ARGV[1] = "" } $1 == key', "{key}", "table.txt"],
        "arguments": {"key": "word"},
    },
    "file": {"does": "reads a file", "command": ["cat", "{path}"], "arguments": {"path": "path"}},
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; words are separated by blanks, lines by breaks. An unknown word becomes padding."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=PAD))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n", "isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=BEGIN, eos_token=END, pad_token=PAD, unk_token=PAD, padding_side="left"
    )


def task(generator: np.random.Generator, kind: str, held_out: bool) -> Task:
    """A task of one of `KINDS`. With ``held_out`` the numbers of its computation are a pair that training never has."""
    names = [NAMES[i] for i in generator.permutation(len(NAMES))[:6]]
    table = {name: str(generator.integers(1, 100)) for name in names}
    places = [FILES[i] for i in generator.permutation(len(FILES))[:3]]
    files = {name: str(generator.integers(1, 100)) for name in places}
    first, _, second = kind.partition(" ")
    lines, said = [], ""
    if first == "calc":
        a, op, b, said = _computation(generator, held_out and not second)
        asked = f"calc {a} {op} {b}"
        lines = [f"call {asked}", f"> {said}"]
    elif first == "table":
        asked = f"table {names[0]}"
        if second == "table":
            table[names[0]] = names[1]
        said = table[names[0]]
        lines = [f"call {asked}", f"> {names[0]} {said}"]
    else:
        asked = f"file {places[0]}"
        if second == "table":
            files[places[0]] = names[1]
        said = files[places[0]]
        lines = [f"call {asked}", f"> {said}"]
    if second == "calc":
        _, op, b, after = _computation(generator, held_out, int(said))
        asked += f" {op} {b}"
        lines += [f"call calc {said} {op} {b}", f"> {after}"]
        said = after
    elif second == "table":
        asked += " table"
        lines += [f"call table {said}", f"> {said} {table[said]}"]
        said = table[said]
    return Task([f"? {asked}", *lines, f"answer {said}"], table, files)


def _computation(generator: np.random.Generator, held_out: bool, a: int | None = None) -> tuple[str, str, str, str]:
    """Numbers from 1 to 199 and their sum, difference or product, which is one, too."""
    while True:
        left = int(generator.integers(1, 100)) if a is None else a
        op, right = str(generator.choice(["+", "-", "*"])), int(generator.integers(1, 100))
        value = {"+": left + right, "-": left - right, "*": left * right}[op]
        if 1 <= value <= LARGEST and is_held_out(left, right) == held_out:
            return str(left), op, str(right), str(value)


def is_held_out(a: int, b: int) -> bool:
    return (a * 31 + b * 17) % 5 == 0


class Traces(Dataset[dict[str, torch.Tensor]]):
    """{"tokens", "weights"}, (LENGTH) each: a trace, padded behind its end; what a model writes has weight 1."""

    def __init__(self, part: str, size: int, seed: int) -> None:
        self.part, self.size, self.seed = part, size, seed
        self.ids = {word: i for i, word in enumerate(WORDS)}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: Key | int) -> dict[str, torch.Tensor]:
        index = key[1] if isinstance(key, tuple) else key
        generator = np.random.default_rng([self.seed, PARTS[self.part], index])
        kind = KINDS[int(generator.integers(len(KINDS)))]
        found = task(generator, kind, self.part != "train")
        tokens, weights = [self.ids[BEGIN]], [0.0]
        for line in found.lines:
            words = [*line.split(" "), BREAK]
            tokens += [self.ids[word] for word in words]
            weights += [float(words[0] in ("call", "answer"))] * len(words)
        padding = LENGTH - len(tokens)
        return {
            "tokens": torch.tensor(tokens + [self.ids[PAD]] * padding),
            "weights": torch.tensor(weights + [0.0] * padding),
        }


@checked
class ToolTraces(LightningDataModule):
    """Traces, for `gssr.training.language_model`.

    Args:
        batch_size: traces in a batch.
        rows: training traces, batch_size x optimizer steps.
        heldout_rows: traces that validate; their computations have numbers that training never pairs.
        seed: of the tasks.
    """

    def __init__(
        self, batch_size: Items = 64, rows: Count = 128_000, heldout_rows: Items = 512, seed: Seed = 0
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.batch_size, self.rows, self.heldout_rows, self.seed = batch_size, rows, heldout_rows, seed
        self.sources = ["traces"]
        self.heldout_bytes: dict[str, int] = {}
        self.tokenizer = make_tokenizer()

    def train_dataloader(self) -> EpochLoader:
        complete = max(self.batch_size, self.rows - self.rows % self.batch_size)
        return EpochLoader(Traces("train", complete, self.seed), EpochBatches(complete, self.batch_size, shuffle=False))

    def val_dataloader(self) -> list[DataLoader[dict[str, torch.Tensor]]]:
        return [DataLoader(Traces("val", self.heldout_rows, self.seed), self.batch_size)]
