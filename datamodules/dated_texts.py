"""Dated texts as in Time-MMD: which parts have content, and from which row on they were known."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from gssr.shown import quoted

TEXTS = ("report", "search")
PARTS = ("fact", "preds")

# The phrases of the language model that wrote the texts where it found no content.
_NOTHING = re.compile(
    r"NA(?=\W|$)"
    r"|(?i:"
    r"(?:note|since none|if you could|please provide)\b"
    r"|no (?:relevant |available |specific |objective |useful |long-term |short-term )*"
    r"(?:information|facts?|predictions?|data)\b"
    r"|there (?:is|are|was|were) no (?:mention|information|relevant|specific)\b"
    r"|(?:the )?(?:provided )?search results (?:do|did) not\b)"
)
_DAY = re.compile(
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December) \d{1,2}, \d{4}"
)
_PREAMBLE = re.compile(r"(?i:here (?:is|are) the )[^.:;\n]{0,500}:")  # bounded, or the search is quadratic
_HEADING = re.compile(
    r"(?:objective facts?|facts|(?:long|short)[- ]term predictions?|predictions? (?:for|about))\b[^.]*$",
    re.IGNORECASE,
)


def meaning(text: object) -> str | None:
    """A text without boilerplate, markup and headings, on one line; None where nothing is left.

    Lines, and parts between semicolons, are judged one by one: "NA;Prices may rise." becomes "Prices may rise."
    """
    if not isinstance(text, str):
        return None
    kept = []
    for line in re.split(r"[;\n]", _PREAMBLE.sub("\n", text)):
        line = " ".join(re.sub(r"[*#|`]+", " ", line).split()).lstrip("-•· ")
        if line and any(c.isalnum() for c in line) and not _NOTHING.match(line) and not _HEADING.match(line):
            kept.append(line)
    return " ".join(kept) or None


def read_texts(file: Path) -> pd.DataFrame:
    """`end`, `named` (dates) and `text` of the rows of a text file that have content, in order of their end.

    `named` is the latest day that the text's facts name ("on August 17, 2020"), or its end where that is later. A fact
    about a day was not known before it, although the file's dates may be earlier. Predictions may name later days.

    Raises ValueError for a file that is no table, lacks a column, or holds a date that cannot be read.
    """
    table = read_csv(file)
    for name in ("end_date", *PARTS):
        if name not in table:
            raise ValueError(f"{file} has no column {name!r}; expected start_date, end_date, fact and preds")
    parts = [table[name].map(meaning, na_action="ignore") for name in PARTS]
    text = [" ".join(part for part in row if isinstance(part, str)) for row in zip(*parts, strict=True)]
    end = read_dates(table, "end_date", file)
    named = [max([day, *days_named(fact)]) for day, fact in zip(end, parts[0], strict=True)]
    rows = pd.DataFrame({"end": end, "named": pd.Series(named, dtype=end.dtype), "text": text})
    return rows[rows["text"] != ""].sort_values("end", kind="stable", ignore_index=True)


def days_named(text: object) -> list[pd.Timestamp]:
    """The days that a text names in full, such as "August 17, 2020"; [] where there is no text."""
    found = _DAY.findall(text) if isinstance(text, str) else []
    days = pd.to_datetime(pd.Series(found, dtype=str), format="%B %d, %Y", errors="coerce")
    return days.dropna().tolist()


def known_texts(texts: pd.DataFrame, ends: pd.Series, begin: pd.Timestamp, ahead: int = 0) -> list[tuple[int, str]]:
    """(row, text) for each text, with the first row that may read it.

    A text is known at the end of its last day, and a row holds what is known at the end of its own last day. So a row
    may read the texts that end no later than it, and whose named days are over; with `ahead`, so many rows later. Texts
    that end before the first row begins, or that no row is late enough for, are dropped.

    Args:
        texts: `end`, `named` and `text`, in order of `end`.
        ends: Last day of each row, ascending.
        begin: First day of the first row.
        ahead: Rows by which the texts are about a later time than their dates.
    """
    texts = texts[texts["end"] >= begin]
    last, named = (np.searchsorted(ends.to_numpy(), texts[by].to_numpy(), side="left") for by in ("end", "named"))
    rows = np.maximum(last + ahead, named)
    return [(int(row), text) for row, text in zip(rows, texts["text"], strict=True) if row < len(ends)]


def read_csv(file: Path) -> pd.DataFrame:
    """A CSV file as it is. Raises ValueError where it is empty, binary or not UTF-8."""
    try:
        return pd.read_csv(file)
    except (ValueError, OSError, MemoryError, OverflowError) as error:
        raise ValueError(f"{file} cannot be read as a UTF-8 CSV table: {error}") from error


def read_dates(table: pd.DataFrame, name: str, file: Path) -> pd.Series:
    """A column of dates. Raises ValueError for one that is missing or cannot be read."""
    dates = pd.to_datetime(table[name], errors="coerce", format="ISO8601")
    if dates.isna().any():
        row = int(np.flatnonzero(dates.isna())[0])
        raise ValueError(f"{file}: {name} of row {row + 2} is {quoted(table[name].iloc[row])}, which is not a date")
    return dates
