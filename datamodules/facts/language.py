"""The small language of facts: its words, and sentences of a fact. Every word is one token."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import yaml
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

LANGUAGE_FILE = Path(__file__).parent / "language.yaml"
PAD, BEGIN, UNREAD, END = MARKS = ("<pad>", "<begin>", "<unread>", "<end>")
UNKNOWN = "unknown"
NAMES_HELD_OUT = 0.1
PLAIN = 0.4  # share of sentences in the plain frame
SIGNS = (".", ",", ":", "?")
CHAINED = "home"  # the relation whose answer is the subject of others

Words = list[str]


@dataclass(frozen=True)
class Fact:
    """What a relation says of a subject; subject and answer are words."""

    relation: str
    subject: tuple[str, ...]
    answer: tuple[str, ...]


class Language:
    """Phrases and words as the file has them, split into words once.

    ``statements`` and ``questions`` of a relation, and ``frames``, are pairs: those of training, those held out.
    ``ids`` has the token of each word, ``spoken`` the words of statements and questions of training.
    """

    def __init__(self, file: Path = LANGUAGE_FILE) -> None:
        self.about: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        self.relations = list(self.about["relations"])
        held = self.about["held_out"]
        self.phrases = {
            (relation, kind): _split(about[kind], held["phrases"])
            for relation, about in self.about["relations"].items()
            for kind in ("statements", "questions")
        }
        self.frames = {
            kind: _split(frames, held["frames"] if kind in ("statement", "question") else 0)
            for kind, frames in self.about["frames"].items()
        }
        self.chains = {relation: _split(phrases, 0)[0] for relation, phrases in self.about["chains"].items()}
        self.filler = {kind: [phrase.split() for phrase in phrases] for kind, phrases in self.about["filler"].items()}
        self.ids = {word: i for i, word in enumerate(self.words())}
        spoken = [word for phrases, _ in self.phrases.values() for phrase in phrases for word in phrase]
        self.spoken = list(dict.fromkeys(word for word in spoken if word[0] != "{" and word not in SIGNS))

    def words(self) -> Words:
        """All words, each once, in the order of the file; marks first."""
        found = [*MARKS, ".", UNKNOWN]
        for pair in (*self.phrases.values(), *self.frames.values(), (list(self.chains.values()),)):
            found += [word for part in pair for phrase in part for word in _flat(phrase) if word[0] != "{"]
        for about in self.about["relations"].values():
            found += [about["noun"], *about["answer"], *about["before"], *about["after"]]
        for kind in self.about["names"].values():
            found += kind
        found += [word for phrases in self.filler.values() for phrase in phrases for word in phrase]
        found += ["the", ",", "?"]
        return list(dict.fromkeys(found))


def _split(phrases: list[str], held_out: int) -> tuple[list[Words], list[Words]]:
    words = [phrase.split() for phrase in phrases]
    return words[: len(words) - held_out], words[len(words) - held_out :]


def _flat(phrase: Any) -> Words:
    return [phrase] if isinstance(phrase, str) else [word for part in phrase for word in _flat(part)]


def make_tokenizer(language: Language) -> PreTrainedTokenizerFast:
    """One token a word or sign, in lower case. A word that the language lacks becomes ``<unread>``."""
    words = Tokenizer(models.WordLevel(language.ids, unk_token=UNREAD))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=BEGIN, eos_token=END, pad_token=PAD, unk_token=UNREAD, padding_side="left"
    )


class Writer:
    """Draws facts and writes sentences about them, as words.

    Args:
        held_out: subjects of two or three words that training leaves out, in place of those that it has.
        new_phrases: statements and questions that training leaves out, in frames that it leaves out.
        slips: share of statements and questions in which one word, of neither subject nor answer, is left out or
            another stands in its place. Training has them, so that a phrasing never seen is no sign of a fact never
            said.
    """

    def __init__(
        self,
        language: Language,
        generator: np.random.Generator,
        held_out: bool = False,
        new_phrases: bool = False,
        slips: float = 0.0,
    ) -> None:
        self.language, self.generator, self.slips = language, generator, slips
        self.held_out, self.new_phrases = held_out, new_phrases

    def choose(self, options: Any) -> Any:
        return options[int(self.generator.integers(len(options)))]

    def facts(self, count: int, same: float = 0.3, relations: list[str] | None = None) -> list[Fact]:
        """Different facts, no two with the same relation and subject.

        Args:
            same: chance of a known subject. relations: to draw from, all if not given.
        """
        found: dict[tuple[str, tuple[str, ...]], Fact] = {}
        while len(found) < count:
            relation = self.choose(relations or self.language.relations)
            kind = self.language.about["relations"][relation]["subject"]
            known = [fact.subject for fact in found.values() if self._kind(fact.relation) == kind]
            subject = self.choose(known) if known and self.generator.random() < same else self.subject(kind)
            if subject not in known and any(set(subject) & set(other) for other in known):
                continue  # a first name alone, or a shared part, would not say who is meant
            found.setdefault((relation, subject), Fact(relation, subject, self.answer(relation)))
        return list(found.values())

    def subject(self, kind: str) -> tuple[str, ...]:
        """A name of this side of the split."""
        while True:
            name = self._person() if kind == "person" else self.answer(CHAINED)
            if is_held_out(name) == self.held_out and (len(name) > 1 or not self.held_out):
                return name

    def answer(self, relation: str, other_than: tuple[str, ...] = ()) -> tuple[str, ...]:
        about, g = self.language.about["relations"][relation], self.generator
        while True:
            kind, base = g.random(), self.choose(about["answer"])
            before = (self.choose(about["before"]),) if kind < 0.2 or 0.35 <= kind < 0.5 else ()
            after = (self.choose(about["after"]),) if kind < 0.35 else ()
            if (found := (*before, base, *after)) != other_than:
                return found

    def statement(self, fact: Fact) -> Words:
        return self._sentence("statement", self._phrase(fact.relation, "statements"), fact)

    def correction(self, fact: Fact) -> Words:
        return self._sentence("correction", self._phrase(fact.relation, "statements"), fact)

    def question(self, fact: Fact) -> Words:
        return self._sentence("question", self._phrase(fact.relation, "questions"), fact)

    def forget(self, fact: Fact) -> Words:
        noun = self.language.about["relations"][fact.relation]["noun"]
        return self._sentence("forget", [noun], fact)

    def chained_question(self, home: Fact, of_town: Fact) -> Words:
        """What ``of_town`` says, asked of the person who lives there."""
        return self._sentence("question", self.choose(self.language.chains[of_town.relation]), home)

    def other(self) -> Words:
        """A sentence that states no fact."""
        f = self.language.filler
        thing = ["the", *self.choose(f["adjective"]), *self.choose(f["thing"])]
        other = ["the", *self.choose(f["adjective"]), *self.choose(f["thing"])]
        when = self.choose(f["when"]) if self.generator.random() < 0.5 else []
        end = self.choose(f["end"]) if self.generator.random() < 0.4 else []
        return [*when, *thing, *self.choose(f["action"]), *other, *end, "."]

    def _kind(self, relation: str) -> str:
        return self.language.about["relations"][relation]["subject"]

    def _person(self) -> tuple[str, ...]:
        names, size = self.language.about["names"], self.generator.random()
        first = self.choose(names["first"])
        if size < 0.2:
            return (first,)
        middle = (self.choose(names["middle"]),) if size < 0.5 else ()
        return (first, *middle, self.choose(names["family"]))

    def _phrase(self, relation: str, kind: str) -> Words:
        return self.choose(self.language.phrases[relation, kind][self.new_phrases])

    def _sentence(self, kind: str, phrase: Words, fact: Fact) -> Words:
        frames = self.language.frames[kind][self.new_phrases and kind in ("statement", "question")]
        frame = frames[0] if not self.new_phrases and self.generator.random() < PLAIN else self.choose(frames)
        slots = {"{x}": phrase, "{s}": fact.subject, "{o}": fact.answer}
        filled = [word for part in frame for word in (phrase if part == "{x}" else [part])]
        if kind in ("statement", "question") and self.generator.random() < self.slips:
            self._slip(filled)
        return [word for part in filled for word in slots.get(part, (part,))]

    def _slip(self, words: Words) -> None:
        """Leave a word of a sentence out, or put another in its place."""
        place = self.choose([i for i, word in enumerate(words) if word[0] != "{" and word not in SIGNS])
        words[place : place + 1] = [] if self.generator.random() < 0.5 else [self.choose(self.language.spoken)]


def is_held_out(name: tuple[str, ...]) -> bool:
    """Whether training leaves out a name of several words as a subject. Its words occur in other names."""
    return len(name) > 1 and crc32(" ".join(name).encode()) / 2**32 < NAMES_HELD_OUT
