"""Conditions on how values go on, as a user writes them.

    wind >= 96 at 48h and wind <= 100 until 24h
    wind +30 within 24h
    (wind >= 96 and pressure <= 960) within 2 days or not "sea level" 0..2 until 3 steps

    condition   values with a time; `not`, `and`, `or` (they bind in this order) and parentheses
    a value     NAME >= NUMBER, or with <=, > or <      the level
                NAME LOW..HIGH                          the level, both ends included
                NAME +NUMBER or NAME -NUMBER            at least so far above or below the last observed value
                NAME change >= NUMBER, NAME change LOW..HIGH      any change from the last observed value
    a time      behind a value or parentheses: `at T` (that step), `within T` or `by T` (some step up to it), `until T`
                (every step up to it); T is 48h, 2 days, 3 months, ... or a number of steps

Numbers are in the units of the values, which may stand behind them. Names with blanks or signs are quoted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf, isfinite

import numpy as np
import torch
from torch import Tensor

from gssr.sequences.clock import Length, read_length
from gssr.sequences.events import Joined, Margins, Not, Part, Place, Timed, Value
from gssr.shown import listed, quoted

LONGEST, DEEPEST = 2_000, 32  # characters, parentheses within each other
_TIMES = {"at": "at", "by": "within", "within": "within", "until": "until"}
_NUMBER = re.compile(r"[+−-]?(?:\d+(?:\.(?!\.)\d*)?|\.\d+)(?:[eE][+−-]?\d{1,3})?")
_NAME = re.compile(r"""(?P<mark>["'])(?P<inside>.*?)(?P=mark)|(?P<bare>[^\s()<>=≤≥≠+−"',.-][^\s()<>=≤≥≠+−"',-]*)""")
_COMPARISON = re.compile(r">=|<=|≥|≤|==|!=|≠|=|>|<")
_TIME = re.compile(rf"({'|'.join(_TIMES)})(?!\w)", re.IGNORECASE)
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)(?:\s*(?!(?:and|or|at|by|within|until)\b)([^\W\d_]+))?", re.IGNORECASE)


class Condition:
    """A condition that was read; `over` says at which times its steps lie.

    Args:
        text: in the words above.
        value_names, value_units: of the Y values.

    Raises ValueError, with the place marked, for a text that is no condition.
    """

    def __init__(self, text: str, value_names: Sequence[str], value_units: Sequence[str] | None = None) -> None:
        self.text, self.width = text.strip(), len(value_names)
        self._part = _Reader(self.text, value_names, value_units or [""] * self.width).read()

    def over(self, time: Sequence[float] | np.ndarray) -> ConditionEvent:
        """The condition as an event: paths (S, H, Y) and last observed values (Y) to True or False (S).

        Args:
            time: hours (1 + H) of the last known step and of the H steps of the paths.

        Raises ValueError for a time beyond the steps or between them; the event does for paths of another shape or with
        NaN, and for a change of a value that was never observed.
        """
        event = ConditionEvent(self._part, np.asarray(time, np.float64), self.width)
        event(torch.zeros(1, event.steps, self.width), torch.zeros(self.width))  # refuses its times now
        return event


@dataclass(frozen=True)
class ConditionEvent:
    """A condition at the times of paths; see `Condition.over`."""

    part: Part
    hours: np.ndarray
    width: int

    @property
    def steps(self) -> int:
        return len(self.hours) - 1

    def __call__(self, paths: Tensor, last: Tensor) -> Tensor:
        self._require(paths, last)
        if paths.isnan().any():
            raise ValueError("a path holds values that are no numbers; a condition needs a value at every step")
        return self.part(paths, last, self.hours)

    def margin(self, paths: Tensor, last: Tensor, scale: Tensor, unknown: float = torch.nan) -> Tensor:
        """By how much it holds (above 0) or does not (below), (S) in units of ``scale`` (Y), with gradients.

        Args:
            unknown: margin of a value that is NaN: with infinity the margin is the largest that can still come, with
                -infinity the smallest.
        """
        self._require(paths, last)
        return self.part(paths, last, self.hours, Margins(scale, unknown))

    def _require(self, paths: Tensor, last: Tensor) -> None:
        if paths.ndim != 3 or paths.shape[1:] != (self.steps, self.width) or last.shape != (self.width,):
            raise ValueError(
                f"paths of shape {tuple(paths.shape)} with last values of shape {tuple(last.shape)}; expected "
                f"(S, {self.steps}, {self.width}) and ({self.width},)"
            )


class _Reader:
    """Reads a text by recursive descent."""

    def __init__(self, text: str, names: Sequence[str], units: Sequence[str]) -> None:
        self.text, self.names, self.units = text, list(names), list(units)
        self.at = self.depth = 0

    def read(self) -> Part:
        if not self.text:
            raise ValueError("the condition is empty; write one such as wind >= 96 at 48h")
        if len(self.text) > LONGEST:
            raise ValueError(f"a condition has {len(self.text):,} characters; expected at most {LONGEST:,}")
        part = self._either()
        if self.at < len(self.text):
            raise self._here("expected `and`, `or` or the end")
        if part.of_steps:
            raise part.place.error(f"{_without_time(part)}; add `at`, `within` or `until`, such as at 48h")
        return part

    def _either(self) -> Part:
        return self._joined("or", lambda: self._joined("and", self._one))

    def _joined(self, word: str, read: Callable[[], Part]) -> Part:
        parts = [read()]
        while self._take(re.compile(rf"{word}(?!\w)", re.IGNORECASE)):
            parts.append(read())
        if len(parts) == 1:
            return parts[0]
        if len({part.of_steps for part in parts}) > 1:
            bare = next(part for part in parts if part.of_steps)
            raise bare.place.error(
                f"{_without_time(bare)}, and another part has one; give each its own, or put all in parentheses before "
                "one time"
            )
        return Joined(parts, word == "or", Place(self.text, parts[0].place.start, parts[-1].place.end))

    def _one(self) -> Part:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self._here(f"more than {DEEPEST} parentheses or `not` lie within each other")
        start = self._blanks()
        part: Part
        if self._take(re.compile(r"not(?!\w)", re.IGNORECASE)):
            part = self._one()
            part = Not(part, self._since(start))
        else:
            if self._take(re.compile(r"\(")):
                part = self._either()
                if not self._take(re.compile(r"\)")):
                    raise self._here("expected `and`, `or` or a closing parenthesis")
            else:
                part = self._value()
            part = self._timed(part, start)
        self.depth -= 1
        return part

    def _value(self) -> Value:
        start = self._blanks()
        column = self._column()
        change = bool(self._take(re.compile(r"change(?!\w)", re.IGNORECASE)))
        if sign := self._take(_COMPARISON):
            if sign[0] in ("=", "==", "!=", "≠"):
                raise self._place(sign).error("values are never exactly a number; give a range, such as 95..97")
            number = self._number(column)
            low, high = (number, inf) if sign[0][0] in ">≥" else (-inf, number)
            return Value(column, low, high, self._since(start), sign[0] in "<>", change)
        first = self._blanks()
        low = self._number(column, unit=False)
        if self._take(re.compile(r"\.\.")):
            high = self._number(column)
            if low > high:
                raise self._since(first).error("the range ends below its start; expected LOW..HIGH")
            return Value(column, low, high, self._since(start), False, change)
        if self.text[first] not in "+−-" or change:
            raise self._since(first).error(
                "a number alone is no condition; write >= or <= before it, a range LOW..HIGH, or a change such as +30"
            )
        self._unit(column)
        low, high = (low, inf) if self.text[first] == "+" else (-inf, low)
        return Value(column, low, high, self._since(start), False, True)

    def _timed(self, part: Part, start: int) -> Part:
        word = self._take(_TIME)
        if not word:
            return part
        if not part.of_steps:
            raise self._place(word).error("a second time; what stands before it has one")
        found = self._take(_LENGTH)
        if not found:
            raise self._here("expected a length of time, such as 48h, 2 days or 3 steps")
        count, unit = float(found[1]), found[2] or "steps"
        length: Length | int | None = read_length(f"{found[1]} {unit}")
        if unit.lower() in ("step", "steps"):
            length = int(count) if count.is_integer() else None
        fits = length if isinstance(length, int) else length and (length.hours or float(length.months).is_integer())
        if not length or not fits or count > 1e6:
            raise self._place(found).error(
                "this is no length of time; expected a number above 0 of ms, s, min, h, days or weeks, or a whole one "
                "of months, quarters, years or steps"
            )
        return Timed(part, _TIMES[word[1].lower()], length, self._since(start))

    def _column(self) -> int:
        found = self._take(_NAME)
        if not found:
            raise self._here(f"expected a value, one of {listed(self.names)}")
        name = found["bare"] or found["inside"] or ""
        if name not in self.names:
            near = get_close_matches(name, self.names, n=1)
            hint = f"; did you mean {quoted(near[0])}?" if near else ""
            raise self._place(found).error(f"there is no value {quoted(name)}, but {listed(self.names)}{hint}")
        return self.names.index(name)

    def _number(self, column: int, unit: bool = True) -> float:
        found = self._take(_NUMBER)
        if not found or not isfinite(float(found[0].replace("−", "-"))):
            raise (self._place(found).error if found else self._here)("expected a number, such as 96, -5.5 or 1e3")
        if unit:
            self._unit(column)
        return float(found[0].replace("−", "-"))

    def _unit(self, column: int) -> None:
        """The unit of the value may stand behind a number, and no other."""
        unit = self.units[column].strip()
        start = self._blanks()
        end = start + len(unit)
        if unit and self.text.startswith(unit, start) and not self.text[end : end + 1].isalnum():
            self.at = end
            self._blanks()
        elif other := re.compile(r"(?!(?:and|or|at|by|within|until)(?!\w))[^\s()]+", re.IGNORECASE).match(
            self.text, start
        ):
            own = f"in {unit}" if unit else "without a unit"
            raise self._place(other).error(
                f"{quoted(self.names[column])} is {own}; expected a time behind the number, such as at 48h"
            )

    # ------------------------------------------------------------------ the text

    def _take(self, form: re.Pattern[str]) -> re.Match[str] | None:
        """What stands here, if it has a form; blanks around it are skipped."""
        self._blanks()
        found = form.match(self.text, self.at)
        if found:
            self.at = found.end()
            self._blanks()
        return found

    def _blanks(self) -> int:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.at

    def _place(self, found: re.Match[str]) -> Place:
        return Place(self.text, *found.span())

    def _since(self, start: int) -> Place:
        return Place(self.text, start, start + len(self.text[start : self.at].rstrip()))

    def _here(self, message: str) -> ValueError:
        return Place(self.text, self.at, self.at + 1).error(message)


def _without_time(part: Part) -> str:
    return f"{quoted(str(part.place))} names no time"
