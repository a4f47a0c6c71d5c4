"""Tables as CSV, JSON Lines, Parquet or data sets of the hub, read in chunks so that any size fits in memory."""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

ROWS = 20_000  # of a chunk
BLOCK = 1 << 20
EXPECTED = "expected a .csv, .tsv, .jsonl, .ndjson (also .gz) or .parquet file, a folder or id of a data set of the hub"


class Source:
    """A table on disk: `columns` names, `chunks` reads some of them. `identity` changes when the content does."""

    path: str
    columns: list[str]
    identity: tuple[Any, ...]

    def chunks(self, names: Sequence[str]) -> Iterator[dict[str, pa.Array]]:
        """The named columns, some ten thousand rows at a time.

        Raises ValueError where the file ends early or changes shape.
        """
        raise NotImplementedError

    def column(self, name: str, option: str) -> str:
        """The name itself, if there is such a column. Raises ValueError with the nearest name otherwise."""
        if name not in self.columns:
            folded = {column.strip().lower(): column for column in self.columns}
            near = [folded[word] for word in difflib.get_close_matches(name.strip().lower(), folded, n=1, cutoff=0.5)]
            shown = ", ".join(map(repr, self.columns[:20])) + (", ..." if len(self.columns) > 20 else "")
            raise ValueError(
                f"{option} is {name!r}, but {self.path} has no such column; "
                + (f"did you mean {near[0]!r}? " if near else "")
                + f"It has {shown}; the first line of a CSV file must name its columns"
            )
        if self.columns.count(name) > 1:
            raise ValueError(
                f"{self.path} has {self.columns.count(name)} columns {name!r}; give each a name of its own"
            )
        return name


@contextmanager
def decompressed(file: Path) -> Iterator[Any]:
    with pa.input_stream(str(file), compression="gzip" if file.suffix == ".gz" else None) as stream:
        try:
            yield stream
        except OSError as error:
            raise ValueError(f"{file} cannot be read: {error}; is it cut off?") from error


def _not_utf8(file: Path) -> str:
    """Where a file leaves UTF-8."""
    line = 1
    with decompressed(file) as opened:
        for raw in io.BufferedReader(opened):  # type: ignore[arg-type]
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as error:
                seen = raw[max(0, error.start - 12) : error.start + 6]
                return (
                    f"{file} is not UTF-8 throughout: byte {raw[error.start]:#04x} in line {line}, near {seen!r}; if "
                    "all of it is Latin-1, write it as UTF-8 with iconv -f LATIN1 -t UTF-8; if encodings are mixed, "
                    "correct that line"
                )
            line += 1
    return f"{file} cannot be read as UTF-8"


def _identity(file: Path) -> tuple[Any, ...]:
    """Path and hash of the content, since size and time stay the same where a tool restores them."""
    with open(file, "rb") as opened:
        return (str(file.resolve()), hashlib.file_digest(opened, "sha256").hexdigest())


class CsvSource(Source):
    """All cells stay strings; `datamodules.tables.cells` reads them."""

    def __init__(self, file: Path, delimiter: str) -> None:
        if len(delimiter) != 1:
            raise ValueError(f"delimiter is {delimiter!r}; expected one character, such as ',' or ';'")
        self.path, self.file, self.delimiter = str(file), file, delimiter
        self.identity = (*_identity(file), delimiter)
        with decompressed(file) as stream:
            raw = bytes(stream.read(1 << 16))
        line = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")[0].decode("utf-8", "replace").rstrip("\r")
        others = [mark for mark in ";\t|," if mark != delimiter and line.count(mark) > line.count(delimiter)]
        if others and delimiter not in line:
            raise ValueError(
                f"{file} has no {delimiter!r} in its first line, but {others[0]!r}: {line[:80]!r}; give "
                f"delimiter: {others[0]!r}"
            )
        with self._reader(None) as reader:
            self.columns = reader.schema.names

    @contextmanager
    def _reader(self, names: Sequence[str] | None) -> Iterator[Any]:
        try:
            with decompressed(self.file) as stream:
                yield pa.csv.open_csv(
                    stream,
                    read_options=pa.csv.ReadOptions(block_size=BLOCK, use_threads=False),
                    parse_options=pa.csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
                    convert_options=pa.csv.ConvertOptions(
                        include_columns=list(names) if names else None,
                        column_types={name: pa.string() for name in names or ()},
                        strings_can_be_null=False,
                    ),
                )
        except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError) as error:
            raise ValueError(self._explain(str(error))) from None

    def chunks(self, names: Sequence[str]) -> Iterator[dict[str, pa.Array]]:
        with self._reader(names) as reader:
            for batch in reader:
                for start in range(0, len(batch), ROWS):
                    part = batch.slice(start, ROWS)
                    yield {name: part.column(name) for name in names}

    def _explain(self, error: str) -> str:
        if "UTF8" in error or "utf-8" in error:
            return _not_utf8(self.file)
        if "Empty CSV" in error or "cannot infer" in error:
            return f"{self.path} has no rows; {EXPECTED}"
        found = re.search(r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+)", error)
        if found:
            row = f"line {found[1]} of " if found[1] else "a line of "
            return (
                f"{row}{self.path} has {found[3]} cells, the first line names {found[2]} columns; put texts that hold "
                f"{self.delimiter!r} into quotes, and close every quote"
            )
        return f"{self.path} cannot be read as CSV: {error}; close every quote, and keep rows below {BLOCK >> 20} MB"


