"""Reads YAML that may come from someone else: plain values only, bounded in size, depth, aliases and numbers."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from gssr.files import read_plain

LARGEST = 2**20  # bytes of a file, or characters of a text
DEEPEST = 64
# Values of a document once each alias stands for what it names.
MOST_VALUES = 100_000
MOST_DIGITS = 64
_DIGITS = re.compile(r"[-+]?[\d_:.,a-fA-FxXoO]*")
# As the command line reads numbers: 1e-3 is one, in YAML 1.1 it is a word. Dates stay words.
_FLOAT = re.compile(
    r"""[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?$
       |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)$
       |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?$
       |[-+]?\.(?:inf|Inf|INF)$
       |\.(?:nan|NaN|NAN)$""",
    re.VERBOSE,
)
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
_CHANGED = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float")


class YamlError(ValueError):
    """A text that is no YAML, asks for objects, or is larger, deeper or more repetitive than options are."""


def _short(tag: str) -> str:
    return tag.removeprefix("tag:yaml.org,2002:")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain values; a key that comes twice is an error."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in pairs if tag not in _CHANGED]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    yaml_constructors = {
        tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag is None or _short(tag) in _PLAIN
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise YamlError(f"the key {key.value[:60]!r} comes twice{_place(key.start_mark)}")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(_CHANGED[1], _FLOAT, list("-+0123456789."))


def load(text: str) -> Any:
    """The plain values of a YAML text. Raises YamlError."""
    try:
        # What a word of the command line holds mostly; a large or repetitive document has brackets or lines.
        if len(text) > MOST_DIGITS or any(sign in text for sign in "[{\n&*"):
            _check(text)
        value = yaml.load(text, Loader=_Loader)  # nosec B506: a safe loader
    except yaml.constructor.ConstructorError as error:
        if "could not determine a constructor" in str(error.problem):
            raise YamlError(
                f"it asks for an object ({error.problem}{_place(error.problem_mark)}), which could run code; expected "
                "plain values only"
            ) from error
        raise YamlError(f"{error.problem}{_place(error.problem_mark)}") from error
    except yaml.MarkedYAMLError as error:
        raise YamlError(f"it is no YAML: {error.problem or error.context}{_place(error.problem_mark)}") from error
    except (yaml.YAMLError, OverflowError, RecursionError) as error:
        raise YamlError(f"it is no YAML: {' '.join(str(error).split())[:200]}") from error
    except ValueError as error:
        if isinstance(error, YamlError):
            raise
        raise YamlError(f"a value cannot be read: {str(error)[:200]}") from error
    return value


def read(path: Path) -> Any:
    """The plain values of a YAML file. Raises YamlError, ValueError for a link, and OSError."""
    try:
        text = read_plain(path, LARGEST).decode("utf-8")
    except UnicodeDecodeError as error:
        raise YamlError(f"byte {error.start} is no UTF-8") from error
    return load(text)


def _check(text: str) -> None:
    """Walk through the parser's events, which cost no more memory than the text, before anything is built."""
    if len(text) > LARGEST:
        raise YamlError(f"it has {len(text):,} characters; expected at most {LARGEST:,}")
    sizes: dict[str, int] = {}  # values under each anchor, its own aliases counted in full
    open_: list[tuple[str | None, int]] = []  # anchors of the open lists and mappings, and the values before each
    values = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in open_):
                raise YamlError(f"the alias *{event.anchor} lies inside of what it names{_place(event.start_mark)}")
            values += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if event.anchor:
                sizes[event.anchor] = 1
            if not event.style and len(event.value) > MOST_DIGITS and _DIGITS.fullmatch(event.value):
                raise YamlError(f"a number has {len(event.value):,} digits{_place(event.start_mark)}")
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            open_.append((event.anchor, values))
            values += 1
            if len(open_) > DEEPEST:
                raise YamlError(f"it is nested more than {DEEPEST} deep{_place(event.start_mark)}")
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            anchor, before = open_.pop()
            if anchor:
                sizes[anchor] = values - before
        if values > MOST_VALUES:
            raise YamlError(f"it holds more than {MOST_VALUES:,} values{_place(event.start_mark)}")


def _place(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
