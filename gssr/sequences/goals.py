"""Hindsight goals: sentences about what a sequence in fact reached.

A goal that has nothing to do with a sequence teaches nothing. Where the data brings no goal, `GoalWriter` looks at one
value dimension at `goal_step` and writes a sentence about it: a number ("Weaken to 35 knots in 48 hours") or a named
class ("Become a category 3 hurricane in 48 hours"). All words come from the configuration; three things are kept out of
training, to measure generalisation: combinations of a form and a number, whole ranges of numbers, whole forms.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gssr.sequences.phrases import WHENS, counted_spans, form_core, number_word, numerals, tidy, time_spans
from gssr.sequences.record import Record
from gssr.sequences.templates import NAMES, SLOT, check, read_templates

# The goals that training leaves out, and what a report calls them.
KINDS = {
    "combinations": "combinations not trained on",
    "numbers": "numbers not trained on",
    "forms": "sentence forms never seen",
}
MODES = ("train", *KINDS, "all")


@dataclass
class Forms:
    """Sentence forms of one kind by the direction from the start value to the goal: `any` fits every direction.

    A form is a string with slots: `{value}` (numbers) or `{class}` (classes), `{when}` (an adverbial of time that may
    be left out: "in 48 hours"), `{span}` (a length of time that is never left out: "48 hours"), and any slot of the
    writer's `words`.
    """

    any: Sequence[str] = ()
    lower: Sequence[str] = ()
    raise_: Sequence[str] = ()
    hold: Sequence[str] = ()

    @classmethod
    def of(cls, forms: Forms | Mapping[str, Sequence[str]]) -> Forms:
        """From a mapping with the keys of DIRECTIONS (as in YAML)."""
        if isinstance(forms, Forms):
            return forms
        return cls(**{"raise_" if key == "raise" else key: tuple(value) for key, value in forms.items()})

    def fitting(self, direction: str | None) -> list[str]:
        """Forms for a direction; None (start unknown) gives only the neutral ones."""
        own = () if direction is None else getattr(self, "raise_" if direction == "raise" else direction)
        return [*self.any, *own]

    def __iter__(self):
        return iter([*self.any, *self.lower, *self.raise_, *self.hold])

    def __len__(self) -> int:
        return len(list(iter(self)))


@dataclass
class GoalClass:
    """A named range of values, both ends included; `names` are its wordings, put into `{class}` as they stand."""

    key: str
    low: float
    high: float
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"goal class {self.key!r}: low {self.low} must not exceed high {self.high}")
        if not self.names:
            self.names = (self.key,)


@dataclass
class GoalSentence:
    """A sentence and the range [low, high] it speaks of; `form` and `key` tell what it was made from."""

    text: str
    low: float
    high: float
    form: str
    key: str


@dataclass
class GoalWriter:
    """Writes hindsight goals about one value dimension.

    Modes: `train` leaves out everything held out and jitters numbers; the other modes do not jitter. `combinations`:
    forms and numbers of training in combinations not trained on, and classes likewise; `numbers`: held-out numbers in
    training forms (no goal where the value is no held-out number); `forms`: held-out forms with training numbers and
    classes; `all`: anything, jittered.

    numbers, classes:    forms used in training
    held_out_numbers, held_out_classes:  forms kept for mode `forms`
    class_bounds:        classes in ascending order; a value belongs to the last class whose low it reaches
    words:               further slots and their wordings, such as {"unit": ["knots", "kt"]}; repeat one to weight it
    dimension:           index of the value that goals speak of
    number_step:         written numbers are multiples of this, in the unit of the value
    held_out_values:     numbers not written in training, with all within `held_out_margin` of them
    jitter:              training numbers differ from the value by up to this many steps, as the data is rounded more
    rounding:            numbers are rounded to this when combinations are formed
    combination_share:   one of this many combinations (by crc32) is held out
    class_share:         share of class goals where both kinds are possible
    still:               a change of at most this is neither lower nor raise, but hold
    step_name:           plural noun for the steps in time phrases ("after 8 advisories"); None: not used
    values:              further words for values by their names: {"pressure": {"names": [...], "units": [...]}}, by
                         which typed goals are read
    span_unit:           noun that counts time ("month"), `span_count` of it a step; None: hours, days, weeks

    Raises ValueError for arguments outside the schema of `gssr.sequences.templates`, for a form without its `{value}`
    or `{class}`, with an unknown slot, or listed as both trained and held out.
    """

    numbers: Forms
    classes: Forms = field(default_factory=Forms)
    held_out_numbers: Forms = field(default_factory=Forms)
    held_out_classes: Forms = field(default_factory=Forms)
    class_bounds: Sequence[GoalClass] = ()
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    dimension: int = 0
    number_step: float = 1
    held_out_values: Sequence[float] = ()
    held_out_margin: float = 2
    jitter: int = 2
    rounding: float = 5
    combination_share: int = 4
    class_share: float = 0.3
    still: float = 2.5
    step_name: str | None = None
    span_unit: str | None = None
    span_count: int = 1
    values: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    _memory: dict[tuple, list[str]] = field(default_factory=dict, init=False, repr=False, compare=False)  # of _forms

    def __post_init__(self) -> None:
        check({name: getattr(self, name) for name in NAMES})
        for name in ("numbers", "classes", "held_out_numbers", "held_out_classes"):
            forms = Forms.of(getattr(self, name))
            setattr(self, name, forms)
            needed = "class" if "classes" in name else "value"
            for form in forms:
                slots = set(SLOT.findall(form))
                if needed not in slots or (unknown := slots - {needed, "when", "span", *self.words}):
                    problem = f"has the unknown slots {sorted(unknown)}" if needed in slots else f"lacks {{{needed}}}"
                    raise ValueError(
                        f"goal form {form!r} in {name} {problem}; known: when, span, {', '.join(self.words)}"
                    )
        for trained, held_out in ((self.numbers, self.held_out_numbers), (self.classes, self.held_out_classes)):
            if both := set(trained) & set(held_out):
                raise ValueError(f"goal forms both trained and held out: {sorted(both)}")
        self.class_bounds = [c if isinstance(c, GoalClass) else GoalClass(**c) for c in self.class_bounds]
        lows = [c.low for c in self.class_bounds]
        if lows != sorted(lows) or (self.classes and not lows):
            raise ValueError(f"goal classes need class_bounds in ascending order of low, got {lows}")
        if len(keys := {c.key for c in self.class_bounds}) < len(lows):
            raise ValueError(
                f"class_bounds has {len(lows)} classes, but only the keys {sorted(keys)}; give each its own"
            )
        if not self.numbers:
            raise ValueError("numbers has no form; give at least one, such as any: ['Be at {value}']")

    @classmethod
    def read(cls, path: Path, **changes: Any) -> GoalWriter:
        """The writer of a YAML file with these arguments; `changes` replace single ones."""
        return cls.of(read_templates(path) | changes)

    @classmethod
    def of(cls, templates: Mapping[str, Any]) -> GoalWriter:
        """The writer of a mapping with these arguments. Raises ValueError also for unknown ones."""
        check(templates)
        if "numbers" not in templates:
            raise ValueError("goal templates lack the forms `numbers`; give at least any: ['Be at {value}']")
        return cls(**templates)

    def is_held_out_number(self, number: float) -> bool:
        """Whether this number is written only in the modes `numbers` and `all`."""
        margin = self.held_out_margin + 1e-3 * self.number_step  # bounds are kept in float32
        return any(-margin <= number - value <= margin for value in self.held_out_values)

    def is_held_out_combination(self, form: str, key: str) -> bool:
        """Whether a training form is kept out of training with this key (a class key, or the number rounded, as text).

        Forms that differ in punctuation, capitals or the place of the time phrase alone share their answer, or a
        sentence that is held out in one form would be trained on in its twin.
        """
        return zlib.crc32(f"{form_core(form)}|{key}".encode()) % self.combination_share == 0

    def number_key(self, number: float) -> str:
        """The key of a number in combinations: rounded to `rounding`."""
        return number_word(round(number / self.rounding) * self.rounding, self.rounding)

    def class_of(self, value: float) -> GoalClass:
        """The class a value belongs to; one below the first class belongs to the first."""
        return [c for c in self.class_bounds if c.low <= value or c is self.class_bounds[0]][-1]

    def write(self, record: Record, mode: str, generator: np.random.Generator) -> Record:
        """The record with a goal about its value at goal_step, or with goal None where that value is missing."""
        target = record.value[record.goal_step, self.dimension]
        goal = None
        if np.isfinite(target):
            start = record.value[record.goal_start, self.dimension]
            hours = float(record.time[record.goal_step] - record.time[record.goal_start])
            steps = record.goal_step - record.goal_start
            goal = self.sentence(float(start), float(target), hours, steps, mode, generator)
        low, high = (np.full(record.value.shape[1], np.nan, np.float32) for _ in range(2))
        if goal is not None:
            low[self.dimension], high[self.dimension] = goal.low, goal.high
        return replace(record, goal=goal and goal.text, goal_low=low, goal_high=high)

    def sentence(
        self, start: float, target: float, hours: float, steps: int, mode: str, generator: np.random.Generator
    ) -> GoalSentence | None:
        """A goal reached by going from `start` (NaN: unknown) to `target` in `hours`, which are `steps` steps.

        None where the mode has no goal for this target. The written number n is goal.low = goal.high.
        """
        if mode not in MODES:
            raise ValueError(f"unknown goal mode {mode!r}; expected one of {MODES}")
        prefer_class = generator.random() < self.class_share
        number = self._number(target, mode, generator)
        options = []  # forms, key, low, high, wordings
        if number is not None:
            key, direction = self.number_key(number), self._direction(start, number, number)
            word = number_word(number, self.number_step)
            options.append((self._forms("numbers", mode, direction, key), key, number, number, [word]))
        if self.class_bounds and mode != "numbers":
            c = self.class_of(target)
            forms = self._forms("classes", mode, self._direction(start, c.low, c.high), c.key)
            options.insert(0 if prefer_class else len(options), (forms, c.key, c.low, c.high, c.names))
        for forms, key, low, high, names in options:
            if forms:
                form, name = _choose(forms, generator), _choose(names, generator)
                text = self._fill(form, name, hours, steps, generator)
                return GoalSentence(text, float(low), float(high), form, key)
        return None

    def _number(self, target: float, mode: str, generator: np.random.Generator) -> float | None:
        """The multiple of `number_step` to write for a target, None where the mode allows none."""
        reach = self.jitter if mode in ("train", "all") else 0
        nearest = round(target / self.number_step)
        near = [(nearest + offset) * self.number_step for offset in range(-reach, reach + 1)]
        if mode != "all":
            if self.is_held_out_number(near[reach]) != (mode == "numbers"):
                return None
            near = [n for n in near if self.is_held_out_number(n) == (mode == "numbers")]
        return _choose(near, generator) if near else None

    def _forms(self, kind: str, mode: str, direction: str | None, key: str) -> list[str]:
        """The forms of a kind ("numbers", "classes") that a mode may use for a key."""
        known = self._memory.get((kind, mode, direction, key))
        if known is None:
            trained, held_out = getattr(self, kind), getattr(self, f"held_out_{kind}")
            pools = {"forms": [held_out], "all": [trained, held_out]}.get(mode, [trained])
            known = [form for pool in pools for form in pool.fitting(direction)]
            if mode in ("train", "combinations"):
                wanted = mode == "combinations"
                known = [form for form in known if self.is_held_out_combination(form, key) == wanted]
            self._memory[kind, mode, direction, key] = known
        return known

    def _direction(self, start: float, low: float, high: float) -> str | None:
        if not np.isfinite(start):
            return None
        still = self.still if low == high else 0.0  # leaving a class counts however short the way
        return "lower" if start > high + still else "raise" if start < low - still else "hold"

    def _fill(self, form: str, word: str, hours: float, steps: int, generator: np.random.Generator) -> str:
        def fill(slot: re.Match[str]) -> str:
            match slot.group(1):
                case "value" | "class":
                    return word
                case "span":
                    return _choose(self._spans(hours, steps), generator)
                case "when":
                    whens = ["", *WHENS]
                    if self.step_name is not None and steps > 1:
                        count = _choose(numerals(steps), generator)
                        whens += [f"after {count} {self.step_name}", f"in {count} {self.step_name}"]
                    when = _choose(whens, generator)
                    return when.replace("{span}", _choose(self._spans(hours, steps), generator))
                case name:
                    return _choose(self.words[name], generator)

        return tidy(SLOT.sub(fill, form))

    def _spans(self, hours: float, steps: int) -> list[str]:
        return time_spans(hours) if self.span_unit is None else counted_spans(steps * self.span_count, self.span_unit)


def _choose(options: Sequence[Any], generator: np.random.Generator) -> Any:
    return options[generator.integers(len(options))]
