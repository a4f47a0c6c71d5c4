"""Whether a sentence has a word for a change: "rise", "by 20", "20 more", "lose". Without one its numbers are levels.

A small head takes numbers without a verb for changes, in forms that it has not learned ("Ideally, 40 kt in two days").
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from gssr import yaml_files
from gssr.understanding.mentions import WORDS

KINDS = ("up", "down", "raise", "lower", "rise", "fall", "more", "less")  # lists of words in sentences.yaml
# Other words of the forms in sentences.yaml, and forms of verbs that no ending makes.
_MORE = (
    "by|up|down|off|away|plus|minus|another|extra|further|additional|again|worth of|differ|shift|swing|chang|add|"
    "subtract|gain|win(?!d)|won|puts? on|putting on|acquir|collect|los[ei]|lost|loss|give up|gave|forfeit|part with|"
    "get rid|got|take|took|strip|knock|remov|beat|exceed|rose|fell|grew|sank|went|came|risen|fallen|grown|sunk|gone"
)
# What compares with a number, not with today: "no more than 50".
_COMPARES = re.compile(rf"\b\w+(?:\s+or\s+\w+)?\s+than\s+(?={WORDS['number']}\b)", re.IGNORECASE)
_SIGN = re.compile(rf"(?:^|\s)[+−-]\s?{WORDS['number']}\b")


def has_change_word(text: str) -> bool:
    """Whether a masked sentence in plain words (`gssr.understanding.plain_words`) may speak of a change."""
    return bool(_SIGN.search(text) or _pattern().search(_COMPARES.sub("", text)))


@cache
def _pattern() -> re.Pattern[str]:
    words = yaml_files.load((Path(__file__).parent / "sentences.yaml").read_text(encoding="utf-8"))["words"]
    first = {phrase.split()[0] if kind in ("rise", "fall") else phrase for kind in KINDS for phrase in words[kind]}
    # Any ending, without a silent e: "increas" is in "increases" and "increasing". The other phrases begin with verbs.
    stems = {re.escape(phrase.removesuffix("e")) if " " not in phrase else _phrase(phrase) for phrase in first}
    return re.compile(rf"\b(?:{'|'.join(sorted(stems))}|{_MORE})\w*", re.IGNORECASE)


def _phrase(phrase: str) -> str:
    verb, rest = phrase.split(" ", 1)
    return rf"{re.escape(verb.removesuffix('e'))}\w*\s+{re.escape(rest)}"
