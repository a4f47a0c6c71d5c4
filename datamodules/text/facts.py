"""Documents of invented facts, other text, and questions: what a model must remember to answer from its own context.

A document states one to eight facts, goes on with other text, and asks. Some facts are corrected before they are asked
for. Names are made of syllables; a checksum of each name decides whether training has it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import yaml

FACTS_FILE = Path(__file__).parent / "facts.yaml"
MOST_FACTS = 8
MOST_WORDS = 400  # of other text, in all
NAMES_HELD_OUT = 0.1
CORRECTED = 0.12


@dataclass(frozen=True)
class Fact:
    """``subject`` and ``answer`` of a relation, by its name."""

    relation: str
    subject: str
    answer: str


@dataclass
class Pieces:
    """A text in the making, and the places (start, end) of its answers in characters."""

    text: str = ""
    answers: list[int] = field(default_factory=list)

    def add(self, sentence: str, answer: str | None = None) -> None:
        """Append a sentence; the last place where ``answer`` stands in it is marked."""
        if answer is not None:
            start = len(self.text) + sentence.rindex(answer)
            self.answers += [start, start + len(answer)]
        self.text += sentence


class FactWriter:
    """Writes documents of facts.

    Args:
        held_out: use names that training leaves out, in place of those that it has.
        new_phrases: use predicates and questions that training leaves out.
    """

    def __init__(self, generator: np.random.Generator, held_out: bool = False, new_phrases: bool = False) -> None:
        self.about: dict[str, Any] = yaml.safe_load(FACTS_FILE.read_text(encoding="utf-8"))
        self.generator, self.held_out, self.new_phrases = generator, held_out, new_phrases

    def choose(self, options: Sequence[Any]) -> Any:
        return options[self.generator.integers(len(options))]

    def facts(self, count: int) -> list[Fact]:
        """Different facts, no two with the same relation and subject."""
        found: dict[tuple[str, str], Fact] = {}
        while len(found) < count:
            relation = self.choose(list(self.about["relations"]))
            subject = self._thing(self.about["relations"][relation]["subject"])
            if (
                found and self.generator.random() < 0.3
            ):  # several facts about one subject, which only the relation tells apart
                other = self.choose(list(found.values()))
                if self.about["relations"][other.relation]["subject"] == self.about["relations"][relation]["subject"]:
                    subject = other.subject
            found.setdefault((relation, subject), Fact(relation, subject, self._answer(relation, subject)))
        return list(found.values())

    def statement(self, fact: Fact, forms: str = "frames") -> str:
        predicate = self._phrase(fact, "predicates").format(s=fact.subject, o=fact.answer)
        form = self.choose(self.about[forms])
        sentence = form.format(fact=predicate)
        starts = form.startswith("{fact}") or ". {fact}" in form
        return sentence.replace(predicate, predicate[0].upper() + predicate[1:]) if starts else sentence

    def question(self, fact: Fact) -> str:
        """A question with its answer, which stands last in it."""
        asked = self._phrase(fact, "questions").format(s=fact.subject)
        return self.choose(self.about["answers"]).format(question=asked, o=fact.answer)

    def document(self, other: Iterator[str]) -> tuple[str, list[int]]:
        """Facts, other text, questions; the text and the places of its answers.

        Args:
            other: pieces of other text, some lines each.
        """
        g, made = self.generator, Pieces()
        facts = self.facts(1 + int(min(g.geometric(0.35) - 1, MOST_FACTS - 1)) if g.random() < 0.7 else 8)
        words = 0 if g.random() < 0.2 else int(np.exp(g.uniform(np.log(8), np.log(MOST_WORDS))))
        early = self._cut(next(other), words // 4) if g.random() < 0.3 else ""
        for number, fact in enumerate(facts):
            made.add(self.statement(fact) + " ")
            if early and number == len(facts) // 2:
                made.add(f"\n{early}\n")
        for place, fact in enumerate(facts):
            if g.random() < CORRECTED:
                facts[place] = Fact(fact.relation, fact.subject, self._answer(fact.relation, fact.subject, fact.answer))
                made.add(self.statement(facts[place], "corrections") + " ")
        if words:
            made.add("\n" + self._cut(next(other), words) + "\n")
        for place in g.permutation(np.repeat(np.arange(len(facts)), 1 if len(facts) > 2 else 2)):
            made.add(self.question(facts[place]) + self.choose([" ", "\n"]), facts[place].answer)
        return made.text.rstrip(), made.answers

    def _phrase(self, fact: Fact, kind: str) -> str:
        phrases = self.about["relations"][fact.relation][kind]
        return phrases[-1] if self.new_phrases else self.choose(phrases[:-1])

    def _answer(self, relation: str, subject: str, before: str = "") -> str:
        while (answer := self._thing(self.about["relations"][relation]["object"])) in (subject, before):
            continue
        return answer

    def _thing(self, kind: str) -> str:
        """A word of a kind; names are drawn until one belongs to this side of the split."""
        if kind in self.about["words"]:
            return self.choose(self.about["words"][kind])
        if kind == "age":
            return str(self.generator.integers(12, 99))
        if kind == "year":
            return str(self.generator.integers(1000, 2000))
        while is_held_out_name(name := self._name(kind)) != self.held_out:
            continue
        return name

    def _name(self, kind: str) -> str:
        s = self.about["syllables"]
        if kind == "person":
            first = self.choose(s["first"]) + self.choose(s["last"])
            return first if self.generator.random() < 0.5 else f"{first} {self._joined('family')}"
        if kind == "country":
            return self.choose(s["town"]) + self.choose(s["country_end"])
        return self._joined(kind)

    def _joined(self, kind: str) -> str:
        s = self.about["syllables"]
        return self.choose(s[kind]) + self.choose(s[f"{kind}_end"])

    def _cut(self, text: str, words: int) -> str:
        """As many words from a random place of a text, line breaks kept."""
        pieces = text.split(" ")
        start = int(self.generator.integers(max(1, len(pieces) - words)))
        return " ".join(pieces[start : start + words]).strip()


def is_held_out_name(name: str) -> bool:
    """Whether training leaves out a name. Its parts occur in other names."""
    return crc32(name.encode()) / 2**32 < NAMES_HELD_OUT


def fact_documents(count: int, others: Sequence[str], held_out: bool, seed: int) -> Iterator[tuple[str, list[int]]]:
    """Documents with the places of their answers.

    Args:
        others: documents of other text, from which pieces are drawn.
    """
    generator = np.random.default_rng(seed)
    writer = FactWriter(generator, held_out)
    pieces = (others[i] for i in iter(lambda: int(generator.integers(len(others))), None))
    for _ in range(count):
        yield writer.document(pieces)
