"""Sentences with what they mean, written from forms: what the head learns from.

Numbers, times, names and units of a sentence are those of no table: the head sees a word for their kind alone, see
`gssr.understanding.mentions`. So one head reads the goals of every table.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from gssr import yaml_files
from gssr.understanding.mentions import WORDS
from gssr.understanding.sentence import Meaning, Piece, Sentence, inflected, tidied

FOLDER = Path(__file__).parent
BOUNDS = ("none", "exact", "least", "most", "above", "below", "low", "high")
BASES = ("level", "rise", "fall")
WHENS = ("at", "within", "until")
KINDS = ("goal", "other", "none")
_PART = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{([a-zA-Z]+)(?:\.(s|ing)|(ing))?\}")
_FACTORS = ("double", "triple", "halve", "twice", "three times", "five times", "half", "a third", "a quarter", "a half")
_VERBS = ("double", "triple", "halve", "quadruple", "treble")
_OF = ("half", "a third", "a quarter", "two thirds", "three quarters", "a fifth", "one half")
_AROUND = (
    *(("please, ", ""), ("please ", ""), ("I want this: ", ""), ("goal: ", ""), ("well, ", ""), ("now ", "")),
    *(("what if: ", "?"), ("OK: ", ""), ("try this: ", "."), ("we would like: ", ""), ("my wish: ", ""), ("so ", "")),
    *(("the task is this: ", "."), ("could you: ", "?"), ("suppose that ", ""), ("it would be nice: ", "")),
    *(("", ", please"), ("", ", if you can"), ("", ", thanks"), ("", ", whatever happens"), ("", " if possible")),
)


@cache
def _forms() -> dict[str, Any]:
    return yaml_files.load((FOLDER / "sentences.yaml").read_text(encoding="utf-8"))


@cache
def _others() -> dict[str, Any]:
    return yaml_files.load((FOLDER / "no_goals.yaml").read_text(encoding="utf-8"))


class Writer:
    """Draws sentences.

    Args:
        generator: of all choices.
        texts: sentences of any text, which are no goals.
    """

    def __init__(self, generator: random.Random, texts: Sequence[str] = ()) -> None:
        self.generator, self.texts = generator, texts
        self.foreign, self.foreign_words = False, 0

    def __call__(self) -> Sentence:
        share = self.generator.random()
        self.foreign = False
        if share < 0.12 and self.texts:
            return Sentence(self._one(self.texts), "none")
        if share < 0.25:
            return self._plain()
        self.foreign = share < 0.40
        return self._goal()

    # ------------------------------------------------------------------ goals

    def _goal(self) -> Sentence:
        either, self.foreign_words = False, 0
        if self.generator.random() < 0.3:
            pieces, either = self._compound()
        else:
            pieces = self._clause(0)
        pieces = self._wrapped(pieces)
        return self._sentence(pieces, "other" if self.foreign_words else "goal", either)

    def _compound(self) -> tuple[list[Piece], bool]:
        either = self.generator.random() < 0.25
        numbered = [form for form in _forms()["forms"] if not form["is"].startswith("direction")]
        shared = self.generator.random() < 0.35
        one = self._clause(0, form=self._form(numbered), timed=not shared)
        two = self._clause(1, form=self._form(numbered), timed=True)
        if shared:  # the time behind the second holds for both
            at = next((p for p in two if p.kind in ("length", "moment", "end")), None)
            if at is not None:
                at.clause = 2
        joiners = (
            [" or ", ", or ", " or else ", " or otherwise "]
            if either
            else [" and ", ", and ", " and then ", ", then ", " but ", ", but ", "; ", " while ", " and also ", ". ",
                  ", with ", " as well as ", ", later ", " and at the same time ", " plus ", ", "]
        )  # fmt: skip
        begin = "either " if either and self.generator.random() < 0.4 else ""
        end = ", both" if shared and not either and self.generator.random() < 0.1 else ""
        return [Piece(begin), *one, Piece(self._one(joiners)), *two, Piece(end)], either

    def _form(self, forms: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return self.generator.choices(forms, [len(form["forms"]) ** 0.5 for form in forms])[0]

    def _clause(self, clause: int, form: dict[str, Any] | None = None, timed: bool = True) -> list[Piece]:
        form = form or self._form(_forms()["forms"])
        words = form["is"].split()
        bound, basis = ("exact", words[1]) if words[0] == "direction" else (words[0], words[1])
        whens = form["when"]
        text = self._choices(self._one(form["forms"]))
        has_time = timed and ("{t}" in text or self.generator.random() < 0.85)
        when = whens[0]
        if has_time and self.generator.random() < (0.4 if whens[0] == "at" else 0.25):
            when = whens[-1]
        if has_time and when == "within" and "negated" in words:
            when = "at"
        meaning = Meaning(bound, basis, "negated" in words, when)
        if not has_time and "never" in text and bound == "exact" and meaning.negated:
            meaning.when = "within"
        pieces = self._filled(text, meaning, clause, factor="factor" in words, direction=words[0] == "direction")
        if has_time and not any(piece.text == "{t}" for piece in pieces):
            time = Piece("{t}")
            if self.generator.random() < 0.25:
                pieces = [time, Piece(self._one([", ", ", ", " ", ": "])), *pieces]
            else:
                pieces = [*pieces, Piece(self._one([" ", " ", " ", ", "])), time]
        whole: list[Piece] = []
        for piece in pieces:
            # "Over the next 48 hours" is a time of what changes, and every step of what stays.
            during = when == "at" and whens[0] == "at" and self.generator.random() < 0.15
            kind = "during" if during else when
            whole += self._time(kind, clause) if piece.text == "{t}" and piece.kind is None else [piece]
        return [piece for piece in whole if piece.text != "{t}"]

    def _filled(self, text: str, meaning: Meaning, clause: int, factor: bool, direction: bool) -> list[Piece]:
        pieces: list[Piece] = []
        if direction:
            pieces.append(Piece("", "whole", meaning, clause))
        last = 0
        named = False
        for slot in _SLOT.finditer(text):
            pieces.append(Piece(text[last : slot.start()]))
            last, name, form = slot.end(), slot[1], slot[2] or slot[3]
            if name in ("x", "n"):
                pieces += self._value(meaning, clause, name == "n", named)
            elif name in ("lo", "hi"):
                bound = "low" if name == "lo" else "high"
                unit = name == "hi" or self.generator.random() < 0.2
                pieces += self._value(replace(meaning, bound=bound), clause, True, named, unit)
            elif name == "p":
                pieces += self._factor(meaning, clause, text[: slot.start()])
            elif name in ("v", "name"):
                named = True
                pieces += self._named(name == "v", clause)
            elif name == "t":
                pieces.append(Piece("{t}"))
            else:
                pieces.append(Piece(inflected(self._one(_forms()["words"][name]), form)))
        return [*pieces, Piece(text[last:])]

    def _value(self, meaning: Meaning, clause: int, number: bool, named: bool, unit: bool | None = None) -> list[Piece]:
        if not number and not self.foreign and self.generator.random() < 0.25:
            article = self._one(["a ", "a ", "the ", "", "some "])
            return [Piece(article), Piece(WORDS["range"], "range", meaning, clause)]
        found = [Piece(WORDS["number"], "number", meaning, clause)]
        if self.foreign and (unit is None or unit) and (not named or self.generator.random() < 0.6):
            self.foreign_words += 1
            return [*found, Piece(f" {self._one(_others()['units'])}")]
        if unit is None:
            unit = self.generator.random() < 0.75
        if unit and not self.foreign:
            between = self._one([" ", " ", " ", " ", "", "-", " of the ", ", in "])
            kind = "name" if self.generator.random() < 0.12 else "unit"  # some names count: 60 births
            found += [Piece(between), Piece(WORDS[kind], kind, None, clause)]
        return found

    def _factor(self, meaning: Meaning, clause: int, before: str) -> list[Piece]:
        shares = meaning.basis != "level" or re.search(r"(?:to|in|by|of|lose|only|just|let) $", before)
        if shares:
            if self.generator.random() < 0.6:
                count = self._one(["50", "50", "twenty", "ten"])
                return [Piece(f"{count}{self._one(['%', ' %', ' percent', ' per cent'])}", "percent", meaning, clause)]
            return [Piece(self._one(_OF), "percent", meaning, clause)]
        if re.search(r"(?:should|must|will|shall|is to|has to|least|let) $", before) or not before.strip():
            word = self._one([*_VERBS, *_VERBS, "twice", "half"])
        else:
            word = self._one(["double", "twice", "three times", "half", "triple", "two times", "10 times", "doubling"])
        return [Piece(word, "percent" if word == "half" else "factor", meaning, clause)]

    def _named(self, article: bool, clause: int) -> list[Piece]:
        before = self._one(["the ", "the ", "the ", "its ", "this ", "", "our ", "the present "])
        before = before if article else ""
        if self.foreign:
            self.foreign_words += 1
            return [Piece(before + self._one(_others()["quantities"]))]
        return [Piece(before), Piece(WORDS["name"], "name", None, clause)]

    def _time(self, when: str, clause: int) -> list[Piece]:
        text = self._choices(self._one(_forms()["times"][when]))
        pieces: list[Piece] = []
        last = 0
        for slot in re.finditer(r"\{([TME])\}|\bthe end\b(?! of)", text):
            pieces.append(Piece(text[last : slot.start()]))
            kind = {"T": "length", "M": "moment"}.get(slot[1] or "", "end")
            pieces.append(Piece(WORDS[kind] or "", kind, None, clause))
            last = slot.end()
        return [*pieces, Piece(text[last:])]

    def _wrapped(self, pieces: list[Piece]) -> list[Piece]:
        share = self.generator.random()
        if share < 0.75:
            begin, end = "", self._one(["", "", "", ".", ".", "!"])
        else:
            begin, end = self._one(_AROUND)
        return [Piece(begin), *pieces, Piece(end)]

    def _sentence(self, pieces: Sequence[Piece], kind: str, either: bool = False) -> Sentence:
        text, found, meanings = "", [], {}
        clauses: list[tuple[int, str, int]] = []
        for piece in pieces:
            if not piece.text and piece.kind != "whole":
                continue
            start = len(text)
            text += piece.text
            if piece.kind == "whole":
                meanings[-1] = piece.meaning
                clauses.append((-1, "whole", piece.clause))
            elif piece.kind is not None:
                if piece.meaning is not None:
                    meanings[len(found)] = piece.meaning
                clauses.append((len(found), piece.kind, piece.clause))
                found.append((piece.kind, start, len(text)))
        own = {i: clause for i, _, clause in clauses}
        linked = {}
        for i, meaning in meanings.items():
            about = [j for j, k, c in clauses if k in ("name", "unit") and c in (own[i], 2)]
            at = [j for j, k, c in clauses if k in ("length", "moment", "end") and c in (own[i], 2)]
            linked[i] = replace(meaning, about=about, at=at)
        text, found = tidied(text, found)
        if self.generator.random() < 0.85 and text:
            first = found[0][1] if found else len(text)
            text = text[0].upper() + text[1:] if first > 0 else text
        return Sentence(text, kind, found, linked if kind == "goal" else {}, either and kind == "goal")

    # ------------------------------------------------------------------ no goals

    def _plain(self) -> Sentence:
        words = _others()
        text = self._choices(self._one(words["plain"]))
        nouns = {"thing": "things", "person": "people", "place": "places", "unit": "units"}
        pieces: list[Piece] = []
        last = 0
        for slot in _SLOT.finditer(text):
            pieces.append(Piece(text[last : slot.start()]))
            last, name = slot.end(), slot[1]
            if name in nouns:
                pieces.append(Piece(self._one(words[nouns[name]])))
            elif name in ("v", "name"):
                pieces += self._named(name == "v", 0)
            elif name in ("n", "x"):
                pieces.append(Piece(WORDS["number"] or "", "number"))
                if name == "x":
                    pieces += [Piece(" "), Piece(WORDS["unit"] or "", "unit")]
            elif name == "when":
                pieces += self._time(self._one(WHENS), 0)
            else:
                pieces.append(Piece(*((WORDS["length"] or "", "length") if name == "T" else ("Monday", "moment"))))
        return self._sentence(self._wrapped([*pieces, Piece(text[last:])]), "none")

    # ------------------------------------------------------------------ choices

    def _choices(self, text: str) -> str:
        while found := _PART.search(text):
            text = text[: found.start()] + self._one(found[1].split("|")) + text[found.end() :]
        return text

    def _one(self, options: Sequence[Any]) -> Any:
        return options[int(self.generator.random() * len(options))]


def sentences(count: int, seed: int, texts: Sequence[str] = ()) -> Iterator[Sentence]:
    """So many sentences; the same for a seed."""
    writer = Writer(random.Random(seed), texts)  # nosec B311: sentences, no secrets
    return (writer() for _ in range(count))
