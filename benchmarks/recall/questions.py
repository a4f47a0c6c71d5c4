"""Questions about invented facts with names that training leaves out: statements, other text, a question, answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.text.facts import Fact, FactWriter

CHOICES = 4
UNNAMED = {"place"}  # relations whose subject and answer are words of training


@dataclass(frozen=True)
class Question:
    """Token ids: statements of the facts, the question up to its answer, and ``CHOICES`` answers, the right one first.

    ``another`` are statements with another answer to the question: the last of ``answers``.
    """

    facts: list[int]
    another: list[int]
    question: list[int]
    answers: list[list[int]]


@dataclass(frozen=True)
class Kind:
    """A kind of question by the facts that are stated.

    ``alike``: all facts are of one relation, their answers are the choices, and only the subject tells which is right.
    """

    facts: int
    alike: bool = False
    new_phrases: bool = False


KINDS = {
    "one fact": Kind(1),
    "four facts": Kind(4),
    "four facts of one relation": Kind(4, alike=True),
    "one fact, phrases not trained on": Kind(1, new_phrases=True),
}
Tokenize = Callable[[str], list[int]]


def questions(kind: Kind, count: int, tokenize: Tokenize, seed: int) -> Iterator[Question]:
    """``count`` questions; the same seed gives the same ones."""
    generator = np.random.default_rng(seed)
    writer = FactWriter(generator, held_out=True, new_phrases=kind.new_phrases)
    for _ in range(count):
        yield _question(writer, kind, tokenize)


def _question(writer: FactWriter, kind: Kind, tokenize: Tokenize) -> Question:
    pool = [fact for fact in writer.facts(160) if fact.relation not in UNNAMED]
    facts = _alike(pool, kind.facts) if kind.alike else pool[: kind.facts]
    asked = facts[int(writer.generator.integers(len(facts)))]
    answers = [asked.answer]
    objects = {name: relation["object"] for name, relation in writer.about["relations"].items()}
    # Answers that the context names come first: a model that only knows that a word was there does not pass.
    for fact in [*facts, *pool]:
        if objects[fact.relation] == objects[asked.relation] and fact.answer not in [*answers, asked.subject]:
            answers.append(fact.answer)
    answers = answers[:CHOICES]
    statements = {fact: writer.statement(fact) for fact in facts}
    other = Fact(asked.relation, asked.subject, answers[-1])
    text = writer.question(asked)
    place = text.rindex(asked.answer)
    place -= text[place - 1] == " "  # a word's token begins with its space
    end = text[place:].removeprefix(" ").removeprefix(asked.answer)
    return Question(
        tokenize(" ".join(statements.values()) + "\n"),
        tokenize(" ".join(writer.statement(other) if fact is asked else s for fact, s in statements.items()) + "\n"),
        tokenize("\n" + text[:place]),
        [tokenize(f" {answer}{end}") for answer in answers],
    )


def _alike(pool: Sequence[Fact], count: int) -> list[Fact]:
    """Facts of one relation with different subjects and answers; the relation of the first that has enough."""
    for first in pool:
        found: list[Fact] = []
        for fact in pool:
            new = all(fact.subject != f.subject and fact.answer != f.answer for f in found)
            if fact.relation == first.relation and new and len(found) < count:
                found.append(fact)
        if len(found) == count:
            return found
    raise AssertionError("160 facts of 11 relations have four of one")
