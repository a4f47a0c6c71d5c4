"""Batches for projectors: facts with a question each, and texts behind which a word is to be said.

Seed, part and number of a batch determine it. Within a batch all facts have one length, and so have all questions: a
state decays at padding, so there is none.

Shapes: B rows, F facts, L tokens, A tokens of an answer with the full stop, ``IGNORED`` behind it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, ClassVar
from zlib import crc32

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.facts.data import PARTS, SOURCES, Row, only
from datamodules.facts.documents import write
from datamodules.facts.language import BEGIN, MARKS, Fact, Language, Words, Writer, make_tokenizer
from gssr.domains import Count, Items, Range, Seed, checked
from gssr.sequences.batches import EpochBatches, EpochLoader, Key

IGNORED = -100
ANSWER = 4  # words of the longest answer, with its full stop
DRAWN = 9  # sentences whose median length is that of a batch
TARGETS_HELD_OUT = 0.2
Facts = Annotated[int, Range(1, 16)]


class Questions:
    """Draws rows of facts and questions, as words of fixed numbers."""

    def __init__(self, writer: Writer, fact_length: int, question_length: int) -> None:
        self.writer, self.fact_length, self.question_length = writer, fact_length, question_length

    def facts(self, count: int) -> list[tuple[Fact, Words, Words]]:
        """Facts about different subjects, each with a statement and a question."""
        found: list[tuple[Fact, Words, Words]] = []
        while len(found) < count:
            (fact,) = self.writer.facts(1)
            if any(set(fact.subject) & set(other.subject) for other, _, _ in found):
                continue
            said = sized(lambda fact=fact: self.writer.statement(fact), self.fact_length)
            asked = said and sized(lambda fact=fact: self.writer.question(fact), self.question_length)
            if said and asked:
                found.append((fact, said, asked))
        return found

    def row(self, count: int) -> dict[str, list[Words]]:
        """``corrections`` and ``new_answers`` are those of the first fact."""
        while True:
            facts = self.facts(count)
            first = facts[0][0]
            new = replace(first, answer=self.writer.answer(first.relation, other_than=first.answer))
            if correction := sized(lambda new=new: self.writer.statement(new), self.fact_length):
                break
        return {
            "facts": [said for _, said, _ in facts],
            "questions": [asked for _, _, asked in facts],
            "answers": [[*fact.answer, "."] for fact, _, _ in facts],
            "corrections": [correction],
            "new_answers": [[*new.answer, "."]],
        }

    def other(self, length: int, busy: bool) -> Words:
        """Other text, cut to a length; ``busy``: about half of it states and asks for other facts."""
        words: Words = []
        while len(words) < length:
            if busy and self.writer.generator.random() < 0.35:
                (fact,) = self.writer.facts(1)
                words += [*self.writer.statement(fact), *self.writer.question(fact), *fact.answer, "."]
            words += self.writer.other()
        return words[len(words) - length :]


def sized(draw: Callable[[], Words], length: int, tries: int = 12) -> Words | None:
    """The first of some sentences that has this many words."""
    return next((words for words in (draw() for _ in range(tries)) if len(words) == length), None)


def question_batch(
    language: Language, generator: np.random.Generator, rows: int, facts: int, other: int, **how: bool
) -> Row:
    """{"facts" (B, F, L), "questions" (B, F, L), "answers" (B, F, A), "corrections" (B, L), "new_answers" (B, A),
    "other" (B, L)}.

    Args:
        other: tokens of other text. how: ``held_out`` and ``new_phrases`` of the writer, and ``busy``.
    """
    busy = how.pop("busy", False)
    writer = Writer(language, generator, **how)
    lengths = [(len(writer.statement(fact)), len(writer.question(fact))) for fact in writer.facts(DRAWN)]
    made = Questions(writer, *(sorted(each)[DRAWN // 2] for each in zip(*lengths, strict=True)))
    ids = language.ids
    drawn = [made.row(facts) for _ in range(rows)]

    def tensor(name: str) -> Tensor:
        padded = name.endswith("answers")
        return torch.tensor(
            [
                [[ids[w] for w in words] + [IGNORED] * (ANSWER - len(words) if padded else 0) for words in row[name]]
                for row in drawn
            ]
        )

    batch = {name: tensor(name) for name in drawn[0]}
    batch |= {name: batch[name][:, 0] for name in ("corrections", "new_answers")}
    others = [[ids[word] for word in made.other(other, busy)] for _ in range(rows)]
    return {**batch, "other": torch.tensor(others, dtype=torch.int64).view(rows, other)}


class _Batches(Dataset[Row]):
    def __init__(self, make: Callable[[np.random.Generator, str], Row], part: str, count: int, seed: int, source: str):
        self.make, self.part, self.count, self.seed, self.source = make, PARTS[part], count, seed, source

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Key | int) -> Row:
        index = key[1] if isinstance(key, tuple) else key
        # Of a domain of their own: the model's own training has the same seeds.
        return self.make(np.random.default_rng([self.seed, self.part, index, 1]), self.source)


class _Tasks(LightningDataModule):
    """Batches that a subclass makes: of training, and of each held-out source."""

    sources: ClassVar[list[str]]

    def _prepare(self, batches: int, heldout_batches: int, seed: int) -> None:
        self.batches, self.heldout_batches, self.seed = batches, heldout_batches, seed
        self.language = Language()
        self.tokenizer = make_tokenizer(self.language)

    def make(self, generator: np.random.Generator, source: str) -> Row:
        raise NotImplementedError

    def train_dataloader(self) -> EpochLoader:
        batches = _Batches(self.make, "train", self.batches, self.seed, "train")
        return EpochLoader(batches, EpochBatches(self.batches, 1, shuffle=False), collate_fn=only)

    def val_dataloader(self) -> list[DataLoader[Row]]:
        return self._heldout("val")

    def test_dataloader(self) -> list[DataLoader[Row]]:
        return self._heldout("test")

    def _heldout(self, part: str) -> list[DataLoader[Row]]:
        return [
            DataLoader(_Batches(self.make, part, self.heldout_batches, self.seed, source), collate_fn=only)
            for source in self.sources
        ]


@checked
class FactQuestions(_Tasks):
    """Facts to be written, other text, and questions, for `gssr.control.training`.

    Validation and test have held-out names, and half of them held-out phrasings.

    Args:
        rows: B. facts: F at most. longest: tokens of other text at most; a third of the batches has none.
        batches: of training, one for each optimizer step. heldout_batches: of each source.
        seed: of the batches.
    """

    sources = list(SOURCES)

    def __init__(
        self,
        rows: Items = 12,
        facts: Facts = 4,
        longest: Items = 256,
        batches: Count = 300,
        heldout_batches: Items = 8,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.rows, self.facts, self.longest = rows, facts, longest
        self._prepare(batches, heldout_batches, seed)

    def make(self, generator: np.random.Generator, source: str) -> Row:
        facts = int(generator.integers(1, self.facts + 1))
        other = 0 if generator.random() < 1 / 3 else int(np.exp(generator.uniform(0, np.log(self.longest))))
        how = {"held_out": source != "train", "new_phrases": source == "phrasings"}
        return question_batch(self.language, generator, self.rows, facts, other, **how)


@checked
class ForcedTokens(_Tasks):
    """Texts and a word that is to be said behind them: {"prompt" (B, L), "target" (B,)}.

    Validation and test have texts of held-out names and words that training never forces.

    Args:
        rows: B. longest: tokens of a text at most.
        batches: of training, one for each optimizer step. heldout_batches: of the held-out source.
        seed: of the batches.
    """

    sources = ["targets"]

    def __init__(
        self,
        rows: Items = 48,
        longest: Items = 48,
        batches: Count = 500,
        heldout_batches: Items = 8,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.rows, self.longest = rows, longest
        self._prepare(batches, heldout_batches, seed)

    def make(self, generator: np.random.Generator, source: str) -> Row:
        return forced_batch(self.language, generator, self.rows, self.longest, source != "train")


def forced_batch(language: Language, generator: np.random.Generator, rows: int, longest: int, held_out: bool) -> Row:
    wanted = [i for word, i in language.ids.items() if word not in MARKS and is_held_out_target(word) == held_out]
    length = int(generator.integers(8, max(9, longest + 1)))
    writer, ids = Writer(language, generator, held_out), language.ids
    documents = [write(writer, length, 2, easy=False).words for _ in range(rows)]
    return {
        "prompt": torch.tensor([[ids[word] for word in (BEGIN, *document)] for document in documents]),
        "target": torch.from_numpy(generator.choice(wanted, rows).astype(np.int64)),
    }


def is_held_out_target(word: str) -> bool:
    """Whether training never forces a word."""
    return crc32(f"target {word}".encode()) / 2**32 < TARGETS_HELD_OUT
