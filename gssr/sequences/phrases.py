"""Words of goals: lengths of time, numbers, and the repair of a sentence whose slots were filled."""

from __future__ import annotations

import math
import re

WHENS = ("in {span}", "{span} from now", "within the next {span}", "after {span}", "over the next {span}", "in {span}")
_COUNTS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_MOST_DECIMALS = 12


def form_core(form: str) -> str:
    """The words and slots of a form in order, without `{when}`, punctuation and capitals: equal for its twins."""
    return " ".join(re.findall(r"[\w{}']+", form.replace("{when}", "").lower()))


def numerals(number: int) -> list[str]:
    """A count in digits and, up to twelve, in words."""
    return [str(number), _COUNTS[number]] if number < len(_COUNTS) else [str(number)]


def time_spans(hours: float) -> list[str]:
    """Wordings of a length of time in hours, days and weeks: 48 gives "48 hours", "two days", "2 days"."""
    spans = []
    for size, unit in ((1, "hour"), (24, "day"), (168, "week")):
        count = hours / size
        if count == round(count) and 1 <= count <= 240:
            words = [str(round(count))] if unit == "hour" else numerals(round(count))
            spans += [f"{word} {unit}{'' if count == 1 else 's'}" for word in words]
        elif size > 1 and 1 < count < 12 and 2 * count == round(2 * count):
            spans.append(f"{_COUNTS[int(count)]} and a half {unit}s")
    return spans or [f"{hours:g} hours"]


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
