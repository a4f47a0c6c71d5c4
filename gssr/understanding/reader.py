"""From a sentence to the condition that it means, or to the news that it means none.

    Reader.bundled().read("Strengthen to 90 knots in 48 hours", words)        # wind 80..100 kt at 48h

The reader of the package looks through the bundled nano model, whatever model a goal network has: so goals are
understood at once, and alike, everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gssr.backbone import FrozenBackbone
from gssr.backbone.identity import configured
from gssr.sequences.clock import Length
from gssr.sequences.vocabulary import Vocabulary
from gssr.shown import listed, quoted
from gssr.states import state_file
from gssr.understanding.head import LAYER, Head, read
from gssr.understanding.mentions import LONGEST, VALUES, Mention, masked, mentions
from gssr.understanding.writing import BASES, BOUNDS, KINDS, WHENS

FORM = "gssr-goal-reader-1"
FILE = Path(__file__).parent / "nano.safetensors"
DOUBT = 0.75  # a reading that is less sure is told to be unsure
LARGEST_CHANGE = 0.5  # part of a change that its tolerance may be
OTHER_NETWORK = "the reader was learned for another language model; run python -m gssr.understanding.learn"
_LABEL = re.compile(r"\b(category|cat|class|stage|grade|phase|type|level)[\s#-]*$", re.IGNORECASE)
_SIGNS = {"least": ">=", "above": ">", "most": "<=", "below": "<"}
_OPPOSITE = {"least": "most", "most": "least", "above": "below", "below": "above", "exact": "exact"}


@dataclass(frozen=True)
class Setting:
    """What a goal is about.

    words:      for the Y values
    time:       hours (1 + H) since 1970, or since any time, of the last known step and of the steps ahead
    last:       Y last observed values, NaN where there is none
    tolerance:  Y distances within which an exact number is reached
    seen:       Y ranges that training has seen, or None
    step:       step ahead, from 1, at which a goal without a time should hold; default the last
    """

    words: Vocabulary
    time: Sequence[float] | np.ndarray
    last: Sequence[float]
    tolerance: Sequence[float]
    seen: Sequence[tuple[float, float]] | None = None
    step: int | None = None


@dataclass(frozen=True)
class Understood:
    """What a sentence means.

    kind:       "goal", "other" (a goal about something else) or "none" (no goal)
    condition:  of a goal, in the words of `gssr.sequences.conditions`; else None
    sure:       how probable the reading is, as the reader sees it
    problem:    why a goal cannot be asked, or None
    outside:    what of it lies outside anything seen, or None
    """

    kind: str
    condition: str | None
    sure: float
    problem: str | None = None
    outside: str | None = None

    def __str__(self) -> str:
        if self.condition is None:
            return self.problem or "understood as no goal about these values"
        doubt = "" if self.sure >= DOUBT else f", perhaps (the reader is {self.sure:.0%} sure)"
        outside = "" if self.outside is None else f"; {self.outside}"
        return f"understood as: {self.condition}{doubt}{outside}"


class Reader:
    """Reads goals.

    Args:
        backbone: the frozen model that ``head`` was trained with. layer: of the model, that it reads.
    """

    def __init__(self, backbone: FrozenBackbone, head: Head, layer: int = LAYER) -> None:
        self.backbone, self.head, self.layer = backbone, head, layer

    @classmethod
    @lru_cache(maxsize=1)
    def bundled(cls) -> Reader:
        """The reader of the package. Raises ValueError where its file does not fit the bundled model."""
        return cls.load(FILE, FrozenBackbone())

    @classmethod
    def load(cls, file: Path, backbone: FrozenBackbone) -> Reader:
        """Raises ValueError for a damaged file, and for one that was learned for another model."""

        def build(tensors: dict[str, torch.Tensor], about: dict[str, str]) -> Reader:
            if about.get("fingerprint") != _fingerprint(backbone):
                raise ValueError(OTHER_NETWORK)
            if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in head.state_dict().items()}:
                raise ValueError("its sizes are not those of a reader")
            if any(not tensor.is_meta for tensor in tensors.values()):
                if not all(tensor.isfinite().all() for tensor in tensors.values()):
                    raise ValueError("it holds numbers that are not finite")
                head.load_state_dict(tensors)
            return cls(backbone, head.eval().requires_grad_(False))

        head = Head(backbone.hidden_size)
        return state_file.read(file, FORM, build)

    def save(self, file: Path) -> None:
        """Raises ValueError if the file cannot be written."""
        state_file.write(file, FORM, self.head.state_dict(), {"fingerprint": _fingerprint(self.backbone)})

    @torch.no_grad()
    def read(self, sentence: str, setting: Setting) -> Understood:
        """What a sentence means in a setting."""
        text = " ".join(sentence.split())[:LONGEST]
        found = mentions(text, setting.words, float(setting.time[0]))
        seen, places = masked(text, found)
        if not seen.strip():
            return Understood("none", None, 1.0)
        at = [(m.kind, *place) for m, place in zip(found, places, strict=True)]
        answers = self.head(read(self.backbone, [(seen, at)], self.layer))
        kinds = answers.kind[0].softmax(-1)
        kind = KINDS[int(kinds.argmax())]
        if kind != "goal":
            return _no_goal(kind, float(kinds.max()), setting)
        clauses, sure = _clauses(answers, found, setting)
        sure *= float(kinds.max())
        if not clauses:
            return _no_goal("none", sure, setting)
        for clause in clauses:
            if label := _label(text, clause, setting):
                return Understood("other", None, sure, label)
        parts, outside = [], []
        try:
            for clause in clauses:
                parts.append(clause.condition(setting))
                outside += clause.outside(setting)
        except _Unsayable as problem:
            return Understood("goal", None, sure, str(problem))
        either = float(answers.either[0].sigmoid())
        if len(parts) > 1:
            sure *= max(either, 1 - either)
        said = (" or " if either > 0.5 else " and ").join(dict.fromkeys(parts))
        return Understood("goal", said, sure, None, "; ".join(dict.fromkeys(outside)) or None)


class _Unsayable(Exception):
    """A goal that cannot be asked of the values."""


@dataclass
class _Clause:
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
                raise _Unsayable(
                    f"{quoted(setting.words.names[self.column])} was never observed, so it has no multiple"
                )
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
                raise _Unsayable("its time lies before the last observation")
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


def _clauses(answers: Any, found: list[Mention], setting: Setting) -> tuple[list[_Clause], float]:
    """The clauses of a sentence, and how sure the reader is of all of them."""
    clauses: list[_Clause] = []
    sure = 1.0
    for i in [0, *(i for i, mention in enumerate(found, 1) if mention.kind in VALUES)]:
        p = answers.bound[0, i].softmax(-1)
        bound = BOUNDS[int(p.argmax())]
        sure *= float(p.max())
        if bound == "none":
            continue
        sizes = [found[i - 1]] if i else []
        if bound == "high" and clauses and clauses[-1].bound == "low" and len(clauses[-1].ends) == 1:
            clauses[-1].ends += sizes
            continue
        basis, when = (getattr(answers, name)[0, i].softmax(-1) for name in ("basis", "when"))
        negated = float(answers.negated[0, i].sigmoid())
        about, at = (getattr(answers, end)[0, i].softmax(-1) for end in ("about", "at"))
        sure *= float(basis.max()) * float(when.max()) * max(negated, 1 - negated)
        time = int(at.argmax())
        sure *= float(at.max())
        clauses.append(
            _Clause(
                sizes, bound, BASES[int(basis.argmax())], negated > 0.5, WHENS[int(when.argmax())],
                _column(about, found, sizes, setting.words), found[time - 1] if time else None,
            )
        )  # fmt: skip
    for clause in clauses:
        if len(clause.ends) < 2:  # one end of a range whose other end is missing
            clause.bound = {"low": "least", "high": "most"}.get(clause.bound, clause.bound)
    numbered = [clause for clause in clauses if clause.ends]
    return numbered or clauses, sure


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


def _label(text: str, clause: _Clause, setting: Setting) -> str | None:
    """Why a number is none: it is the label of a category that the values do not have."""
    for end in clause.ends:
        before = _LABEL.search(text[: end.start]) if end.kind == "number" else None
        if before is not None:
            label = text[before.start() : end.end]
            known = f"; known are {listed(list(setting.words.ranges))}" if setting.words.ranges else ""
            return f"these values have no {quoted(label)}{known}; it changes nothing"
    return None


def _no_goal(kind: str, sure: float, setting: Setting) -> Understood:
    names = listed(list(setting.words.names))
    what = f"a goal about something other than {names}" if kind == "other" else f"no goal about {names}"
    return Understood(kind, None, sure, f"understood as {what}; it changes nothing")


def _steps(setting: Setting, steps: int) -> str:
    """The time of a step ahead, in hours where steps are of one length that is no calendar's."""
    time = np.asarray(setting.time, np.float64)
    if np.allclose(np.diff(time), np.diff(time)[0], rtol=1e-6) and np.diff(time)[0] <= 168:
        return f"{time[steps] - time[0]:g}h"
    return f"{steps} steps"


def _number(value: float) -> str:
    return f"{value:.6g}"


def _fingerprint(backbone: FrozenBackbone) -> str:
    return f"{backbone.fingerprint} {configured(backbone.model, backbone.tokenizer)}"
