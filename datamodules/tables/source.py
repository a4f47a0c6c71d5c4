"""Tables as CSV, JSON Lines, Parquet or data sets of the hub, read in chunks so that any size fits in memory."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from datamodules.tables.raw import BLOCK, QuoteCounter, decompressed, not_utf8
from gssr.shown import quoted

ROWS = 20_000  # of a chunk
MOST_COLUMNS, LONGEST_NAME = 10_000, 1_000
LARGEST_PART, MOST_PACKED = 1 << 30, 1_000  # bytes of a column in a row group, and how far it may be compressed
TURNED = "is each column a time? write a row a step and a column a value"
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
            first = ", ".join(map(quoted, self.columns[:20])) + (", ..." if len(self.columns) > 20 else "")
            raise ValueError(
                f"{option} is {quoted(name)}, but {self.path} has no such column; "
                + (f"did you mean {quoted(near[0])}? " if near else "")
                + f"It has {first}; the first line of a CSV file must name its columns"
            )
        if self.columns.count(name) > 1:
            raise ValueError(
                f"{self.path} has {self.columns.count(name)} columns {quoted(name)}; give each a name of its own"
            )
        return name


def check_columns(path: str, names: Sequence[str]) -> list[str]:
    """The names of a table's columns. Raises ValueError for more of them, or longer ones, than any table has."""
    if len(names) > MOST_COLUMNS:
        raise ValueError(f"{path} has {len(names):,} columns; expected at most {MOST_COLUMNS:,}; {TURNED}")
    if long := [name for name in names if len(name) > LONGEST_NAME]:
        raise ValueError(
            f"{path} names a column with {len(long[0]):,} characters, {quoted(long[0])}; expected at most "
            f"{LONGEST_NAME:,}; the first line of a CSV file must name its columns, and close every quote"
        )
    return list(names)


def identity_of(file: Path) -> tuple[Any, ...]:
    """Path and hash of the content, since size and time stay the same where a tool restores them."""
    with open(file, "rb") as opened:
        return (str(file.resolve()), hashlib.file_digest(opened, "sha256").hexdigest())


class CsvSource(Source):
    """All cells stay strings; `datamodules.tables.cells` reads them."""

    def __init__(self, file: Path, delimiter: str) -> None:
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
            raise ValueError(f"delimiter is {quoted(delimiter)}; expected one character, such as ',' or ';'")
        self.path, self.file, self.delimiter = str(file), file, delimiter
        self.identity = (*identity_of(file), delimiter)
        with decompressed(file) as stream:
            raw = bytes(stream.read(BLOCK))
        first = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")[0]
        if len(raw) == BLOCK and len(first) + 4 > BLOCK:
            raise ValueError(
                f"the first line of {file} is longer than {BLOCK >> 20} MB and has {first.count(delimiter.encode()):,} "
                f"times {delimiter!r}; expected the names of at most {MOST_COLUMNS:,} columns; {TURNED}"
            )
        line = first.decode("utf-8", "replace").rstrip("\r")
        others = [mark for mark in ";\t|," if mark != delimiter and line.count(mark) > line.count(delimiter)]
        if others and delimiter not in line:
            raise ValueError(
                f"{file} has no {delimiter!r} in its first line, but {others[0]!r}: {line[:80]!r}; give "
                f"delimiter: {others[0]!r}"
            )
        with self._reader(None) as reader:
            self.columns = check_columns(self.path, reader.schema.names)

    def _csv(self, stream: Any, names: Sequence[str] | None) -> Any:
        return pa.csv.open_csv(
            stream,
            read_options=pa.csv.ReadOptions(block_size=BLOCK, use_threads=False),
            parse_options=pa.csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                include_columns=list(names) if names else None,
                column_types={name: pa.string() for name in names or ()},
                strings_can_be_null=False,
            ),
        )

    @contextmanager
    def _reader(self, names: Sequence[str] | None) -> Iterator[Any]:
        try:
            with decompressed(self.file) as stream:
                counted = QuoteCounter(stream)
                yield self._csv(counted, names)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise ValueError(self._explain(str(error))) from None
        if names and counted.quotes % 2 and not counted.tail.rstrip().endswith(b'"'):
            self._check_last_cell()

    def _check_last_cell(self) -> None:
        """Raises ValueError where the last cell goes on over lines: its quote is never closed, so it swallowed rows.

        It is called where the number of quotes is odd; inside of a cell without quotes, a quote is a character.
        """
        last = ""
        with decompressed(self.file) as stream:
            for batch in self._csv(stream, [self.columns[-1]]):
                last = batch.column(0)[-1].as_py() if len(batch) else last
        if "\n" in last:
            raise ValueError(
                f"{self.path} has a quote that is never closed: its last cell begins with {quoted(last)} and goes on "
                f"over {last.count(chr(10)):,} lines; close every quote"
            )

    def chunks(self, names: Sequence[str]) -> Iterator[dict[str, pa.Array]]:
        with self._reader(names) as reader:
            for batch in reader:
                for start in range(0, len(batch), ROWS):
                    part = batch.slice(start, ROWS)
                    yield {name: part.column(name) for name in names}

    def _explain(self, error: str) -> str:
        if "UTF8" in error or "utf-8" in error:
            return not_utf8(self.file)
        if "Empty CSV" in error or "cannot infer" in error:
            return f"{self.path} has no rows behind its first line (close every quote); {EXPECTED}"
        found = re.search(r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+)", error)
        if found:
            row = f"line {found[1]} of " if found[1] else "a line of "
            return (
                f"{row}{self.path} has {found[3]} cells, the first line names {found[2]} columns; put texts that hold "
                f"{self.delimiter!r} into quotes, close every quote, and end no line with {self.delimiter!r}"
            )
        return f"{self.path} cannot be read as CSV: {error}; close every quote, and keep rows below {BLOCK >> 20} MB"


class ParquetSource(Source):
    """Row groups are read batch by batch."""

    def __init__(self, file: Path) -> None:
        self.path, self.file = str(file), file
        self.identity = identity_of(file)
        with self._opened() as opened:
            self.columns = check_columns(self.path, opened.schema_arrow.names)
            self.texts = {item.name for item in opened.schema_arrow if item.type in (pa.string(), pa.large_string())}

    @contextmanager
    def _opened(self, texts: Sequence[str] = ()) -> Iterator[Any]:
        # As a dictionary, a long text that comes in each row takes the memory of one.
        try:
            with pa.parquet.ParquetFile(self.file, pre_buffer=False, read_dictionary=list(texts)) as opened:
                yield opened
        except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path} cannot be read as Parquet: {error}; is it cut off?") from None

    def chunks(self, names: Sequence[str]) -> Iterator[dict[str, pa.Array]]:
        with self._opened([name for name in names if name in self.texts]) as opened:
            self._check_sizes(opened.metadata, set(names))
            for batch in opened.iter_batches(ROWS, columns=list(names)):
                yield {name: batch.column(name) for name in names}

    def _check_sizes(self, about: Any, names: set[str]) -> None:
        """Raises ValueError for a column that is packed so tightly that it is made to fill the memory."""
        for group in range(about.num_row_groups):
            for place in range(about.num_columns):
                part = about.row_group(group).column(place)
                size = part.total_uncompressed_size
                packed = size > LARGEST_PART and size > MOST_PACKED * max(1, part.total_compressed_size)
                if packed and part.path_in_schema in names:
                    raise ValueError(
                        f"{self.path} holds {part.total_compressed_size:,} bytes of {quoted(part.path_in_schema)} in "
                        f"row group {group} that unpack to {size:,}; write the table anew with smaller row groups"
                    )


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
