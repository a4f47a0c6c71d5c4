"""What a condition is made of: questions about values at single steps, joined, and asked of the steps of a path.

Each part is called with paths (S, H, Y), the last observed values (Y) and the hours (1 + H) of the last known step and
of those ahead. It answers True or False, (S, H) where it is ``of_steps``, else (S). With ``Margins`` it answers by how
much: above 0 where it holds, below where it does not (robustness of signal temporal logic: Donze & Maler 2010).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gssr.sequences.clock import Length

_NEAR, _NEAR_OF_MONTHS = 1e-3, 0.25  # part of a step that is no distance; days and business days of months differ
_CLOCK = 1.05  # hours by which days are longer or shorter where the clock changes
_SHOWN = 72  # characters of a text that is marked


@dataclass(frozen=True)
class Place:
    """A part of a text, from ``start`` to before ``end``."""

    text: str
    start: int
    end: int

    def __str__(self) -> str:
        return self.text[self.start : self.end].strip()

    def error(self, message: str) -> ValueError:
        """With the text on a line of its own, and the place marked below."""
        clean = "".join(char if char.isprintable() else " " for char in self.text)
        first = max(0, min(self.start - _SHOWN // 2, len(clean) - _SHOWN))
        width = max(1, min(self.end - self.start, _SHOWN - (self.start - first)))
        return ValueError(f"{message}\n  {clean[first : first + _SHOWN]}\n  {' ' * (self.start - first)}{'^' * width}")


class Margins(NamedTuple):
    """How margins are measured: in units of ``scale`` (Y), NaN in a path being worth ``unknown``."""

    scale: Tensor
    unknown: float


@dataclass(frozen=True)
class Value:
    """Whether the value of a column lies from ``low`` to ``high``; of a ``change``: its distance from the last one.

    ``open``: the ends are outside.
    """

    column: int
    low: float
    high: float
    place: Place
    open: bool = False
    change: bool = False
    of_steps = True

    def __call__(self, paths: Tensor, last: Tensor, time: np.ndarray, margins: Margins | None = None) -> Tensor:
        value = paths[..., self.column]
        if self.change:
            if last[self.column].isnan():
                raise self.place.error(
                    "the value was never observed in the history, so that it has no change from then"
                )
            value = value - last[self.column]
        if margins is not None:
            margin = torch.minimum(value - self.low, self.high - value) / margins.scale[self.column]
            return margin.nan_to_num(margins.unknown, torch.inf, -torch.inf)
        if self.open:
            return (value > self.low) & (value < self.high)
        return (value >= self.low) & (value <= self.high)


@dataclass(frozen=True)
class Not:
    """Whether its part is False."""

    part: Part
    place: Place

    @property
    def of_steps(self) -> bool:
        return self.part.of_steps

    def __call__(self, paths: Tensor, last: Tensor, time: np.ndarray, margins: Margins | None = None) -> Tensor:
        if margins is not None:
            return -self.part(paths, last, time, margins._replace(unknown=-margins.unknown))
        return ~self.part(paths, last, time)


@dataclass(frozen=True)
class Joined:
    """Whether all of its parts are True, or with ``any`` at least one; all of them are ``of_steps``, or none."""

    parts: list[Part]
    any: bool
    place: Place

    @property
    def of_steps(self) -> bool:
        return self.parts[0].of_steps

    def __call__(self, paths: Tensor, last: Tensor, time: np.ndarray, margins: Margins | None = None) -> Tensor:
        found = torch.stack([part(paths, last, time, margins) for part in self.parts])
        return found.amax(0) if self.any else found.amin(0)


@dataclass(frozen=True)
class Timed:
    """Whether its part is True at the step that lies ``length`` ahead, at some step up to it, or at all of these.

    Args:
        when: "at", "within" or "until".
        length: a length of time or a number of steps.
    """

    part: Part
    when: str
    length: Length | int
    place: Place
    of_steps = False

    def __call__(self, paths: Tensor, last: Tensor, time: np.ndarray, margins: Margins | None = None) -> Tensor:
        found = self.part(paths, last, time, margins)[:, : self._steps(time)]
        return found[:, -1] if self.when == "at" else found.amax(1) if self.when == "within" else found.amin(1)

    def _steps(self, time: np.ndarray) -> int:
        """How many steps lie up to the time. Raises ValueError beyond the paths and, with "at", between steps."""
        ahead, step = time[1:] - time[0], float(np.median(np.diff(time)))
        if isinstance(self.length, int):
            reached, beyond, exact = self.length, self.length > len(ahead), True
        else:
            distance, near = time[1:] - _later(float(time[0]), self.length), _slack(self.length, step)
            reached, beyond = int((distance <= near).sum()), distance[-1] + step <= near
            exact = reached > 0 and distance[reached - 1] >= -near
        if beyond:
            raise self.place.error(
                f"this time lies beyond the horizon of {len(ahead)} steps, {ahead[-1]:g} h; take a longer one"
            )
        if reached == 0 or (self.when == "at" and not exact):
            around = " and ".join(f"{hours:g} h" for hours in ahead[max(0, reached - 1) : reached + 1])
            raise self.place.error(f"there is no step at this time; the nearest lies at {around}")
        return reached


Part = Value | Not | Joined | Timed
# Paths (S, H, Y) in data units and the last observed values (Y), NaN where there is none, to True or False (S).
Event = Callable[[Tensor, Tensor], Tensor]


def _later(time: float, length: Length) -> float:
    """Hours at a length of time after a time; months end on the same day of a month, or on its last."""
    if not length.months:
        return time + length.hours
    month = np.datetime64(round(time * 3600), "s").astype("datetime64[M]")
    then, after = (_hours(month + int(length.months) + more) for more in (0, 1))
    return then + min(time - _hours(month), after - then - 24 + time % 24)


def _hours(month: np.datetime64) -> float:
    return float(month.astype("datetime64[h]").astype(np.int64))


def _slack(length: Length, step: float) -> float:
    """Hours by which a step may lie beside a time that is meant."""
    if length.months:
        return _NEAR_OF_MONTHS * step
    return max(_NEAR * step, _CLOCK if step >= 24 and length.hours % 24 == 0 else 0)
