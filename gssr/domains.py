"""The domains of options: annotated types, and the check of what is given for them.

    latent_dim: Width = 16                        an int with a range
    state_layers: Layers | None = None            different ints

`checked` makes a class refuse arguments outside of their domains, a dataclass and a constructor alike; `check` does the
same for a mapping, such as a parsed configuration. No large library is imported.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gssr.shown import quoted

Kind = TypeVar("Kind", bound=type)
LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Range:
    """Finite numbers from ``low`` to ``high``; an ``open_low`` or ``open_high`` end is itself outside."""

    low: float = -LARGEST
    high: float = LARGEST
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: Any) -> bool:
        value = value.item() if hasattr(value, "dtype") else value  # float32 cannot be compared with the bounds
        inside = self.low <= value <= self.high  # False for NaN
        return inside and not (self.open_low and value == self.low) and not (self.open_high and value == self.high)

    def __str__(self) -> str:
        if not self.open_low and not self.open_high and self.low > -LARGEST and self.high < LARGEST:
            return f"from {self.low:,} to {self.high:,}"
        low = f"{'above' if self.open_low else 'of at least'} {self.low:,}" if self.low > -LARGEST else ""
        high = f"{'below' if self.open_high else 'at most'} {self.high:,}" if self.high < LARGEST else ""
        return " and ".join(filter(None, (low, high))) or "that is finite"


@dataclass(frozen=True)
class Different:
    """Lists without duplicates of ``least`` or more."""

    least: int = 1

    def __contains__(self, value: Any) -> bool:
        return len(value) >= self.least and len({str(part) for part in value}) == len(value)

    def __str__(self) -> str:
        return f"(no duplicates, at least {self.least})"


# Each upper bound alone keeps what is allocated below some gigabytes; the largest published models stay far below them.
Seed = Annotated[int, Range(0, 2**32 - 1)]  # NumPy takes no larger one
Width = Annotated[int, Range(1, 8192)]  # of a vector or a layer
Few = Annotated[int, Range(1, 256)]  # heads, queries, prefix tokens, ranks
Layer = Annotated[int, Range(0, 1000)]
Layers = Annotated[tuple[Layer, ...], Different()]
Count = Annotated[int, Range(1, 10**9)]  # what only takes time
CountOrNone = Annotated[int, Range(0, 10**9)]  # 0: none
Items = Annotated[int, Range(1, 2**16)]  # what memory grows with: windows in a batch, rollouts
Rows = Annotated[int, Range(0, 10**6)]  # or columns of a table
Characters = Annotated[int, Range(1, 10**6)]
Steps = Annotated[int, Range(1, 4096)]  # of a window
Processes = Annotated[int, Range(0, 256)]
Threads = Annotated[int, Range(1, 4096)]
Vocabulary = Annotated[int, Range(258, 2**20)]  # all bytes, end of text and padding at least
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, open_low=True)]
Fraction = Annotated[float, Range(0, 1)]
PositiveFraction = Annotated[float, Range(0, 1, open_low=True)]
ProperFraction = Annotated[float, Range(0, 1, open_high=True)]
InnerFraction = Annotated[float, Range(0, 1, open_low=True, open_high=True)]


def belongs(hint: Any, value: Any) -> bool:
    """Whether a value is of a type hint, its domains included. Hints other than those of plain values hold any value.

    A bool is no number, an int is a float as well, and a list may stand for a tuple.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return belongs(parts[0], value) and all(value in domain for domain in parts[1:] if _is_domain(domain))
    if origin in (Union, types.UnionType):
        return any(belongs(part, value) for part in parts)
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    if hint in (bool, str, type(None)):
        return isinstance(value, hint)
    if not isinstance(origin, type):
        return True
    if issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(belongs(parts[1], part) for part in value.values())
    if issubclass(origin, Sequence):
        if not isinstance(value, (list, tuple)):
            return False
        if origin is tuple and parts[-1] is not Ellipsis:
            return len(value) == len(parts) and all(map(belongs, parts, value))
        return all(belongs(parts[0], part) for part in value)
    return True


def described(hint: Any) -> str:
    """What belongs to a hint, in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return " ".join([described(parts[0]), *(str(domain) for domain in parts[1:] if _is_domain(domain))])
    if origin in (Union, types.UnionType):
        return " or ".join(map(described, sorted(parts, key=lambda part: part is not type(None))))
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    if hint in names:
        return names[hint]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping" if parts[1] is Any else f"a mapping of names to {described(parts[1])}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        size = f" of {len(parts)}" if origin is tuple and parts[-1] is not Ellipsis else ""
        return f"a list{size}, each {described(parts[0])}"
    return str(getattr(hint, "__name__", hint))


def hints_of(kind: type) -> dict[str, Any]:
    """Name and type hint of each option of a class, with those that its constructors pass on to their bases."""
    if is_dataclass(kind):
        return get_type_hints(kind, include_extras=True)
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if "__init__" in vars(base) and not base.__module__.startswith(("torch.", "lightning.")) and base is not object:
            hints = get_type_hints(inspect.unwrap(base.__init__), include_extras=True)
            varying = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
            own = inspect.signature(base.__init__).parameters.values()
            found |= {item.name: hints[item.name] for item in own if item.name in hints and item.kind not in varying}
    return found


def require(name: str, value: Any, hint: Any) -> None:
    """Raises ValueError for a value that does not belong to a hint."""
    if not belongs(hint, value):
        raise ValueError(f"{name} is {quoted(value)}; expected {described(hint)}")


def check(hints: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> None:
    """Raises ValueError for the first option outside of its domain; options without a hint are left alone.

    A mapping for a dataclass is checked by that one's fields.

    Args:
        prefix: stands before the option's name in the message.
    """
    for name, value in given.items():
        hint = hints.get(name, Any)
        if is_dataclass(hint) and isinstance(value, Mapping):
            check(hints_of(hint), value, f"{prefix}{name}.")
        else:
            require(f"{prefix}{name}", value, hint)


def checked(kind: Kind) -> Kind:
    """A class decorator: arguments outside of their domains raise ValueError before ``__init__`` runs."""
    init, signature = kind.__init__, inspect.signature(kind.__init__)

    @functools.wraps(init)
    def checking(self: Any, *args: Any, **kwargs: Any) -> None:
        check(hints_of(kind), signature.bind(self, *args, **kwargs).arguments)
        init(self, *args, **kwargs)

    kind.__init__ = checking
    return kind


def argument(hint: Any) -> Callable[[str], Any]:
    """The argparse type of a number with a domain."""
    base = get_args(hint)[0]

    def convert(text: str) -> Any:
        try:
            value = base(text) if text.isascii() else None
        except ValueError:
            value = None
        if not belongs(hint, value):
            raise argparse.ArgumentTypeError(f"{quoted(text)} is not {described(hint)}")
        return value

    return convert


def _is_domain(part: Any) -> bool:
    return isinstance(part, (Range, Different))
