"""A row of values in words, by a template: "wind 85 kt, pressure 970 hPa, 17.4 north 78.3 west:"."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal

import torch
from torch import Tensor

from gssr.shown import listed, quoted

FIELD = re.compile(r"\{([^{}]*)\}")
CLOSING = re.compile(r"[^\w{}]*$")
ALL = "values"
Piece = str | tuple[int, Callable[[float], str]]


class RowInWords:
    """Writes a row of Y values.

    In the template, ``{wind}`` is the value of that name, rounded to its resolution; ``{latitude:north|south}`` is a
    value without its sign, and the word of its sign; ``{values}`` is every value with its name and unit. What stands
    between two commas is left out where a value in it is not known.

    Args:
        names, units, resolution: of the Y values; a resolution of 0 is unknown, and numbers have four digits.

    Raises:
        ValueError: the template names no value or one that is not known, or has stray braces.
    """

    def __init__(self, template: str, names: Sequence[str], units: Sequence[str], resolution: Sequence[float]) -> None:
        self.template, self._names, self._resolution = template, list(names), list(resolution)
        if set("{}") & set(FIELD.sub("", template)):
            raise ValueError(
                f"the row in words {quoted(template)} has a brace without its partner; on the command line, a row that "
                "ends in a colon needs quotes of its own: '\"wind {wind} kt:\"'"
            )
        self._closing = CLOSING.search(template)[0]
        self._parts: list[list[Piece]] = []
        for part in template[: len(template) - len(self._closing)].split(", "):
            if part == f"{{{ALL}}}" and ALL not in self._names:
                for name, unit in zip(names, units, strict=True):
                    self._parts.append([f"{name} ", self._field(name), f" {unit}" if unit else ""])
            else:
                pieces = FIELD.split(part)
                self._parts.append([self._field(piece) if i % 2 else piece for i, piece in enumerate(pieces)])
        if not any(isinstance(piece, tuple) for part in self._parts for piece in part):
            raise ValueError(f"the row in words {quoted(template)} names no value, such as {{{self._names[0]}}}")

    def __call__(self, values: Sequence[float]) -> str | None:
        """Values (Y), NaN where unknown, in words; None where none of the template's is known."""
        written = []
        for part in self._parts:
            used = [piece[0] for piece in part if isinstance(piece, tuple)]
            if all(math.isfinite(values[y]) for y in used):
                words = "".join(piece if isinstance(piece, str) else piece[1](values[piece[0]]) for piece in part)
                written.append((bool(used), words))
        if not any(says for says, _ in written):
            return None
        return ", ".join(words for _, words in written) + self._closing

    def rounded(self, values: Tensor) -> Tensor:
        """Values (…, Y) as the row tells them: multiples of their resolution, where it is known."""
        steps = torch.tensor(self._resolution, dtype=values.dtype, device=values.device)
        return torch.where(steps > 0, (values / steps.clamp(min=1e-9)).round() * steps, values)

    def _field(self, field: str) -> Piece:
        name, _, sides = (field, "", "") if field in self._names else field.rpartition(":")
        if name not in self._names or (sides and sides.count("|") != 1):
            raise ValueError(
                f"the row in words {quoted(self.template)} has {{{field}}}; expected {{values}}, a value's name in "
                f"braces ({listed(self._names)}), or {{name:word|word}} for one with a sign"
            )
        y = self._names.index(name)
        if not sides:
            return y, lambda value: _number(value, self._resolution[y])
        words = sides.split("|")
        return y, lambda value: f"{_number(abs(value), self._resolution[y])} {words[int(value < 0)]}"


def _number(value: float, resolution: float) -> str:
    """A number as a multiple of its resolution."""
    if not resolution:
        return f"{value:.4g}"
    decimals = max(0, -int(Decimal(f"{resolution:.6g}").as_tuple().exponent))
    return f"{round(value / resolution) * resolution + 0.0:.{decimals}f}"
