"""Documents: facts are stated, other text follows, and questions are asked and answered.

Some facts are corrected, and the newest holds; some are struck out, and then the answer is "unknown", as it is for what
was never said. Some questions take two facts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from datamodules.facts.language import CHAINED, UNKNOWN, Fact, Words, Writer

CORRECTED, FORGOTTEN, CHAINS, NEVER_SAID, ASKED_AGAIN = 0.1, 0.03, 0.08, 0.1, 0.5
CROWDED = 0.7  # share of episodes whose facts have one or two relations, so that only the subject tells them apart
SAID = 0.03  # weight of what is no answer


@dataclass
class Document:
    """Words in the making, and the weight of each as a target."""

    words: Words = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add(self, words: Words, weight: float) -> None:
        self.words += words
        self.weights += [weight] * len(words)

    def ask(self, question: Words, answer: tuple[str, ...]) -> None:
        self.add(question, SAID)
        self.add([*answer, "."], 1.0)


def write(writer: Writer, length: int, most_facts: int, easy: bool) -> Document:
    """Episodes of facts and questions until there are ``length`` words, cut there.

    Args:
        most_facts: facts of an episode at most.
        easy: no correction, no chain and no other text.
    """
    made = Document()
    while len(made.words) < length:
        episode(writer, made, length, most_facts, easy)
    return Document(made.words[:length], made.weights[:length])


def episode(writer: Writer, made: Document, length: int, most_facts: int, easy: bool) -> None:
    """Facts, other text, and a question for each fact in random order."""
    g = writer.generator
    few = [writer.choose(writer.language.relations) for _ in range(2)] if g.random() < CROWDED else None
    begin, facts = len(made.words), writer.facts(int(g.integers(1, most_facts + 1)), relations=few)
    questions = [_asking(writer, fact) for fact in facts]
    if not easy and g.random() < CHAINS:
        home, of_town = chain(writer)
        facts += [home, of_town]
        questions += [_asking(writer, home), lambda: (writer.chained_question(home, of_town), of_town.answer)]
    between = 0.0 if easy else 0.25 * int(g.integers(3))
    for fact in (facts[i] for i in g.permutation(len(facts))):
        made.add(writer.statement(fact), SAID)
        while g.random() < between:
            made.add(writer.other(), SAID)
    if not easy:
        for i, fact in enumerate(facts[: len(questions)]):
            kind = g.random()
            # What a chain asks for stays as it was said.
            if len(questions) != len(facts) or kind >= CORRECTED + FORGOTTEN:
                continue
            if kind < CORRECTED:
                facts[i] = replace(fact, answer=writer.answer(fact.relation, other_than=fact.answer))
                made.add(writer.correction(facts[i]), SAID)
            else:
                facts[i] = replace(fact, answer=(UNKNOWN,))
                made.add(writer.forget(fact), SAID)
            questions[i] = _asking(writer, facts[i])
        if g.random() < 0.5:
            # Log-uniform up to three quarters of the document, so that all distances are trained.
            gap = np.exp(g.uniform(np.log(8), np.log(max(8.0, 0.75 * length))))
            end = min(len(made.words) + gap, begin + 0.75 * length)
            busy = g.random() < 0.5
            while len(made.words) < end:
                if busy and g.random() < 0.3:
                    (fact,) = writer.facts(1)
                    made.add(writer.statement(fact), SAID)
                    made.ask(writer.question(fact), fact.answer)
                made.add(writer.other(), SAID)
    asked = [i for i in range(len(questions)) for _ in range(1 + (g.random() < ASKED_AGAIN))]
    for i in g.permutation(asked):
        if g.random() < NEVER_SAID:
            made.ask(*never_said(writer, facts))
        made.ask(*questions[int(i)]())
        while g.random() < between / 2:
            made.add(writer.other(), SAID)


def chain(writer: Writer) -> tuple[Fact, Fact]:
    """Where a person lives, and something about that town."""
    person = Fact(CHAINED, writer.subject("person"), writer.answer(CHAINED))
    relation = writer.choose(list(writer.language.chains))
    return person, Fact(relation, person.answer, writer.answer(relation))


def never_said(writer: Writer, facts: list[Fact]) -> tuple[Words, tuple[str, ...]]:
    """A question to which no fact is the answer: half of them about a subject of the facts."""
    said = {(fact.relation, fact.subject) for fact in facts}
    words = {word for fact in facts for word in fact.subject}
    while True:
        relation = writer.choose(writer.language.relations)
        kind = writer.language.about["relations"][relation]["subject"]
        known = [f.subject for f in facts if writer.language.about["relations"][f.relation]["subject"] == kind]
        is_known = bool(known) and writer.generator.random() < 0.5
        subject = writer.choose(known) if is_known else writer.subject(kind)
        if (relation, subject) not in said and (is_known or not words & set(subject)):
            return writer.question(Fact(relation, subject, (UNKNOWN,))), (UNKNOWN,)


def _asking(writer: Writer, fact: Fact) -> Callable[[], tuple[Words, tuple[str, ...]]]:
    return lambda: (writer.question(fact), fact.answer)