class JsonLinesSource(Source):
    """One object a line; names of columns are those of the first 100 lines."""

    def __init__(self, file: Path) -> None:
        self.path, self.file = str(file), file
        self.identity = _identity(file)
        found: dict[str, None] = {}
        for row, (_, line) in enumerate(self._lines()):
            if row == 100:
                break
            found |= dict.fromkeys(line)
        if not found:
            raise ValueError(f"{file} holds no rows; {EXPECTED}")
        self.columns = list(found)

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with decompressed(self.file) as stream:
            for number, raw in enumerate(io.BufferedReader(stream, BLOCK), start=1):
                try:
                    text = raw.decode("utf-8").strip().removeprefix("\ufeff")
                    line = json.loads(text) if text else None
                except UnicodeDecodeError:
                    raise ValueError(_not_utf8(self.file)) from None
                except (json.JSONDecodeError, RecursionError) as error:
                    hint = "; this looks like one JSON array: write one object a line" if text[:1] == "[" else ""
                    raise ValueError(
                        f"line {number} of {self.path} is no JSON object ({error}): {text[:60]!r}{hint}"
                    ) from None
                if line is None:
                    continue
                if not isinstance(line, dict):
                    raise ValueError(
                        f"line {number} of {self.path} is no JSON object: {text[:60]!r}; "
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
        if isinstance(cell, (int, float)):
            return repr(cell)
        raise ValueError(
            f"line {number} of {self.path} has {json.dumps(cell)[:60]} in {name!r}; expected one number, time or text"
        )


class ParquetSource(Source):
    """Row groups are read batch by batch."""

    def __init__(self, file: Path) -> None:
        self.path, self.file = str(file), file
        self.identity = _identity(file)
        with self._opened() as opened:
            self.columns = opened.schema_arrow.names

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with pa.parquet.ParquetFile(self.file, pre_buffer=False) as opened:
                yield opened
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path} cannot be read as Parquet: {error}; is it cut off?") from None

    def chunks(self, names: Sequence[str]) -> Iterator[dict[str, pa.Array]]:
        with self._opened() as opened:
            for batch in opened.iter_batches(ROWS, columns=list(names)):
                yield {name: batch.column(name) for name in names}


class HubSource(Source):
    """A data set through `datasets`: an id of the hub, a folder of files, or a folder of `save_to_disk`.

    No code of the data set runs.
    """

    def __init__(self, path: str, split: str, config: str | None, revision: str | None) -> None:
        import datasets

        self.path = path
        folder = Path(path)
        try:
            if (folder / "dataset_info.json").exists() or (folder / "dataset_dict.json").exists():
                found = datasets.load_from_disk(path)
            else:
                builder = datasets.load_dataset_builder(path, config, revision=revision)
                # Builders of other kinds (archives, pickles) may do more than read tables.
                kind = type(builder).__module__.split(".")[-1]
                if kind not in ("csv", "json", "parquet", "arrow"):
                    raise ValueError(
                        f"its files are read by {kind!r}, which is no table of CSV, JSON, Parquet or Arrow"
                    )
                builder.download_and_prepare()
                found = builder.as_dataset()
        except Exception as error:  # every kind of file has errors of its own
            what = "folder" if folder.is_dir() else "data set"
            raise ValueError(
                f"the {what} {path!r} cannot be loaded: {type(error).__name__}: {str(error)[:300]}; "
                f"{EXPECTED}; is the hub reachable?"
            ) from error
        if isinstance(found, dict):
            if split not in found:
                raise ValueError(
                    f"the data set {path!r} has no part {split!r}; give dataset_split: {', '.join(map(str, found))}"
                )
            found = found[split]
        self.data = found
        self.columns = list(found.column_names)
        self.identity = (path, split, config, revision, found._fingerprint, len(found))

    def chunks(self, names: Sequence[str]) -> Iterator[dict[str, pa.Array]]:
        for table in self.data.select_columns(list(names)).with_format("arrow").iter(ROWS):
            yield {name: table.column(name).combine_chunks() for name in names}
