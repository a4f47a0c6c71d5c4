"""The bytes of a table's file: decompressed, line by line, within bounds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

BLOCK = 1 << 20  # bytes: the longest row of a CSV file, and what is read at a time
LONGEST_LINE = 1 << 24  # bytes, of JSON Lines


@contextmanager
def decompressed(file: Path) -> Iterator[Any]:
    """The bytes of a file, unpacked where its name ends in .gz. Raises ValueError where it cannot be read."""
    try:
        with pa.input_stream(str(file), compression="gzip" if file.suffix == ".gz" else None) as stream:
            yield stream
    except (OSError, MemoryError) as error:
        raise ValueError(f"{file} cannot be read: {error}; is it cut off?") from error


def lines_of(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, from 1. Raises ValueError for one that is too long to be a row."""
    with decompressed(file) as stream:
        buffered = io.BufferedReader(stream, BLOCK)
        for number, raw in enumerate(iter(lambda: buffered.readline(LONGEST_LINE + 1), b""), start=1):
            if len(raw) > LONGEST_LINE:
                raise ValueError(
                    f"line {number} of {file} is longer than {LONGEST_LINE >> 20} MB; write one row a line, and keep "
                    "long texts elsewhere"
                )
            yield number, raw


def not_utf8(file: Path) -> str:
    """Where a file leaves UTF-8."""
    for number, raw in lines_of(file):
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            seen = raw[max(0, error.start - 12) : error.start + 6]
            return (
                f"{file} is not UTF-8 throughout: byte {raw[error.start]:#04x} in line {number}, near {seen!r}; if "
                "all of it is Latin-1, write it as UTF-8 with iconv -f LATIN1 -t UTF-8; if encodings are mixed, "
                "correct that line"
            )
    return f"{file} cannot be read as UTF-8"


class QuoteCounter(io.RawIOBase):
    """Passes the bytes of a stream on and counts its quotes: an odd number may mean one that is never closed."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.stream, self.quotes, self.tail = stream, 0, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        raw: bytes = self.stream.read(size)
        self.quotes += raw.count(b'"')
        self.tail = raw[-8:] or self.tail
        return raw
