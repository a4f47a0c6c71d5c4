"""The sentences of `sentences.txt` with their truth, and paths of which each is true or false."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gssr.sequences.conditions import Condition
from gssr.sequences.record import Record

FILE = Path(__file__).parent / "sentences.txt"
NOW = 418_254.0  # hours from 1970 to 2017-09-18T06:00Z
PATHS, WINDOWS = 200, 12
PHRASINGS = ("near", "far", "second", "third")
# Standard deviations of how far the ends of paths are bent: wind, pressure, latitude, longitude.
BENDS = (35.0, 18.0, 4.0, 6.0)


@dataclass(frozen=True)
class Goal:
    """A sentence of a kind and a phrasing; ``truth`` is a condition with `~` and `x`, or None for no goal."""

    kind: str
    phrasing: str
    text: str
    truth: str | None

    def condition(self, last: Sequence[float], names: Sequence[str], tolerance: Sequence[float]) -> str | None:
        """The truth for last values (Y), in the words of `gssr.sequences.conditions`."""
        if self.truth is None:
            return None

        def within(found: re.Match[str]) -> str:
            y = list(names).index(found["name"])
            change, sign, number = found["change"] or "", found["sign"] or "", float(found["number"])
            if found["mark"] == "x":
                number = number * last[y]
            if sign:
                return f"{found['name']} {sign} {number:.8g}"
            slack = min(tolerance[y], abs(number) / 2) if change else tolerance[y]
            return f"{found['name']} {change}{number - slack:.8g}..{number + slack:.8g}"

        form = r"(?P<name>\w+) (?P<change>change )?(?P<sign>[<>]=?)?(?P<mark>[~x])(?P<number>-?[\d.]+)"
        return re.sub(form, within, self.truth)


def read_goals() -> list[Goal]:
    """All sentences in order."""
    found, kind, phrasing = [], "", ""
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            kind, phrasing = line.strip("[]").rsplit(" ", 1)
            if phrasing not in PHRASINGS:
                raise ValueError(f"{line} in {FILE.name}; expected a kind and one of {', '.join(PHRASINGS)}")
        elif "=>" in line and not line.startswith("#"):
            text, truth = (part.strip() for part in line.rsplit("=>", 1))
            found.append(Goal(kind, phrasing, text, None if truth == "none" else truth))
    return found


def bent_paths(record: Record, generator: np.random.Generator) -> Tensor:
    """Paths (S, H, Y) behind a record's context: what came to pass, bent to other ends, and moved."""
    ahead = record.value[record.goal_start + 1 :].astype(np.float64)
    share = np.linspace(0, 1, len(ahead) + 1)[1:, None]
    ends, moved = generator.normal(0, BENDS, (2, PATHS, 1, len(BENDS)))
    wobble = generator.normal(0, 0.15, (PATHS, *ahead.shape)) * BENDS
    return torch.tensor(ahead + share * ends + 0.3 * moved + wobble, dtype=torch.float32)


def holds(condition: str, paths: Tensor, last: Tensor, time: np.ndarray, names: Sequence[str]) -> Tensor:
    """Whether a condition holds on paths (S, H, Y): (S)."""
    return Condition(condition, names, ["kt", "hPa", "deg", "deg"]).over(time)(paths, last)
