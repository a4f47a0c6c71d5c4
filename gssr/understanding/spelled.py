"""Numbers in words."""

import re

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ONES = dict(zip(_DIGITS, range(10), strict=True))
_TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"),
    *("sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SMALL = ONES | {word: 10 + i for i, word in enumerate(_TEENS)} | {word: 20 + 10 * i for i, word in enumerate(TENS)}
_LARGE = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000, "dozen": 12}
_BELOW_100 = rf"(?:(?:{'|'.join(TENS)})(?:[\s-]+(?:{'|'.join(list(ONES)[1:])})\b)?|{'|'.join(_TEENS)}|{'|'.join(ONES)})"
_BELOW_1000 = rf"(?:(?:a|{_BELOW_100})[\s-]+hundred(?:\s+(?:and\s+)?{_BELOW_100}\b)?|{_BELOW_100})"
SPELLED = re.compile(
    rf"\b(?:(?:a|{_BELOW_1000})[\s-]+(?:thousand|million|billion)(?:\s+(?:and\s+)?{_BELOW_1000}\b)?"
    rf"|(?:a|half a|{_BELOW_100})\s+dozen|{_BELOW_1000})\b",
    re.IGNORECASE,
)


def spelled(text: str) -> float:
    """The number that words spell: "a hundred and ten" is 110."""
    total, group = 0.0, 0.0
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in SMALL:
            group += SMALL[word]
        elif word == "half":
            group = 0.5
        elif word in ("hundred", "dozen"):
            group = (group or 1) * _LARGE[word]
        elif word in _LARGE:
            total, group = total + (group or 1) * _LARGE[word], 0.0
    return total + group
