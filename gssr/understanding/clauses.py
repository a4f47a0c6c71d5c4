"""What a sentence asks of the values, clause by clause, and the condition that a clause is in a setting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Any

import numpy as np
import torch

from gssr.sequences.clock import Length
from gssr.sequences.vocabulary import Vocabulary
from gssr.shown import listed, quoted
from gssr.understanding.mentions import VALUES, Mention
from gssr.understanding.writing import BASES, BOUNDS, WHENS

LARGEST_CHANGE = 0.5  # part of a change that its tolerance may be
NEVER_SEEN = 1e-3  # how much less likely it is that a goal leads out of all that training saw
UNSAID = 1e-5  # how much less likely it is that a number without a word for a change is one
# How much more usual exact numbers and goals that are not negated are than among the sentences of the head, which has
# to learn the others, too. It decides where the head is unsure.
USUAL = 3.0
_LABEL = re.compile(r"\b(category|cat|class|stage|grade|phase|type|level)[\s#-]*$", re.IGNORECASE)
_SIGNS = {"least": ">=", "above": ">", "most": "<=", "below": "<"}
_OPPOSITE = {"least": "most", "most": "least", "above": "below", "below": "above", "exact": "exact"}


@dataclass(frozen=True)
class Setting:
    """What a goal is about.

    words:      for the Y values
    time:       hours (1 + H) since 1970, or since any time, of the last known step and of the steps ahead
    last:       Y last observed values, NaN where there is none
    tolerance:  Y distances within which values are meant by an exact number
    seen:       Y ranges that training has seen, or None
    step:       step ahead, from 1, at which a goal without a time should hold; default the last
    """

    words: Vocabulary
    time: Sequence[float] | np.ndarray
    last: Sequence[float]
    tolerance: Sequence[float]
    seen: Sequence[tuple[float, float]] | None = None
    step: int | None = None


class Unsayable(Exception):
    """A goal that cannot be asked of the values."""


@dataclass
class Clause:
    """A bound that a sentence sets. ``ends`` are the mentions of its size: two of a range, none of a direction."""

    ends: list[Mention]
    bound: str
    basis: str
    negated: bool
    when: str
    column: int
    time: Mention | None

    def condition(self, setting: Setting) -> str:
        words, column = setting.words, self.column
        name, unit = words.names[column], words.units[column].strip()
        name = name if re.fullmatch(r"[^\W\d][\w]*", name) else f'"{name}"'
        low, high, open_, change = self.range(setting)
        name += " change" if change else ""
        unit = f" {unit}" if unit and re.fullmatch(r"[^\s()]+", unit) else ""
        if low == -inf or high == inf:
            sign = (">" if low > -inf else "<") + ("" if open_ else "=")
            said = f"{name} {sign} {_number(low if low > -inf else high)}{unit}"
        else:
            said = f"{name} {_number(low)}..{_number(high)}{unit}"
        return f"{'not ' if self.negated else ''}{said} {self.when} {self._length(setting)}"

    def range(self, setting: Setting) -> tuple[float, float, bool, bool]:
        """Low and high end, whether they are outside, and whether they are of the change."""
        sign, bound = (-1.0 if self.basis == "fall" else 1.0), self.bound
        change = self.basis != "level"
        if not self.ends:
            return (0.0, inf, True, True) if self.basis == "rise" else (-inf, 0.0, True, True)
        first = self.ends[0]
        if first.kind == "range":
            low, high = first.value.low, self.ends[-1].value.high if len(self.ends) > 1 else first.value.high
            bounds = {"least": (low, inf), "most": (-inf, high), "above": (high, inf), "below": (-inf, low)}
            return (*bounds.get(bound, (low, high)), bound in ("above", "below"), False)
        sizes = [end.value for end in self.ends]
        slack = float(setting.tolerance[self.column])
        if first.kind in ("factor", "percent"):
            last = float(setting.last[self.column])
            if np.isnan(last):
                raise Unsayable(f"{quoted(setting.words.names[self.column])} was never observed, so it has no multiple")
            sizes, change = [last * (1 + sign * size if change else size) for size in sizes], False
        elif change:
            sizes = [sign * size for size in sizes]
            slack = min(slack, LARGEST_CHANGE * abs(sizes[0]))
            bound = _OPPOSITE[bound] if sign < 0 and bound in _OPPOSITE else bound
        if len(sizes) > 1:
            return min(sizes), max(sizes), False, change
        (size,) = sizes
        if bound in _SIGNS:
            up = bound in ("least", "above")
            return (size if up else -inf), (inf if up else size), bound in ("above", "below"), change
        return size - slack, size + slack, False, change

    def _length(self, setting: Setting) -> str:
        if self.time is None or self.time.kind == "end":
            steps = len(setting.time) - 1
            return _steps(setting, steps if self.time else setting.step or steps)
        value = self.time.value
        if self.time.kind == "moment" and not isinstance(value, Length):
            value = Length(value - float(setting.time[0]), 0)
            if value.hours <= 0:
                raise Unsayable("its time lies before the last observation")
        if isinstance(value, Length):
            return f"{value.hours:g}h" if not value.months else f"{value.months:g} months"
        return f"{value} steps"

    def outside(self, setting: Setting) -> list[str]:
        """What lies outside anything seen."""
        if setting.seen is None or not self.ends:
            return []
        low, high, _, change = self.range(setting)
        least, most = setting.seen[self.column]
        reach = (least - most, most - least) if change else (least, most)
        if low <= reach[1] and high >= reach[0]:
            return []
        what = ("change of " if change else "") + setting.words.names[self.column]
        ends = f"{reach[0]:g} to {reach[1]:g} {setting.words.units[self.column]}".strip()
        return [f"this lies outside anything seen, {what} {ends}; imagined futures there are guesses"]


def clauses_of(
    answers: Any, found: list[Mention], setting: Setting, may_change: bool = True
) -> tuple[list[Clause], float]:
    """The clauses of a sentence, and how sure the reader is of all of them.

    Args:
        may_change: whether the sentence has a word for a change.
    """
    clauses: list[Clause] = []
    sure = 1.0
    usual = torch.tensor([log(USUAL) if bound == "exact" else 0.0 for bound in BOUNDS])
    for i in [0, *(i for i, mention in enumerate(found, 1) if mention.kind in VALUES)]:
        p = (answers.bound[0, i] + usual).softmax(-1)
        bound = BOUNDS[int(p.argmax())]
        sure *= float(p.max())
        if bound == "none":
            continue
        sizes = [found[i - 1]] if i else []
        about, at = (getattr(answers, end)[0, i].softmax(-1) for end in ("about", "at"))
        column, before = _column(about, found, sizes, setting.words), clauses[-1] if clauses else None
        # The ends of a range are of one kind, and of one value: 40 and 60 knots, not 90 knots and 960 hPa.
        alike = before and [(end.kind, before.column) for end in before.ends] == [(end.kind, column) for end in sizes]
        if alike and before and before.bound == "low" and bound == "high":
            before.ends += sizes
            continue
        basis, when = (getattr(answers, name)[0, i].softmax(-1) for name in ("basis", "when"))
        if sizes and sizes[0].kind == "number":
            basis = _plausible(basis, sizes[0].value, column, setting, may_change)
        negated = float((answers.negated[0, i] - log(USUAL)).sigmoid())
        sure *= float(basis.max()) * float(when.max()) * max(negated, 1 - negated)
        time = int(at.argmax())
        sure *= float(at.max())
        clauses.append(
            Clause(
                sizes, bound, BASES[int(basis.argmax())], negated > 0.5, WHENS[int(when.argmax())],
                column, found[time - 1] if time else None,
            )
        )  # fmt: skip
    for clause in clauses:
        if len(clause.ends) < 2:  # one end of a range whose other end is missing
            clause.bound = {"low": "least", "high": "most"}.get(clause.bound, clause.bound)
    numbered = [clause for clause in clauses if clause.ends]
    return numbered or [clause for clause in clauses if clause.basis != "level"], sure


def _plausible(basis: torch.Tensor, size: float, column: int, setting: Setting, may_change: bool) -> torch.Tensor:
    """Probabilities (3) of a level, a rise and a fall by a number, in the light of where they lead: 95 knots below 60
    is no wind, so that 95 is a level. Where a change leads never tells a rise from a fall. A change has a word for it.
    """
    if not may_change:
        basis = basis * torch.tensor([1.0 if name == "level" else UNSAID for name in BASES])
        basis = basis / basis.sum()
    if setting.seen is None:
        return basis
    (low, high), last = setting.seen[column], setting.last[column]
    change = size if basis[BASES.index("rise")] > basis[BASES.index("fall")] else -size

    def likely(end: float) -> float:
        return NEVER_SEEN if np.isfinite(end) and not low <= end <= high else 1.0

    prior = {"level": likely(size), "rise": likely(last + change), "fall": likely(last + change)}
    weighed = basis * torch.tensor([prior[name] for name in BASES])
    return weighed / weighed.sum()


def _column(about: torch.Tensor, found: list[Mention], sizes: list[Mention], words: Vocabulary) -> int:
    """The value that a clause is about, by the names and units that belong to it."""
    if sizes and sizes[0].kind == "range":
        return sizes[0].value.column
    score = torch.zeros(len(words.names))
    for i, mention in enumerate(found, 1):
        if mention.kind in ("name", "unit"):
            score[list(mention.value)] += about[i].item()
    if about[0] > 0.5 and score.max() < 0.5:
        return words.column
    score[words.column] += 1e-3
    return int(score.argmax())


def label_of(text: str, clause: Clause, setting: Setting) -> str | None:
    """Why a number is none: it is the label of a category that the values do not have."""
    for end in clause.ends:
        before = _LABEL.search(text[: end.start]) if end.kind == "number" else None
        if before is not None:
            label = text[before.start() : end.end]
            known = f"; known are {listed(list(setting.words.ranges))}" if setting.words.ranges else ""
            return f"these values have no {quoted(label)}{known}; it changes nothing"
    return None


def _steps(setting: Setting, steps: int) -> str:
    """The time of a step ahead, in hours where steps are of one length that is no calendar's."""
    time = np.asarray(setting.time, np.float64)
    if np.allclose(np.diff(time), np.diff(time)[0], rtol=1e-6) and np.diff(time)[0] <= 168:
        return f"{time[steps] - time[0]:g}h"
    return f"{steps} steps"


def _number(value: float) -> str:
    return f"{value:.6g}"
