"""Tables as JSON Lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from datamodules.tables.raw import lines_of, not_utf8
from datamodules.tables.source import EXPECTED, ROWS, Source, check_columns, identity_of
from gssr.shown import quoted


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {quoted(next(key for key in keys if keys.count(key) > 1))} comes twice")
    return found


def _constant(word: str) -> str | None:
    return None if word == "NaN" else word


# Numbers stay as they are written, as in a CSV file; `datamodules.tables.cells` reads them. A bare NaN is no name.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_constant, object_pairs_hook=_unique)


class JsonLinesSource(Source):
    """One object a line; names of columns are those of the first 100 lines."""

    def __init__(self, file: Path) -> None:
        self.path, self.file = str(file), file
        self.identity = identity_of(file)
        found: dict[str, None] = {}
        for row, (_, line) in enumerate(self._lines()):
            if row == 100:
                break
            found |= dict.fromkeys(line)
        if not found:
            raise ValueError(f"{file} holds no rows; {EXPECTED}")
        self.columns = check_columns(self.path, list(found))

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, raw in lines_of(self.file):
            try:
                text = raw.decode("utf-8").strip().removeprefix("\ufeff")
                line = _DECODER.decode(text) if text else None
            except UnicodeDecodeError:
                raise ValueError(not_utf8(self.file)) from None
            except (ValueError, RecursionError) as error:
                hint = "; this looks like one JSON array: write one object a line" if text[:1] == "[" else ""
                why = "it is nested too deeply" if isinstance(error, RecursionError) else error
                raise ValueError(
                    f"line {number} of {self.path} is no JSON object ({why}): {quoted(text)}{hint}"
                ) from None
            if line is None:
                continue
            if not isinstance(line, dict):
                raise ValueError(
                    f"line {number} of {self.path} is no JSON object: {quoted(text)}; "
                    'expected one such as {"time": "2024-05-31", "price": 12.5} in each line'
                )
            yield number, line

    def chunks(self, names: Sequence[str]) -> Iterator[dict[str, pa.Array]]:
        rows: dict[str, list[str | None]] = {name: [] for name in names}
        for number, line in self._lines():
            for name in names:
                rows[name].append(self._cell(line.get(name), name, number))
            if len(rows[names[0]]) == ROWS:
                yield self._arrays(rows)
                rows = {name: [] for name in names}
        if rows[names[0]]:
            yield self._arrays(rows)

    def _arrays(self, rows: dict[str, list[str | None]]) -> dict[str, pa.Array]:
        try:
            return {name: pa.array(cells, pa.string()) for name, cells in rows.items()}
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{self.path} holds half of a surrogate pair ({error.object[error.start : error.end]!r}), "
                "which is no character"
            ) from None

    def _cell(self, cell: Any, name: str, number: int) -> str | None:
        if cell is None or isinstance(cell, str):
            return cell
        if isinstance(cell, bool):
            return "1" if cell else "0"
        raise ValueError(
            f"line {number} of {self.path} has {quoted(cell)} in {quoted(name)}; expected one number, time or text"
        )
