"""Open a table by its path; errors name the format of a file that is no table."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from datamodules.tables.json_lines import JsonLinesSource
from datamodules.tables.raw import decompressed
from datamodules.tables.source import (
    EXPECTED,
    CsvSource,
    HubSource,
    ParquetSource,
    Source,
)
from gssr.shown import quoted

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_SIGNATURES = {
    b"PK\x03\x04": "an Excel or ZIP file; export the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel file; export the sheet as CSV",
    b"PAR1": "a Parquet file; give it the ending .parquet",
    b"ARROW1": "an Arrow file; write it as Parquet",
    b"SQLite": "an SQLite database; export the table as CSV",
    b"\x1f\x8b": "compressed by gzip; give it the ending .gz",
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def open_table(
    path: str,
    delimiter: str | None = None,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
) -> Source:
    """The table at a path (or hub id). `delimiter` of CSV; `split`, `config`, `revision` of a data set of the hub.

    Raises ValueError for a file that is no table.
    """
    if not path.strip():
        raise ValueError(f"the path is empty; {EXPECTED}")
    file = Path(path).expanduser()
    try:
        if file.is_file():
            return _open_file(file, delimiter)
        if file.is_dir():
            return HubSource(str(file), split, config, revision)
        if file.exists():
            raise ValueError(
                f"{path} is no regular file but a pipe, a socket or a device; copy what it holds to a file"
            )
    except OSError as error:
        raise ValueError(f"{quoted(path)} cannot be read: {error.strerror or error}") from error
    name = file.name.removesuffix(".gz")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", path) and Path(name).suffix not in FORMATS and not file.parent.is_dir():
        return HubSource(path, split, config, revision)
    near = difflib.get_close_matches(file.name, os.listdir(file.parent), n=1) if file.parent.is_dir() else []
    hint = f"; did you mean {str(file.parent / near[0])!r}?" if near else ""
    raise ValueError(f"there is no file {quoted(path)}{hint}; {EXPECTED}")


def _open_file(file: Path, delimiter: str | None) -> Source:
    if file.stat().st_size == 0:
        raise ValueError(f"{file} is empty (0 bytes); {EXPECTED}")
    kind = FORMATS.get(Path(file.name.removesuffix(".gz")).suffix.lower())
    with open(file, "rb") as opened:
        head = opened.read(8)
    if kind is None:
        hint = next((f"; it is {advice}" for mark, advice in _SIGNATURES.items() if head.startswith(mark)), "")
        raise ValueError(f"{file} ends in {file.suffix or 'nothing'!r}{hint}; {EXPECTED}")
    if kind == "parquet":
        if not head.startswith(b"PAR1"):
            raise ValueError(
                f"{file} is no Parquet file (it begins with {head[:4]!r}); give it the ending of what it is: "
                ".csv or .jsonl"
            )
        return ParquetSource(file)
    if file.suffix != ".gz" or not head.startswith(b"\x1f\x8b"):
        for mark, advice in _SIGNATURES.items():
            if head.startswith(mark):
                raise ValueError(f"{file} is {advice}")
        if file.suffix == ".gz":
            raise ValueError(f"{file} is not compressed by gzip; leave .gz out of its name")
    _check_text(file)
    if kind == "csv":
        return CsvSource(file, delimiter or ("\t" if ".tsv" in file.suffixes else ","))
    return JsonLinesSource(file)


def _check_text(file: Path) -> None:
    with decompressed(file) as opened:
        head = opened.read(1 << 16)
    if head.startswith(_UTF16):
        raise ValueError(
            f"{file} is in UTF-16; write it as UTF-8: iconv -f UTF-16 -t UTF-8 {file.name} > utf8-{file.name}"
        )
    if b"\0" in head:
        raise ValueError(f"{file} is a binary file (it holds zero bytes at {head.index(0)}); {EXPECTED}")
    if not head.strip():
        raise ValueError(f"{file} holds nothing but blanks; {EXPECTED}")
