"""What a sentence mentions: numbers, named ranges, factors, times, values and units, found exactly.

What is done with them is read by a trained head (`gssr.understanding.head`); here nothing is guessed. The head sees
every number, range, length of time, date, name and unit as one word for its kind, so that it learns what words around
them do, whatever the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from gssr.sequences.clock import EPOCH, Length
from gssr.sequences.goal_numbers import numbers
from gssr.sequences.vocabulary import Range, Vocabulary
from gssr.understanding.spelled import ONES, SMALL, SPELLED, TENS, spelled

LONGEST = 400  # characters of a sentence that is read
# Kinds, and the word that the head sees in their place; None: as it stands.
WORDS: dict[str, str | None] = {
    "number": "50",
    "range": "class 5",
    "factor": None,
    "percent": None,
    "length": "10 hours",
    "moment": "Monday",
    "end": "the end",
    "name": "value",
    "unit": "units",
}
KINDS = tuple(WORDS)
VALUES, TIMES, SUBJECTS = ("number", "range", "factor", "percent"), ("length", "moment", "end"), ("name", "unit")

_FACTORS = {
    "double": 2, "doubles": 2, "doubled": 2, "doubling": 2, "twice": 2, "triple": 3, "tripled": 3, "tripling": 3,
    "treble": 3, "thrice": 3, "quadruple": 4, "quadrupled": 4, "halve": 0.5, "halves": 0.5, "halved": 0.5,
    "halving": 0.5,
}  # fmt: skip
_SHARES = {
    "three quarters": 0.75, "two thirds": 2 / 3, "a quarter": 0.25, "one quarter": 0.25, "a third": 1 / 3,
    "one third": 1 / 3, "a fifth": 0.2, "one fifth": 0.2, "a tenth": 0.1, "one tenth": 0.1, "a half": 0.5,
    "one half": 0.5, "half": 0.5,
}  # fmt: skip
_HOURS = {"min": 1 / 60, "minute": 1 / 60, "h": 1, "hr": 1, "hour": 1, "d": 24, "day": 24, "night": 24, "week": 168,
          "fortnight": 336}  # fmt: skip
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_UNIT_OF_TIME = "minutes?|mins?|hours?|hrs?|h|days?|d|nights?|weeks?|fortnights?|months?|quarters?|years?"
_MONTH = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_SHORT_MONTH = "|".join(rf"{name[:3]}(?:{name[3:]})?" if len(name) > 3 else name for name in _MONTH) + "|Sept"
_CLOCK = r"(?:,?\s+(?:at\s+)?(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?\s?(?:UTC|Z|GMT)?)?"
_ISO = re.compile(
    r"\b(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)(?:[T\s]\s*(?:at\s+)?(?P<hour>\d\d):?(?P<minute>\d\d)?(?::\d\d)?)?"
    r"\s?(?:Z|UTC|GMT|\+00:00)?"
)
_NAMED = (
    re.compile(
        rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<name>{_SHORT_MONTH})\b\.?(?:,?\s+(?P<year>\d{{4}}))?{_CLOCK}"
    ),
    re.compile(
        rf"\b(?P<name>{_SHORT_MONTH})\.?\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,?\s+(?P<year>\d{{4}}))?{_CLOCK}"
    ),
)
_SOON = re.compile(
    r"\b(?:(?:the\s+)?day after tomorrow|tomorrow)\b(?:\s+at\s+(?:this time|\d{1,2}:\d\d\s?(?:Z|UTC)?))?", re.IGNORECASE
)
_END = re.compile(
    r"\b(?:(?:the\s+)?(?:very\s+)?end\b(?!\s+(?:of|up|as|at|with|on|in|a|an)\b)(?!\s+\d)|"
    r"(?:the\s+)?end of (?:the|this) (?:period|horizon|window|forecast|time)"
    r"|(?:the\s+)?(?:last|final) (?:step|moment|hour)|eventually|finally|in the long run)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Mention:
    """A part of a sentence, from ``start`` to before ``end``.

    ``value``: of a number its size, of a factor or share its size, of a range a `Range`, of a length a `Length` or a
    number of steps, of a moment hours since 1970 (or a `Length`), of a name or unit the columns that have it.
    """

    kind: str
    start: int
    end: int
    value: Any = None


def mentions(text: str, words: Vocabulary, now: float | None = None) -> list[Mention]:
    """The mentions in a sentence in order; none overlaps another.

    Args:
        now: hours since 1970 of the last observation, for dates without a year.
    """
    taken, found = [False] * len(text), []
    for mention in _candidates(text, words, now):
        if not any(taken[mention.start : mention.end]) and not _is_rate(mention, text):
            taken[mention.start : mention.end] = [True] * (mention.end - mention.start)
            found.append(mention)
    return sorted(found, key=lambda m: m.start)


def masked(text: str, found: list[Mention]) -> tuple[str, list[tuple[int, int]]]:
    """The sentence as the head sees it, and where in it each mention stands."""
    parts, places, last, size = [], [], 0, 0
    for mention in found:
        word = WORDS[mention.kind] or text[mention.start : mention.end]
        parts += [text[last : mention.start], word]
        size += mention.start - last
        places.append((size, size + len(word)))
        size, last = size + len(word), mention.end
    return "".join([*parts, text[last:]]), places


def _candidates(text: str, words: Vocabulary, now: float | None) -> Iterator[Mention]:
    """What may be a mention, the surest first."""
    yield from _moments(text, now)
    yield from _lengths(text, words)
    for found in _END.finditer(text):
        yield Mention("end", *found.span())
    patterns, columns = _patterns(words)
    for found in patterns["range"].finditer(text):
        yield Mention("range", *found.span(), words.ranges[_key(found[0], words)])
    yield from _factors(text, patterns["percent"])
    for kind in SUBJECTS:
        for found in patterns[kind].finditer(text):
            yield Mention(kind, *found.span(), columns[kind, found[0].lower().removesuffix("s")])
    for start, end, value in numbers(text):
        yield Mention("number", start, end, value)
    for found in SPELLED.finditer(text):
        yield Mention("number", *found.span(), spelled(found[0]))


def _is_rate(mention: Mention, text: str) -> bool:
    """Whether a length is that of "60 strikes a week"."""
    if mention.kind != "length" or not re.match(r"(?:an?|per)\s", text[mention.start : mention.end], re.IGNORECASE):
        return False
    before, behind = text[: mention.start].rstrip(), text[mention.end :]
    return not re.match(r"\s*(?:from|later|ahead|on\b|hence|and a half)", behind) and bool(
        re.search(r"\d\s+[^\W\d]+$|\bper$", before)
    )


def _moments(text: str, now: float | None) -> Iterator[Mention]:
    year = EPOCH.year if now is None else datetime.fromtimestamp(now * 3600, UTC).year
    for pattern in (_ISO, *_NAMED):
        for found in pattern.finditer(text):
            parts = found.groupdict()
            month = int(parts["month"]) if parts.get("month") else _month(parts["name"])
            try:
                moment = datetime(
                    int(parts["year"] or year), month, int(parts["day"]), int(parts["hour"] or 0),
                    int(parts["minute"] or 0), tzinfo=UTC,
                )  # fmt: skip
            except ValueError:
                continue
            yield Mention("moment", *found.span(), (moment - EPOCH).total_seconds() / 3600)
    for found in _SOON.finditer(text):
        yield Mention("moment", *found.span(), Length(48.0 if "after" in found[0].lower() else 24.0, 0))


def _month(name: str) -> int:
    return next(i for i, month in enumerate(_MONTH, 1) if month[:3].lower() == name[:3].lower())


def _lengths(text: str, words: Vocabulary) -> Iterator[Mention]:
    steps = "|".join(re.escape(form) for noun in words.steps for form in (noun, _singular(noun)))
    digits = r"\+?\d+(?:\.\d+)?"
    count = rf"(?:{digits}|{SPELLED.pattern})"
    unit = rf"(?P<unit>{_UNIT_OF_TIME}|{steps})\b"
    forms = (
        (rf"\b(?P<count>a|an|one)\s+{unit}\s+and\s+a\s+half\b", 0.5),
        (rf"\b(?P<count>{count})\s+and\s+a\s+half\s+{unit}", 0.5),
        (rf"\bhalf\s+(?P<count>an?)\s+{unit}", -0.5),
        (rf"(?<![\w.])(?P<count>{count})[\s-]*(?:more\s+|further\s+|full\s+)?{unit}'?", 0.0),
        (rf"\b(?P<unit>hour|step|day)\s+(?P<count>{digits})(?![\w.]*\d)", 0.0),
        (rf"\b(?:the\s+)?(?P<count>next)\s+(?P<unit>{steps})\b", 0.0),
        (rf"\b(?P<count>an?)\s+(?!quarter){unit}(?!\s+(?:more|less))", 0.0),
    )
    for form, more in forms:
        for found in re.finditer(form, text, re.IGNORECASE):
            length = _length(found["count"].lower(), found["unit"], more)
            if length is not None:
                yield Mention("length", *found.span(), length)


def _singular(noun: str) -> str:
    return f"{noun[:-3]}y" if noun.endswith("ies") else noun.removesuffix("s")


def _length(count: str, unit: str, more: float) -> Length | int | None:
    number = 1.0 if count in ("a", "an", "next") else float(count) if count[0] in "+0123456789" else spelled(count)
    number += more
    short = unit.lower().removesuffix("s") if len(unit) > 1 else unit.lower()
    if short in _HOURS:
        return Length(number * _HOURS[short], 0) if number > 0 else None
    if short in _MONTHS:
        return Length(0, number * _MONTHS[short]) if number > 0 and float(number).is_integer() else None
    return int(number) if number >= 1 and number.is_integer() else None


def _factors(text: str, percent: re.Pattern[str]) -> Iterator[Mention]:
    count = rf"(?:\d+(?:\.\d+)?|{SPELLED.pattern})"
    for found in re.finditer(rf"\b(?P<count>{count})(?:\s+times\b|[\s-]?fold\b)", text, re.IGNORECASE):
        yield Mention("factor", *found.span(), _size(found["count"]))
    for found in re.finditer(rf"\b(?P<count>{'|'.join([*TENS, *ONES])})fold\b", text, re.IGNORECASE):
        yield Mention("factor", *found.span(), float(SMALL[found["count"].lower()]))
    for found in re.finditer(rf"\b(?:{'|'.join(_FACTORS)})\b", text, re.IGNORECASE):
        yield Mention("factor", *found.span(), float(_FACTORS[found[0].lower()]))
    for found in percent.finditer(text):
        yield Mention("percent", *found.span(), _size(found["count"]) / 100)
    for found in re.finditer(rf"\b(?:{'|'.join(_SHARES)})\b(?!-)", text, re.IGNORECASE):
        yield Mention("percent", *found.span(), _SHARES[found[0].lower()])


def _size(count: str) -> float:
    return float(count) if count[0].isdigit() else spelled(count)


@lru_cache(maxsize=64)
def _compiled(key: tuple[Any, ...]) -> tuple[dict[str, re.Pattern[str]], dict[tuple[str, str], frozenset[int]]]:
    wordings, units, ranges = key
    columns: dict[tuple[str, str], frozenset[int]] = {}
    patterns = {}
    for kind, of_columns in (("name", wordings), ("unit", units)):
        for column, words in enumerate(of_columns):
            for word in words:
                at = (kind, word.lower().removesuffix("s"))
                columns[at] = columns.get(at, frozenset()) | {column}
        known = {word for words in of_columns for word in words}
        patterns[kind] = _any(known, kind == "unit")
    known_ranges = {re.sub(r"\b\d+\b", lambda n: f"(?:{n[0]}|{_word(n[0])})", re.escape(name)) for name in ranges}
    patterns["range"] = re.compile(
        rf"\b(?:{'|'.join(sorted(known_ranges, key=len, reverse=True))})\b" if ranges else r"(?!)", re.IGNORECASE
    )
    signs = [] if ("unit", "%") in columns else ["%", "percent", "per cent", "pct"]
    count = rf"(?P<count>\d+(?:\.\d+)?|{SPELLED.pattern})"
    patterns["percent"] = re.compile(
        rf"(?<![\w.]){count}\s?(?:{'|'.join(signs)})(?!\w)" if signs else r"(?P<count>)(?!)", re.IGNORECASE
    )
    return patterns, columns


def _patterns(words: Vocabulary) -> tuple[dict[str, re.Pattern[str]], dict[tuple[str, str], frozenset[int]]]:
    return _compiled((words.wordings, words.unit_wordings, tuple(words.ranges)))


def _any(known: set[str], unit: bool) -> re.Pattern[str]:
    """Any of some words. A unit may stand right behind its number, and degrees of temperature are other degrees."""
    if not known:
        return re.compile(r"(?!)")
    before = r"(?<![^\W\d_])" if unit else r"(?<!\w)"
    behind = r"(?![\w/])(?!\s*(?:Celsius|Fahrenheit|centigrade|C\b|F\b))" if unit else r"(?:s)?(?!\w)"
    each = sorted((re.escape(word) for word in known), key=len, reverse=True)
    # Signs of one letter are words, too, so that their case counts.
    short = [word for word in each if unit and len(word) <= 2]
    long = [word for word in each if word not in short]
    forms = [*([f"(?i:{'|'.join(long)})"] if long else []), *short]
    return re.compile(f"{before}(?:{'|'.join(forms)}){behind}")


def _key(found: str, words: Vocabulary) -> str:
    plain = re.sub(SPELLED, lambda each: f"{spelled(each[0]):g}", found).lower()
    return next(name for name in words.ranges if name.lower() in (plain, found.lower()))


def _word(digits: str) -> str:
    return next((word for word, size in SMALL.items() if str(size) == digits), digits)


__all__ = ["KINDS", "SUBJECTS", "TIMES", "VALUES", "WORDS", "Mention", "Range", "masked", "mentions"]
