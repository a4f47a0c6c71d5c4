"""A sentence with its meaning, and how its parts are put into English."""

import re
from dataclasses import dataclass, field
from itertools import accumulate

_DOUBLED = {"drop", "cut", "get", "slip", "trim", "dip", "slump", "sit", "run", "hit", "put", "step", "plan", "stop"}


@dataclass
class Meaning:
    """What a mention says: a bound of a basis, negated or not, and when; ``about`` and ``at`` are the places of the
    mentions of its value and its time, any of which will do, and none where the sentence names none.
    """

    bound: str
    basis: str = "level"
    negated: bool = False
    when: str = "at"
    about: list[int] = field(default_factory=list)
    at: list[int] = field(default_factory=list)


@dataclass
class Sentence:
    """A sentence as the head sees it; ``mentions`` are kinds with their places, ``meanings`` by mention, -1 being the
    sentence itself, which has a direction without any number. ``either``: one of its clauses is enough.
    """

    text: str
    kind: str
    mentions: list[tuple[str, int, int]] = field(default_factory=list)
    meanings: dict[int, Meaning] = field(default_factory=dict)
    either: bool = False


@dataclass
class Piece:
    text: str
    kind: str | None = None
    meaning: Meaning | None = None
    clause: int = 0


def tidied(text: str, found: list[tuple[str, int, int]]) -> tuple[str, list[tuple[str, int, int]]]:
    """Without doubled blanks, blanks before stops, and blanks at the ends; places move along."""
    keep = [True] * len(text)
    for match in re.finditer(r"(?<=\s)\s+|\s+(?=[,.;:?!])|^[\s,;:]+|\s+$", text):
        keep[match.start() : match.end()] = [False] * (match.end() - match.start())
    for _, start, end in found:
        keep[start:end] = [True] * (end - start)
    before = list(accumulate(keep, initial=0))
    kept = "".join(char for char, ok in zip(text, keep, strict=True) if ok)
    return kept, [(kind, before[start], before[end]) for kind, start, end in found]


def inflected(verb: str, form: str | None) -> str:
    if form is None:
        return verb
    first, blank, rest = verb.partition(" ")
    if first == "be":
        return ("is" if form == "s" else "being") + blank + rest
    if first == "have":
        return ("has" if form == "s" else "having") + blank + rest
    if form == "s":
        if re.search(r"(?:[sxzo]|ch|sh)$", first):
            first += "es"
        else:
            first = f"{first[:-1]}ies" if re.search(r"[^aeiou]y$", first) else f"{first}s"
    else:
        first = first[:-1] if first.endswith("e") and not first.endswith("ee") else first
        first += (first[-1] if first in _DOUBLED else "") + "ing"
    return first + blank + rest
