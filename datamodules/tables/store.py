"""A table on disk: the rows of a series lie together, each column is a file of rows of one width.

    time.f8  (N)     hours            strings.bin        UTF-8 of all texts and goals
    value.f4 (N, Y)                   text.i8, goal.i8   (N, 2) place and length there in bytes, length -1 for none
    bound.f4 (N, 2)                   about.json         Facts, and a checksum of each file

Rows are read with pread, and mapped only while they are sorted, so that memory does not grow with the table.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.tables.facts import Clock, Column, Facts, iso
from datamodules.tables.order import DTYPES, ROWS, gather, sort
from datamodules.tables.repeats import merge
from gssr.files import atomic_write

STRINGS, ABOUT = "strings.bin", "about.json"
REMEMBERED = 10_000  # strings that are not written twice
MOST_ABOUT = 1 << 28  # bytes of the facts: some million series


class Writer:
    """Writes chunks of rows to a store in a new `folder`. Raises ValueError for times that cannot be used.

    name: of the table, for messages; sort: order rows by time instead of refusing them; same_time: what becomes of rows
    of one time, see `TableSequences`; counted: whether a column tells series apart.
    """

    def __init__(
        self, folder: Path, name: str, columns: list[str], sort: bool, counted: bool, same_time: str = "last"
    ) -> None:
        self.folder, self.name, self.sort, self.counted, self.same_time = folder, name, sort, counted, same_time
        self.columns = [Column(column) for column in columns]
        self.codes: dict[str, int] = {}
        self.counts: Counter[int] = Counter()  # rows of each code, in order of code
        self.last: dict[int, float] = {}
        self.repeats = False  # whether a time may come twice in a series
        self.unclear: set[float] = set()  # times of hours that a clock shows twice
        self.newest = 0
        self.rows = 0
        self.in_one_piece = True
        self.has = {"text": False, "goal": False}
        self.places: dict[str, tuple[int, int]] = {}
        self.end = 0
        folder.mkdir(parents=True)
        # They stay open for all chunks, until `close`.
        self.files = {part: open(folder / part, "wb") for part in (*DTYPES, "series", STRINGS)}  # noqa: SIM115

    def add(
        self,
        series: list[str],
        time: np.ndarray | None,
        values: np.ndarray,
        text: list[str | None] | None,
        goal: list[str | None] | None,
        bounds: np.ndarray | None,
        later: np.ndarray | None = None,
    ) -> None:
        """A chunk of n rows: values (n, Y) float64, time (n) in hours (None: rows are counted), bounds (n, 2).

        later: when the clock shows each time again; a time that is not after the row before it is that later one.
        """
        n = len(series)
        codes = np.fromiter((self.codes.setdefault(name, len(self.codes)) for name in series), np.int32, n)
        if time is not None and later is not None:
            self.unclear |= {*time[later > time].tolist(), *later[later > time].tolist()}
        time = self._order(codes, time, series, later)
        for y, column in enumerate(self.columns):
            values[:, y] = column.add(values[:, y])
        self._put("series", codes)
        self._put("time", time)
        self._put("value", values)
        for part, strings in (("text", text), ("goal", goal)):
            if strings is not None:
                self.files[part].write(np.array([self._place(part, s) for s in strings], "<i8").tobytes())
        if bounds is not None:
            self._put("bound", bounds)
        self.rows += n

    def _put(self, part: str, values: np.ndarray) -> None:
        self.files[part].write(np.ascontiguousarray(values, DTYPES.get(part, "<i4")).tobytes())

    def _order(
        self, codes: np.ndarray, time: np.ndarray | None, series: list[str], later: np.ndarray | None
    ) -> np.ndarray:
        """The times of a chunk, checked against those before in their series."""
        self.in_one_piece &= bool((np.diff(codes, prepend=self.newest) >= 0).all())
        self.newest = codes[-1]
        counted = np.empty(len(codes))
        for code in np.unique(codes).tolist():
            rows = np.flatnonzero(codes == code)
            counted[rows] = self.counts[code] + np.arange(len(rows))
            self.counts[code] += len(rows)
            if time is not None and not self.sort:
                if later is not None:
                    self._resolve(time, later, rows, code)
                self._check(time, rows, series[rows[0]], code)
        return counted if time is None else time

    def _resolve(self, time: np.ndarray, later: np.ndarray, rows: np.ndarray, code: int) -> None:
        """The order of rows tells the hour that comes twice when a clock goes back."""
        for place in np.flatnonzero(later[rows] > time[rows]).tolist():
            before = time[rows[place - 1]] if place else self.last.get(code, -np.inf)
            if time[rows[place]] <= before:
                time[rows[place]] = later[rows[place]]

    def _check(self, time: np.ndarray, rows: np.ndarray, series: str, code: int) -> None:
        times = np.concatenate([[self.last.get(code, -np.inf)], time[rows]])
        self.last[code] = float(times[-1])
        ahead = np.diff(times)
        self.repeats |= bool((ahead == 0).any())
        wrong = np.flatnonzero(~(ahead > 0) if self.same_time == "refuse" else ~(ahead >= 0))
        if not len(wrong):
            return
        before, own = times[wrong[0] : wrong[0] + 2].tolist()
        of, more = f" of series {series!r}", ""
        if not self.counted:
            of, more = "", "; if the table holds several series, name their column with series_column"
        problem = f"comes after {iso(before)}: times are not sorted; sort the rows, or give sort_rows: true"
        if own == before:
            problem = "has the same time as the row before; merge such rows, or give same_time: last or mean"
        raise ValueError(f"row {self.rows + int(rows[wrong[0]]) + 1}{of} ({iso(own)}) {problem}{more}")

    def _place(self, part: str, string: str | None) -> tuple[int, int]:
        if string is None:
            return 0, -1
        self.has[part] = True
        place = self.places.get(string)
        if place is None:
            raw = string.encode("utf-8")
            place = (self.end, len(raw))
            self.files[STRINGS].write(raw)
            self.end += len(raw)
            if len(self.places) >= REMEMBERED:
                self.places.clear()
            self.places[string] = place
        return place

    def close(self, clock: Clock | None = None) -> Facts:
        """Bring each series into one piece and write the facts of the table."""
        for file in self.files.values():
            file.close()
        notes, counts, of = [], list(self.counts.values()), (list(self.codes) if self.counted else [])
        if not self.in_one_piece:
            gather(self.folder, counts)
        if self.sort:
            moved, self.repeats = sort(self.folder, counts)
            notes += [f"{moved} rows of {self.name} were not sorted by time; they were sorted"] if moved else []
        if self.repeats:
            counts, note = merge(self.folder, counts, self.same_time, self.name, of, self.unclear)
            notes += [note] if note else []
        (self.folder / "series").unlink()
        has = self.has["text"], self.has["goal"]
        facts = Facts(list(self.codes), counts, self.columns, *has, notes, clock or Clock())
        about = {"facts": asdict(facts), "files": {part: _hash(self.folder / part) for part in (*DTYPES, STRINGS)}}
        self._sync()
        with atomic_write(self.folder / ABOUT) as file:
            json.dump({"sha256": _hash_of(about), **about}, file)
        return facts

    def _sync(self) -> None:
        """Make the system write all files to disk, so that a power failure leaves none of them half."""
        for part in (*DTYPES, STRINGS):
            with open(self.folder / part, "rb") as file:
                os.fsync(file.fileno())


def _hash(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _hash_of(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _read_about(folder: Path) -> dict[str, Any]:
    """The facts of a store whose files are all what was written. Raises ValueError for another one, and OSError."""
    parts = {ABOUT, *DTYPES, STRINGS}
    if wrong := [part for part in sorted(parts) if not (folder / part).is_file()]:
        raise ValueError(f"{wrong[0]} is no file")
    if (folder / ABOUT).stat().st_size > MOST_ABOUT:
        raise ValueError(f"{ABOUT} is too large")
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        expected, files, facts = about.pop("sha256"), about["files"], about["facts"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{ABOUT} cannot be read ({type(error).__name__})") from error
    if expected != _hash_of(about):
        raise ValueError(f"{ABOUT} is not what was written")
    for part, digest in files.items():
        if _hash(folder / part) != digest:
            raise ValueError(f"{part} is not what was written")
    return facts


class Store:
    """Reads the files of `Writer`. `offsets` (series + 1): first row of each series, and the number of rows.

    Raises ValueError for a folder whose files are not what was written, and OSError where they cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        about = _read_about(folder)
        about["columns"] = [Column(**column) for column in about["columns"]]
        about["clock"] = Clock(**about["clock"])
        self.facts = Facts(**about)
        self.offsets = np.concatenate([[0], np.cumsum(self.facts.counts)]).astype(np.int64)
        self._files: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}

    def __del__(self) -> None:
        for file in self.__dict__.get("_files", {}).values():
            os.close(file)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def read(self, part: str, first: int, end: int) -> np.ndarray:
        """Rows first to end of a column: (n) of time, (n, 2) of text, goal and bound, (n, Y) of value."""
        width = {"time": 1, "value": len(self.facts.columns)}.get(part, 2)
        dtype = np.dtype(DTYPES[part])
        raw = self._bytes(part, first * width * dtype.itemsize, (end - first) * width * dtype.itemsize)
        values = np.frombuffer(raw, dtype)
        return values if part == "time" else values.reshape(-1, width)

    def strings(self, part: str, first: int, end: int) -> list[str | None]:
        """The texts or goals of rows first to end, None where there is none."""
        if not (self.facts.has_text if part == "text" else self.facts.has_goal):
            return [None] * (end - first)
        places = self.read(part, first, end).tolist()
        return [None if size < 0 else self._bytes(STRINGS, at, size).decode("utf-8") for at, size in places]

    def texts(self, most: int) -> list[str] | None:
        """All distinct texts, in order of appearance; None where they are more than `most`."""
        found: dict[str, None] = {}
        for start in range(0, len(self), ROWS // 4):
            part = self.strings("text", start, min(len(self), start + ROWS // 4))
            found |= dict.fromkeys(text for text in part if text is not None)
            if len(found) > most:
                return None
        return list(found)

    def _bytes(self, part: str, at: int, size: int) -> bytes:
        file = self._files.get(part)
        if file is None:
            file = self._files[part] = os.open(self.folder / part, os.O_RDONLY)
        raw = os.pread(file, size, at) if size else b""
        if len(raw) != size:
            raise RuntimeError(
                f"{self.folder / part} ends too early: it was changed while it was in use; run again, and the table is "
                "read anew"
            )
        return raw
