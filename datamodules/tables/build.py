"""Read the columns of a source into a store on disk."""

from __future__ import annotations

import atexit
import hashlib
import re
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datamodules.tables import cells
from datamodules.tables.facts import Clock, Column, Facts
from datamodules.tables.goals import check_bounds
from datamodules.tables.source import Source
from datamodules.tables.store import Store, Writer
from datamodules.tables.times import Times
from gssr.files import atomic_path
from gssr.shown import quoted

VERSION = 5  # of what a store holds; a change makes all stores be written again


_NO_NAME = re.compile(r"\s*|Unnamed: [\d.]+|__index_level_\d+__")
_COUNTER = re.compile(r"index|level_\d+|row|row[ _]?(?:id|number|nr|no)|#", re.IGNORECASE)
USES = ("time", "series", "text", "goal", "goal_low", "goal_high")


class _Faster(Exception):
    """Another process has made the same store."""


@dataclass
class Columns:
    """The columns of a table by their use; `values` are the columns of numbers."""

    time: str | None
    series: str | None
    text: str | None
    goal: str | None
    goal_low: str | None
    goal_high: str | None
    values: list[str]

    @property
    def all(self) -> list[str]:
        return [name for name in (*(getattr(self, use) for use in USES), *self.values) if name is not None]


@dataclass
class Reading:
    """How cells are read; see the options of `TableSequences`. `counters`: columns left out since they count rows."""

    columns: Columns
    time_unit: str | None
    time_format: str | None
    time_zone: str | None
    missing: tuple[str, ...]
    sort_rows: bool
    same_time: str
    max_text_chars: int
    counters: list[str] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, source: Source, options: Any, values: Sequence[str] | None) -> Reading:
        """The reading of a source; `values` None means all columns of numbers that have no other use.

        Raises ValueError for a column that is absent or used twice, and for a table without numbers.
        """
        missing = (*cells.MISSING, *map(str, options.missing or ()))
        named = {use: getattr(options, f"{use}_column", None) for use in USES}
        used: dict[str, str] = {}
        options_of = [(f"{use}_column", name) for use, name in named.items() if name is not None]
        for option, name in (*options_of, *(("value_columns", name) for name in values or ())):
            source.column(name, option)
            if name in used:
                raise ValueError(f"{option} and {used[name]} are both {name!r}; a column can be one of them")
            used[name] = option
        if named["goal"] is None and (named["goal_low"] or named["goal_high"]):
            raise ValueError("goal_low_column and goal_high_column need a goal_column, the goals that they bound")
        counters: list[str] = []
        if values is None:
            values, counters = _numeric(source, [name for name in source.columns if name not in used], missing)
        if not values:
            raise ValueError("value_columns is empty; name at least one column of numbers")
        columns, times = (
            Columns(**named, values=list(values)),
            (options.time_unit, options.time_format, options.time_zone),
        )
        return cls(columns, *times, missing, options.sort_rows, options.same_time, options.max_text_chars, counters)

    def times(self) -> Times | None:
        """The reader of the time column. Raises ValueError for an unknown time_unit, time_format or time_zone."""
        name = self.columns.time
        return None if name is None else Times(name, self.time_unit, self.time_format, self.time_zone)

    def store(self, source: Source, cache: Path) -> Store:
        """The store of a source, from the cache if it is there.

        Raises ValueError for a table that cannot be used.
        """
        key = repr((VERSION, source.identity, self))
        folder = cache / hashlib.sha256(key.encode()).hexdigest()[:24]
        try:
            if folder.exists() or folder.is_symlink():
                return Store(folder)
        except (ValueError, OSError) as error:
            warnings.warn(f"the table cache {folder} cannot be read and is made again ({error})", stacklevel=3)
        try:
            return self._made(source, folder)
        except OSError as error:
            aside = Path(tempfile.mkdtemp(prefix="gssr-table-"))
            # Not when an object ends: copies of it live in other processes.
            atexit.register(shutil.rmtree, aside, ignore_errors=True)
            warnings.warn(
                f"the table cannot be kept in {cache} ({error}); it is read into {aside} for this run only; set "
                "GSSR_CACHE to a folder with room for it",
                stacklevel=3,
            )
            try:
                return self._made(source, aside / folder.name)
            except OSError as second:
                raise ValueError(
                    f"the table can be prepared neither in {cache} ({error}) nor in {aside} ({second}); set GSSR_CACHE "
                    "to a folder with room for it"
                ) from second

    def _made(self, source: Source, folder: Path) -> Store:
        """A new store in place of whatever is there."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(_Faster), atomic_path(folder) as draft:
            _check(self.write(source, draft).columns, source)
            with suppress(ValueError, OSError):
                Store(folder)
                raise _Faster  # its files may be in use and are as good
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
            else:
                folder.unlink(missing_ok=True)
        return Store(folder)

    def write(self, source: Source, folder: Path) -> Facts:
        """Write a store to a new folder. Raises ValueError for a cell or a column that cannot be read."""
        names, times = self.columns, self.times()
        writer = Writer(folder, source.path, names.values, self.sort_rows, names.series is not None, self.same_time)
        texts_are_numbers, first = True, 1
        try:
            for chunk in source.chunks(names.all):
                size = len(next(iter(chunk.values())))
                series = ["table"] * size if names.series is None else cells.names(chunk[names.series], names.series)
                if None in series:
                    raise ValueError(
                        f"series column {names.series!r} is empty in row {first + series.index(None)}; each row "
                        "belongs to a series"
                    )
                time = None if times is None else times.parse(chunk[times.name], first)
                values = [self._numbers(chunk, name, first) for name in names.values]
                text, goal = (
                    None if name is None else read(chunk[name], name, self.max_text_chars)
                    for name, read in ((names.text, cells.names), (names.goal, cells.goals))
                )
                texts_are_numbers = texts_are_numbers and text is not None and cells.all_numbers(text)
                bounds = None
                if goal is not None:
                    ends = [self._numbers(chunk, name, first) for name in (names.goal_low, names.goal_high)]
                    bounds = check_bounds(*ends, first, source.path, None)
                later = None if times is None else times.later
                writer.add(series, time, np.stack(values, 1), text, goal, bounds, later)
                first += size
            if first == 1:
                raise ValueError(f"{source.path} names columns but has no rows; expected one row a step")
            facts = writer.close(Clock() if times is None else times.clock)
        finally:
            for file in writer.files.values():
                file.close()
        if names.text and facts.has_text and texts_are_numbers:
            raise ValueError(
                f"the text column {names.text!r} holds nothing but numbers; expected words; name it in value_columns, "
                "or leave text_column out"
            )
        if names.goal and not facts.has_goal:
            raise ValueError(f"the goal column {names.goal!r} is empty in all rows; leave goal_column out")
        return facts

    def _numbers(self, chunk: dict[str, pa.Array], name: str | None, first: int) -> np.ndarray:
        """A column of a chunk (n,) float64, NaN where there is no such column."""
        if name is None:
            return np.full(len(next(iter(chunk.values()))), np.nan)
        return cells.numbers(chunk[name], name, first, self.missing)


def _numeric(source: Source, names: list[str], missing: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns whose first rows are numbers, and those among them that are left out since they count rows.

    Columns without a name are left out, too: a row counter that a data frame wrote, or what stands behind trailing
    commas. Raises ValueError for no column of numbers, and for two columns of one name.
    """
    names = [source.column(name, "value_columns") for name in names if not _NO_NAME.fullmatch(name)]
    found, counters = [], []
    for name, array in (next(source.chunks(names), {}) if names else {}).items():
        with suppress(ValueError):
            numbers = cells.numbers(array[:1000], name, 1, missing)
            if _COUNTER.fullmatch(name) and _counts_rows(numbers):
                counters.append(name)
            elif not np.isnan(numbers).all():
                found.append(name)
    if not found:
        among = f" among {quoted(names)}" if names else ""
        raise ValueError(f"{source.path} has no column of numbers{among}; name the values with value_columns")
    return found, counters


def _counts_rows(numbers: np.ndarray) -> bool:
    """Whether each number is one more than that before it, or begins again where another series does."""
    begins = np.flatnonzero(np.diff(numbers) != 1) + 1
    return len(numbers) > 1 and numbers[0] in (0, 1) and bool((numbers[begins] == numbers[0]).all())


def _check(columns: list[Column], source: Source) -> None:
    """Raises ValueError for a value column that nothing can be learned from."""
    for column in columns:
        where = f"value column {column.name!r} of {source.path}"
        if not column.observed:
            only = "infinity" if column.infinite else "nothing"
            raise ValueError(f"{where} holds no finite number ({only} everywhere); leave it out of value_columns")
        if column.low == column.high:
            raise ValueError(
                f"{where} is constant ({column.low:g}), so there is nothing to learn; leave it out of value_columns"
            )
