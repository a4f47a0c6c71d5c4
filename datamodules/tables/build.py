"""Read the columns of a source into a store on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from datamodules.tables import cells
from datamodules.tables.facts import Column, Facts
from datamodules.tables.goals import check_bounds
from datamodules.tables.source import Source
from datamodules.tables.store import ABOUT, Store, Writer
from gssr.files import atomic_path

VERSION = 1  # of what a store holds; a change makes all stores be written again


@dataclass
class Columns:
    """The columns of a source by their use; `values` None means all other columns of numbers.

    `resolve` raises ValueError for a name that is absent or used twice, and for a table without numbers.
    """

    time: str | None
    series: str | None
    values: list[str] | None
    text: str | None
    goal: str | None
    goal_low: str | None
    goal_high: str | None

    def resolve(self, source: Source, missing: Sequence[str]) -> None:
        used: dict[str, str] = {}
        for option, name in (
            ("time_column", self.time),
            ("series_column", self.series),
            ("text_column", self.text),
            ("goal_column", self.goal),
            ("goal_low_column", self.goal_low),
            ("goal_high_column", self.goal_high),
            *(("value_columns", name) for name in self.values or ()),
        ):
            if name is None:
                continue
            source.column(name, option)
            if name in used:
                raise ValueError(f"{option} and {used[name]} are both {name!r}; a column can be one of them")
            used[name] = option
        if self.goal is None and (self.goal_low or self.goal_high):
            raise ValueError("goal_low_column and goal_high_column need a goal_column, the goals that they bound")
        if self.values is None:
            self.values = self._numeric(source, [c for c in source.columns if c not in used], missing)
        if not self.values:
            raise ValueError("value_columns is empty; name at least one column of numbers")

    def _numeric(self, source: Source, names: list[str], missing: Sequence[str]) -> list[str]:
        """The columns whose first rows are numbers."""
        head = next(source.chunks(names), {}) if names else {}
        found = []
        for name, array in head.items():
            try:
                if not np.isnan(cells.numbers(array.slice(0, 1000), name, 1, missing)).all():
                    found.append(name)
            except ValueError:
                continue
        if not found:
            raise ValueError(
                f"{source.path} has no column of numbers"
                + (f" among {names}" if names else "")
                + "; name the values with value_columns"
            )
        return found

    @property
    def all(self) -> list[str]:
        named = (self.time, self.series, self.text, self.goal, self.goal_low, self.goal_high)
        return [name for name in (*named, *(self.values or ())) if name is not None]


@dataclass
class Reading:
    """How cells are read; see the options of `TableSequences`."""

    columns: Columns
    time_unit: str | None
    time_format: str | None
    missing: tuple[str, ...]
    sort_rows: bool
    max_text_chars: int

    def times(self) -> cells.Times | None:
        name = self.columns.time
        return None if name is None else cells.Times(name, self.time_unit, self.time_format)

    def store(self, source: Source, cache: Path) -> Store:
        """The store of a source, from the cache if it is there.

        Raises ValueError for a table that cannot be used.
        """
        key = repr((VERSION, source.identity, self))
        folder = cache / hashlib.sha256(key.encode()).hexdigest()[:24]
        if not (folder / ABOUT).exists():
            try:
                with atomic_path(folder) as draft:
                    self._check(self.write(source, draft).columns, source)
            except OSError as error:
                if not (folder / ABOUT).exists():  # another process was faster
                    raise ValueError(
                        f"the table cannot be prepared in {cache}: {error}; set GSSR_CACHE to a folder with room for it"
                    ) from error
        return Store(folder)

    def write(self, source: Source, folder: Path) -> Facts:
        """Write a store to a new folder. Raises ValueError for a cell or a column that cannot be read."""
        names, times = self.columns, self.times()
        assert names.values is not None
        writer = Writer(folder, source.path, names.values, self.sort_rows, names.series is not None)
        texts_are_numbers, first = True, 1
        try:
            for chunk in source.chunks(names.all):
                size = len(next(iter(chunk.values())))
                series = self._series(chunk[names.series], first) if names.series else ["table"] * size
                time = None if times is None else times.parse(chunk[names.time], first)  # type: ignore[index]
                values = [cells.numbers(chunk[name], name, first, self.missing) for name in names.values]
                text = self._texts(chunk[names.text], names.text) if names.text else None
                texts_are_numbers = texts_are_numbers and text is not None and cells.all_numbers(text)
                goal = self._texts(chunk[names.goal], names.goal) if names.goal else None
                writer.add(series, time, np.stack(values, 1), text, goal, self._bounds(chunk, goal, first, source))
                first += size
            if first == 1:
                raise ValueError(f"{source.path} names columns but has no rows; expected one row a step")
            facts = writer.close()
            if names.text and facts.has_text and texts_are_numbers:
                raise ValueError(
                    f"the text column {names.text!r} holds nothing but numbers; expected words; name it in "
                    "value_columns, or leave text_column out"
                )
            if names.goal and not facts.has_goal:
                raise ValueError(f"the goal column {names.goal!r} is empty in all rows; leave goal_column out")
            return facts
        finally:
            for file in writer.files.values():
                file.close()

    def _series(self, array: pa.Array, first: int) -> list[str]:
        found = cells.words(array, str(self.columns.series))
        if None in found:
            raise ValueError(
                f"series column {self.columns.series!r} is empty in row {first + found.index(None)}; each row "
                "belongs to a series"
            )
        return found  # type: ignore[return-value]

    def _texts(self, array: pa.Array, name: str) -> list[str | None]:
        return cells.words(array, name, self.max_text_chars)

    def _bounds(
        self, chunk: dict[str, pa.Array], goal: list[str | None] | None, first: int, source: Source
    ) -> np.ndarray | None:
        if goal is None:
            return None
        silent = np.full(len(goal), np.nan)
        ends = [
            silent if name is None else cells.numbers(chunk[name], name, first, self.missing)
            for name in (self.columns.goal_low, self.columns.goal_high)
        ]
        return check_bounds(*ends, first, source.path, None)

    @staticmethod
    def _check(columns: list[Column], source: Source) -> None:
        for column in columns:
            if not column.observed:
                raise ValueError(
                    f"value column {column.name!r} of {source.path} holds no finite number "
                    f"({'infinity' if column.infinite else 'nothing'} everywhere); leave it out of value_columns"
                )
            if column.low == column.high:
                raise ValueError(
                    f"value column {column.name!r} of {source.path} is constant ({column.low:g}); there is nothing to "
                    "learn from it; leave it out of value_columns"
                )
