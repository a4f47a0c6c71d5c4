"""Text of others where it is shown: on a terminal, in Markdown and HTML, in pictures, as names of files.

Goals, texts, names and paths come from files and from language models, so they may hold anything: sequences that
command a terminal, overrides of the writing direction, markup. Data that is written as data (JSON, CSV) keeps them as
they are; what a person reads goes through this module. It uses nothing but the standard library.
"""

from __future__ import annotations

import html
import re
import reprlib
import shlex
import warnings
import zlib
from collections.abc import Callable, Sequence
from typing import Any

JOINERS = "\u200c\u200d"  # invisible, but scripts and emoji need them
# Where they are written as entities, renderers of Markdown see no markup; a bare address or a name becomes no link.
_MARKUP = re.compile(r"[\\`*\[\]|~$#@{}]|(?<=:)//|(?i:(?<=www)\.)|(?<![^\W_])_|_(?![^\W_])")
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 60
_BRIEF.maxlevel = 2


def line(text: object, most: int | None = None) -> str:
    """A text on one line of printable characters, at most `most` of the text's.

    Breaks and other blanks become spaces; what commands a terminal or is invisible becomes visible, such as \\x1b.
    """
    whole = str(text)
    kept = whole if most is None or len(whole) <= most else whole[: most - 1] + "…"
    return kept if kept.isprintable() else "".join(map(_visible, kept))


def lines(text: object) -> str:
    """A text of several lines, each as `line` makes it."""
    return "\n".join(line(part) for part in str(text).split("\n"))


def argument(text: object) -> str:
    """A word of a command line that a person may copy into a shell."""
    return shlex.quote(line(text))


def _visible(char: str) -> str:
    if char.isprintable() or char in JOINERS:
        return char
    return " " if char.isspace() else char.encode("unicode_escape").decode("ascii")


def quoted(value: object) -> str:
    """A value as Python writes it, cut to some sixty characters: for messages."""
    try:
        return _BRIEF.repr(value)
    except ValueError:  # Python refuses to write integers of more than some thousand digits
        return f"an integer of {value.bit_length() * 3 // 10} digits" if isinstance(value, int) else str(type(value))


def with_dittos(texts: Sequence[str]) -> list[str]:
    """Texts in their order, where one that repeats its predecessor word for word is a ditto mark."""
    words = [text.split() for text in texts]
    return ["〃" if i and own and own == words[i - 1] else texts[i] for i, own in enumerate(words)]


def listed(items: Sequence[object], most: int = 5, show: Callable[[Any], str] = quoted) -> str:
    """The first of some items and how many more there are, in the middle of a line: 'a', 'b' and 3 more."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(map(show, items[:most])) + more


def markdown(text: object, most: int | None = None) -> str:
    """A text for the middle of a line of Markdown, or a cell of its tables, that shows as it stands.

    It holds no HTML, markup or link, whether the Markdown is rendered by GitHub, TensorBoard or MkDocs.
    """
    return _MARKUP.sub(_entities, html.escape(line(text, most), quote=False))


def code(text: object) -> str:
    """A text as a code span of Markdown. A span knows no entities, so backticks become apostrophes."""
    return "`" + line(text).replace("`", "'") + "`"


def _entities(found: re.Match[str]) -> str:
    return "".join(f"&#{ord(char)};" for char in found[0])


def file_name(text: str, most: int = 60) -> str:
    """A part of a file's name: letters, digits and underscores, at most `most` bytes.

    A longer name ends in its checksum, so that names that begin alike stay apart.
    """
    name = re.sub(r"\W+", "_", text).strip("_")
    raw = name.encode("utf-8", "replace")
    if len(raw) <= most:
        return name
    mark = f"_{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"
    return raw[: most - len(mark)].decode("utf-8", "ignore") + mark


def clean_warnings() -> None:
    """From here on, Python prints warnings as `lines` makes them. A second call changes nothing."""
    original = warnings.formatwarning
    if getattr(original, "cleans", False):
        return

    def formatted(message: Any, category: Any, filename: Any, lineno: Any, source: Any = None) -> str:
        return original(lines(message), category, line(filename), lineno, source)

    formatted.cleans = True  # type: ignore[attr-defined]
    warnings.formatwarning = formatted
