"""Words of goals: lengths of time, numbers, and the repair of a sentence whose slots were filled."""

from __future__ import annotations

import math
import re

WHENS = ("in {span}", "{span} from now", "within the next {span}", "after {span}", "over the next {span}", "in {span}")
_COUNTS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_SHORT = {"minute": 60, "second": 3600, "millisecond": 3_600_000}  # in an hour
_MOST_DECIMALS = 12


def form_core(form: str) -> str:
    """The words and slots of a form in order, without `{when}`, punctuation and capitals: equal for its twins."""
    return " ".join(re.findall(r"[\w{}']+", form.replace("{when}", "").lower()))


def numerals(number: int) -> list[str]:
    """A count in digits and, up to twelve, in words."""
    return [str(number), _COUNTS[number]] if number < len(_COUNTS) else [str(number)]


def time_spans(hours: float) -> list[str]:
    """Wordings of a length of time in the units that fit: 48 gives "48 hours", "two days", "2 days"."""
    spans = []
    for size, unit in ((1, "hour"), (24, "day"), (168, "week")):
        count = round(hours / size, 9)
        if count == round(count) and 1 <= count <= 240:
            spans += (
                [f"{hours:.9g} hour{'' if count == 1 else 's'}"] if size == 1 else counted_spans(round(count), unit)
            )
        elif size > 1 and 1 < count < 12 and 2 * count == round(2 * count):
            spans.append(f"{_COUNTS[int(count)]} and a half {unit}s")
    if spans:
        return spans
    for unit, many in _SHORT.items():  # in whole numbers of the longest unit that has few of them
        count = round(hours * many, 3)
        if count == round(count) and 1 <= count < 1000 and (hours < 2 or round(hours, 2) != round(hours, 9)):
            return [f"{count:g} {unit}{'' if count == 1 else 's'}"]
    unit = next((unit for unit, many in _SHORT.items() if hours * many >= 2), "millisecond") if hours < 2 else "hour"
    return [f"{hours * _SHORT.get(unit, 1):.6g} {unit}s"]


def counted_spans(count: int, unit: str) -> list[str]:
    """Wordings of a length of time that is counted in a noun: 3 and "month" give "3 months", "three months"."""
    return [f"{word} {unit}{'' if count == 1 else 's'}" for word in numerals(count)]


def decimals(step: float) -> int:
    """Digits behind the point that a multiple of `step` needs: 2 for 0.25, 0 for 5."""
    for digits in range(_MOST_DECIMALS):
        if math.isclose(step * 10**digits, round(step * 10**digits), rel_tol=1e-9) and round(step * 10**digits):
            return digits
    return _MOST_DECIMALS


def number_word(number: float, step: float) -> str:
    """A multiple of `step` as one writes it: 35, -3.5, 1200000; with an exponent where it is very small or large."""
    if number and not 1e-4 <= abs(number) < 1e12:
        return f"{number:.4g}"
    word = f"{number:.{decimals(step)}f}"
    word = word.rstrip("0").rstrip(".") if "." in word else word
    return "0" if word == "-0" else word


def tidy(sentence: str) -> str:
    """Repair what an empty slot leaves: doubled spaces, spaces before a stop, a comma at the start, a small initial."""
    sentence = re.sub(r"\s+", " ", sentence)
    sentence = re.sub(r"\s+([,.;:?!])", r"\1", sentence)
    sentence = re.sub(r"^[\s,;:]+", "", sentence)
    sentence = re.sub(r"[,;:]\s*(?=[.?!]|$)", "", sentence).strip()
    return sentence[:1].upper() + sentence[1:]
