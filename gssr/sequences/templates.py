"""The schema of goal templates: what each argument of `gssr.sequences.goals.GoalWriter` may hold, and their YAML."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from gssr import yaml_files
from gssr.domains import Fraction, NonNegative, Positive, Range, require
from gssr.shown import quoted

DIRECTIONS = ("any", "lower", "raise", "hold")
SLOT = re.compile(r"\{(\w+)\}")
RESERVED = ("value", "class", "when", "span")
MOST_BYTES = 1 << 18  # of a file
MOST = 5_000  # entries of a list
LONGEST = 1_000  # characters of a form or of a wording
NUMBERS: dict[str, Any] = {
    "dimension": Annotated[int, Range(0, 100_000)],
    "number_step": Positive,
    "held_out_margin": NonNegative,
    "jitter": Annotated[int, Range(0, 1_000)],
    "rounding": Positive,
    "combination_share": Annotated[int, Range(2, 1_000_000)],
    "class_share": Fraction,
    "still": NonNegative,
    "span_count": Annotated[int, Range(1, 1_000_000)],
}
FORMS = ("numbers", "classes", "held_out_numbers", "held_out_classes")
NOUNS = ("step_name", "span_unit")
NAMES = (*FORMS, "class_bounds", "words", "values", "held_out_values", *NUMBERS, *NOUNS)
_FINITE = Annotated[float, Range()]


def check(given: Any) -> None:
    """Check some arguments of a writer, as they come from YAML or from Python.

    Raises ValueError for unknown arguments and for values of another kind or range, each with a message of its own.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"goal templates are {quoted(given)}; expected a mapping with some of {', '.join(NAMES)}")
    _check_keys("goal templates", given, NAMES)
    for name, value in given.items():
        if name in FORMS:
            _check_forms(name, value)
        elif name in NUMBERS:
            require(name, value, NUMBERS[name])
        elif name in NOUNS:
            if value is not None:
                _check_text(name, value)
                if not value.strip() or "{" in value or "}" in value:
                    raise ValueError(f"{name} is {quoted(value)}; expected a noun such as 'months', without braces")
        elif name == "words":
            _check_words(value)
        elif name == "values":
            _check_values(value)
        else:
            for place, entry in enumerate(_list(name, value)):
                if name == "held_out_values":
                    require(f"{name}[{place}]", entry, _FINITE)
                elif isinstance(entry, Mapping):
                    _check_class(f"{name}[{place}]", entry)
                elif not hasattr(entry, "low"):
                    raise ValueError(f"{name}[{place}] is {quoted(entry)}; expected key, low, high and perhaps names")


def _check_keys(what: str, given: Mapping[Any, Any], known: Sequence[str]) -> None:
    unknown = [key for key in given if key not in known]
    if unknown:
        near = difflib.get_close_matches(str(unknown[0])[:LONGEST], known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{what}: there are the unknown keys {quoted(unknown)}; expected some of {', '.join(known)}{hint}"
        )


def _list(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__len__") or not hasattr(value, "__getitem__"):
        raise ValueError(f"{name} is {quoted(value)}; expected a list")
    if len(value) > MOST:
        raise ValueError(f"{name} has {len(value):,} entries; expected at most {MOST:,}")
    return value


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {quoted(value)}; expected words; put quotes around them")
    if len(value) > LONGEST:
        raise ValueError(f"{name} has {len(value):,} characters; expected at most {LONGEST:,}")


def _check_forms(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        if hasattr(value, "fitting"):  # Forms, which were checked as a mapping
            return
        raise ValueError(f"{name} is {quoted(value)}; expected lists of forms under some of {', '.join(DIRECTIONS)}")
    _check_keys(f"the directions of the forms in {name}", value, DIRECTIONS)
    for direction, forms in value.items():
        for place, form in enumerate(_list(f"{name}.{direction}", forms)):
            where = f"{name}.{direction}[{place}]"
            _check_text(where, form)
            if "{" in (rest := SLOT.sub("", form)) or "}" in rest:
                raise ValueError(
                    f"{where} is {quoted(form)}, with braces that are no slot; a slot is one word, such as {{value}}"
                )


def _check_words(value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"words is {quoted(value)}; expected lists of wordings by slot, such as unit: [knots, kt]")
    for slot, wordings in value.items():
        if not isinstance(slot, str) or not re.fullmatch(r"\w{1,100}", slot) or slot in RESERVED:
            raise ValueError(f"words has the slot {quoted(slot)}; expected one word other than {', '.join(RESERVED)}")
        if not len(_list(f"words.{slot}", wordings)):
            raise ValueError(f"words.{slot} is an empty list; give at least one wording")
        for place, wording in enumerate(wordings):
            _check_text(f"words.{slot}[{place}]", wording)


def _check_values(value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(
            f"values is {quoted(value)}; expected names and units by value, such as pressure: {{names: []}}"
        )
    for column, words in value.items():
        _check_text("values", column)
        if not isinstance(words, Mapping):
            raise ValueError(f"values.{column} is {quoted(words)}; expected lists of wordings: names and units")
        _check_keys(f"values.{column}", words, ("names", "units"))
        for kind, wordings in words.items():
            for place, wording in enumerate(_list(f"values.{column}.{kind}", wordings)):
                _check_text(f"values.{column}.{kind}[{place}]", wording)


def _check_class(where: str, entry: Mapping[str, Any]) -> None:
    known = ("key", "low", "high", "names")
    _check_keys(where, entry, known)
    if missing := [name for name in known[:3] if name not in entry]:
        raise ValueError(f"{where} has no {' and no '.join(missing)}; expected key, low, high and perhaps names")
    _check_text(f"{where}.key", entry["key"])
    for end in ("low", "high"):
        require(f"{where}.{end}", entry[end], _FINITE)
    for place, name in enumerate(_list(f"{where}.names", entry.get("names", ()))):
        _check_text(f"{where}.names[{place}]", name)


def read_templates(path: Path) -> dict[str, Any]:
    """The arguments of a writer in a YAML file, checked. Raises ValueError for a file that holds something else."""
    try:
        if not path.is_file():
            raise ValueError("it is no regular file")
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES >> 10} KB")
        found = yaml_files.load(raw.decode("utf-8"))
        check(found)
    except (OSError, ValueError, OverflowError, TypeError) as error:
        raise ValueError(f"the goals' file {path} cannot be used: {error}") from error
    return found
