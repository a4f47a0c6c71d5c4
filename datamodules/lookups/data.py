"""Problems of `datamodules.lookups.tasks` as batches, written out or for thoughts.

Seed, part and number of a batch determine it; no problem is stored. All problems of a batch are of one task and size,
so that none is padded. Shapes: B rows, L tokens, K lookups.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast

from datamodules.lookups.tasks import BEGIN, END, PAD, TASKS, WORDS, Problem
from gssr.domains import Count, Different, Items, Seed, checked
from gssr.sequences.batches import EpochBatches, EpochLoader, Key

PARTS = {"train": 0, "val": 1, "test": 2}
IDS = {word: i for i, word in enumerate(WORDS)}
Row = dict[str, Tensor]
Kind = Literal["chains", "arithmetic", "permutations", "pointers"]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, words separated by blanks. An unknown word becomes padding, which no problem has."""
    words = Tokenizer(models.WordLevel(IDS, unk_token=PAD))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=BEGIN, eos_token=END, pad_token=PAD, unk_token=PAD, padding_side="left"
    )


def ids(words: Sequence[str]) -> list[int]:
    return [IDS[word] for word in words]


class Problems(Dataset[Row]):
    """Rows made as they are asked for; keys are (epoch, index), or index.

    Args:
        tasks: names of `TASKS`; each batch has one.
        size: number of rows. batch: rows that share a task and a size.
    """

    def __init__(self, tasks: Sequence[str], part: str, size: int, batch: int, seed: int) -> None:
        self.tasks, self.part, self.size, self.batch, self.seed = list(tasks), PARTS[part], size, batch, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: Key | int) -> Row:
        index = key[1] if isinstance(key, tuple) else key
        shared = np.random.default_rng([self.seed, self.part, 0, index // self.batch])
        task = TASKS[self.tasks[int(shared.integers(len(self.tasks)))]]
        size = task.size(shared)
        own = np.random.default_rng([self.seed, self.part, 1, index])
        return self.row(task.problem(own, size), shared, own)

    def row(self, problem: Problem, shared: np.random.Generator, own: np.random.Generator) -> Row:
        """Args: generators of the batch and of the row."""
        raise NotImplementedError


class WrittenProblems(Problems):
    """{"tokens", "weights"}, (L+1) each: facts, a word, and what it leads to: a whole chain, or one lookup of any word.

    The weight is 1 for what is looked up, and 0 elsewhere.
    """

    chains = 0.4

    def row(self, problem: Problem, shared: np.random.Generator, own: np.random.Generator) -> Row:
        longest = max(map(len, problem.chains))
        lookups = min(longest, problem.written or longest) if shared.random() < self.chains else 1
        chain = problem.chains[int(own.integers(len(problem.chains)))]
        # What may be written out as a whole is; else it begins anywhere.
        start = 0 if lookups == longest else int(own.integers(len(chain)))
        said = looked_up(chain, start, lookups)
        tokens = torch.tensor(ids([*problem.facts, *said]))
        weights = torch.zeros(len(tokens))
        weights[len(problem.facts) + 1 :] = 1.0
        return {"tokens": tokens, "weights": weights}


class ThoughtProblems(Problems):
    """{"prompt" (L), "chain" (K+1), "answer" ()}: facts and the first word; that word and what it leads to.

    ``chain`` repeats the answer behind its end. Training begins at any word of a chain, the other parts at the first of
    the longest one.
    """

    def row(self, problem: Problem, shared: np.random.Generator, own: np.random.Generator) -> Row:
        chain = problem.chains[int(own.integers(len(problem.chains)))]
        start = int(own.integers(len(chain)))
        if self.part != PARTS["train"]:
            longest = max(map(len, problem.chains))
            chains = [chain for chain in problem.chains if len(chain) == longest]
            chain, start = chains[int(own.integers(len(chains)))], 0
        return thought_row(problem, chain, start, max(map(len, problem.chains)))


def thought_row(problem: Problem, chain: Sequence[str], start: int, lookups: int) -> Row:
    said = looked_up(chain, start, lookups)
    return {
        "prompt": torch.tensor(ids([*problem.facts, said[0]])),
        "chain": torch.tensor(ids(said)),
        "answer": torch.tensor(IDS[chain[-1]]),
    }


def looked_up(chain: Sequence[str], start: int, lookups: int) -> list[str]:
    """A word of a chain and what so many lookups give in turn."""
    return [chain[min(k, len(chain) - 1)] for k in range(start, start + lookups + 1)]


@checked
class WrittenChains(LightningDataModule):
    """Written problems, for `gssr.training.language_model`.

    Args:
        tasks: some of chains, permutations, pointers and arithmetic; each batch has one of them.
        batch_size: problems in a batch.
        rows: training problems, batch_size x optimizer steps.
        heldout_rows: problems of each task that validate.
        seed: of the problems.
    """

    kind: type[Problems] = WrittenProblems

    def __init__(
        self,
        tasks: Annotated[tuple[Kind, ...], Different()] = ("chains", "permutations", "pointers"),
        batch_size: Items = 32,
        rows: Count = 96_000,
        heldout_rows: Items = 512,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.tasks, self.batch_size, self.rows = tuple(tasks), batch_size, rows
        self.heldout_rows, self.seed = heldout_rows, seed
        self.sources = list(self.tasks)
        self.heldout_bytes: dict[str, int] = {}
        self.tokenizer = make_tokenizer()

    def train_dataloader(self) -> EpochLoader:
        complete = max(self.batch_size, self.rows - self.rows % self.batch_size)
        problems = self.kind(self.tasks, "train", complete, self.batch_size, self.seed)
        return EpochLoader(problems, EpochBatches(complete, self.batch_size, shuffle=False))

    def val_dataloader(self) -> list[DataLoader[Row]]:
        return self._heldout("val")

    def test_dataloader(self) -> list[DataLoader[Row]]:
        return self._heldout("test")

    def _heldout(self, part: str) -> list[DataLoader[Row]]:
        return [
            DataLoader(self.kind([task], part, self.heldout_rows, self.batch_size, self.seed), self.batch_size)
            for task in self.tasks
        ]


class ThoughtChains(WrittenChains):
    """The same problems for thoughts, see `gssr.reasoning.training`; the options are those of `WrittenChains`."""

    kind = ThoughtProblems
