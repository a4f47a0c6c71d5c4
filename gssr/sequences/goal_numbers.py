"""The levels that a goal names, told apart from its dates, lengths of time, shares, ordinals and labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

MOST_READ = 1_000  # characters of a goal that are searched
_MINUS = "−﹣－-"  # the last one means no range behind others
_POWER = rf"[+{_MINUS}]?\d{{1,4}}"
_DIGITS = (
    r"[1-9]\d{0,2}(?P<mark>[,'’ \u00a0\u2009\u202f])\d{3}(?:(?P=mark)\d{3})*(?!\d)(?:\.\d+)?"  # 1,200,000.5
    r"|[1-9]\d{0,2}(?:\.\d{3}){2,}(?!\d)(?:,\d+)?|[1-9]\d{0,2}\.\d{3},\d+"  # 1.200.000 and 1.200,5
    r"|\d+(?:[.,]\d+)?|\.\d+"
)
_NUMBER = re.compile(
    rf"(?<![\w.^])(?<![^\W\d_][+–{_MINUS}])(?P<sign>[+{_MINUS}]?)(?:10\s?(?:\^|\*\*)\s?(?P<of_ten>{_POWER})"
    rf"|(?P<digits>{_DIGITS})(?:[eE](?P<exponent>{_POWER})(?!\w)|\s?[×x*·]\s?10\s?(?:\^|\*\*)\s?(?P<power>{_POWER}))?)"
    r"(?!\.?\d)"
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_DAY = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:t(?:ember)?)?"
    r"|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b\.?"
)
_YEAR = r"(?:19|20|21)\d\d"
_TIMES = re.compile(
    r"(?<![\w.])(?:\d{4}-(?:0[1-9]|1[0-2])(?:-\d\d)?(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?(?:Z|[+-]\d\d:?\d\d)?(?!\d)"
    r"|\d{1,2}(?P<between>[./])\d{1,2}(?P=between)(?:\d{4}|\d\d)(?!\d)|\d{4}/\d{1,2}/\d{1,2}(?!\d)"
    r"|\d{1,2}:\d\d(?::\d\d)?(?:Z|\s?[ap]\.?m\b)?|\d{1,2}\s?(?:[ap]\.?m\b|o'clock)"
    rf"|(?:{_DAY}\s+(?:of\s+)?)?{_MONTH}(?:\s+{_DAY}(?!\w|[.,]\d))?(?:,?\s+{_YEAR}(?!\d))?)"
)
_LENGTH = re.compile(
    r"[\s-]*(?:(?:-|–|to|or)\s*\d+(?:\.\d+)?[\s-]*)?(?:(?:business|trading|working|calendar|full|more|further)\s+)?"
    r"(?:ms|milliseconds?|s|secs?|seconds?|mins?|minutes?|h|hrs?|hours?|d|days?|nights?|wks?|weeks?|fortnights?|months?"
    r"|quarters?|yrs?|years?|decades?|steps?)(?![\w/])",
    re.IGNORECASE,
)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_SHARE = re.compile(r"\s?(?:%|‰|percent(?:age)?\b|per cent\b|pct\b|pp\b)", re.IGNORECASE)
_SHARES = ("%", "percent", "per cent", "pct")
_SCALES = {"thousand": 1e3, "k": 1e3, "million": 1e6, "mn": 1e6, "billion": 1e9, "bn": 1e9, "trillion": 1e12}
_SCALE = re.compile(rf"\s?({'|'.join(_SCALES)})\b")
_LABEL = re.compile(
    r"\b(?:week|day|hour|month|quarter|year|step|category|cat|class|stage|grade|phase|type|no\.|FY)[\s#-]*$|#$",
    re.IGNORECASE,
)
_IN_A_YEAR = re.compile(
    r"\b(?:in|by|until|till|before|after|during|since|through|early|late|mid|Q[1-4]|H[12]"
    r"|(?:end|start|beginning|middle|course) of)[\s-]*$",
    re.IGNORECASE,
)


def levels(goal: str, units: Collection[str] = ()) -> list[float]:
    """The numbers of a goal that are levels of a value; `units` are those of the values it may speak of.

    Thousands may be separated ("1,200", "1 200", "1.200.000"), a minus may be Unicode's, a number may have an exponent
    ("1e5", "2 × 10^6") or a word ("3 million"). A comma before other than three digits is a decimal one. Left out are
    dates, years ("by 2030"), times of day, lengths of time, ordinals and labels ("category 3"), and percentages of
    something. What stands before one of the units is a level in any case.
    """
    return [level for _, _, level in _levels(_plain(goal[:MOST_READ]), units)]


def rewritten(
    goal: str, write: Callable[[float], str], units: Collection[str] = (), names: Collection[str] = ()
) -> str:
    """A goal with what `write` makes of each of its `levels`; the numbers in `names` of values, as in "PM 2.5", stay.

    Only the first `MOST_READ` characters are looked through.
    """
    text = _plain(goal)
    masked, numbered = text[:MOST_READ], [name.strip() for name in names if re.search(r"\d", name)]
    for name in sorted(numbered, key=len, reverse=True):
        of_name = rf"(?<!\w){re.escape(name)}(?!\w)"
        masked = re.sub(of_name, lambda found: "_" * len(found[0]), masked, flags=re.IGNORECASE)
    for start, end, level in reversed(_levels(masked, units)):
        text = text[:start] + write(level) + text[end:]
    return text


def _plain(goal: str) -> str:
    return re.sub(r"[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda found: "^" + found[0].translate(_SUPERSCRIPTS), goal)


def _levels(text: str, units: Collection[str]) -> list[tuple[int, int, float]]:
    """Where each level starts and ends, and its size."""
    text = _TIMES.sub(lambda found: "," * len(found[0]), text)
    units = [unit.strip() for unit in units if unit.strip()]
    own = re.compile(rf"[\s-]?(?:{'|'.join(map(re.escape, units))})(?!\w)") if units else None
    return [
        (found.start(), found.end() if own and own.match(text, found.end()) else end, _value(found, text, own))
        for found in _NUMBER.finditer(text)
        if _is_level(found, text, own, units)
        for _, end in [_extent(found, text)]
    ]


def numbers(text: str) -> list[tuple[int, int, float]]:
    """Every number in digits: where it starts and ends, and its size."""
    return [(*_extent(found, text), _value(found, text, None)) for found in _NUMBER.finditer(text[:MOST_READ])]


def _extent(found: re.Match[str], text: str) -> tuple[int, int]:
    scale = _SCALE.match(text, found.end())
    return found.start(), scale.end() if scale else found.end()


def is_unseen(goal: str, seen: Collection[tuple[float, float]], units: Collection[str] = ()) -> bool:
    """Whether a goal names levels, and none of them lies within a range (low, high) that was seen of some value."""
    found = levels(goal, units)
    reach = [(low, high, 1e-6 * max(abs(low), abs(high))) for low, high in seen]  # ends may be float32
    return bool(found) and not any(low - e <= level <= high + e for level in found for low, high, e in reach)


def _is_level(found: re.Match[str], text: str, own: re.Pattern[str] | None, units: Sequence[str]) -> bool:
    before, end = text[max(0, found.start() - 30) : found.start()], found.end()
    if own is not None and own.match(text, end):
        return True
    if _SHARE.match(text, end):
        return any(unit.lower() in _SHARES for unit in units)
    if _ORDINAL.match(text, end) or _LENGTH.match(text, end) or _LABEL.search(before):
        return False
    return not (re.fullmatch(_YEAR, found[0]) and _IN_A_YEAR.search(before))


def _value(found: re.Match[str], text: str, own: re.Pattern[str] | None) -> float:
    digits, mark = found["digits"] or "1", found["mark"]
    if mark is not None:
        digits = digits.replace(mark, "")
    elif digits.count(".") > 1 or ("." in digits and "," in digits):
        digits = digits.replace(".", "")
    power = re.sub(f"[{_MINUS}]", "-", found["of_ten"] or found["exponent"] or found["power"] or "0")
    size = float(f"{digits.replace(',', '.')}e{power}")
    scale = _SCALE.match(text, found.end())
    if scale and not (own and own.match(text, found.end())):
        size *= _SCALES[scale[1]]
    return -size if found["sign"] and found["sign"] in _MINUS else size
