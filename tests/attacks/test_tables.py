"""Tables and options of tables that are damaged or hostile: each is one paragraph, and what is valid is read."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from datamodules.dated_texts import meaning, read_csv
from datamodules.table_sequences import TableSequences
from datamodules.tables import raw
from datamodules.tables.cells import numbers
from datamodules.tables.grid import Grid
from datamodules.tables.history import read_history
from datamodules.tables.times import Times

pytestmark = pytest.mark.attack

DIGITS = "9" * 400
DAYS = [f"2024-01-{day:02}" for day in range(1, 31)] + [f"2024-02-{day:02}" for day in range(1, 30)]
OPTIONS = {"time_column": "date", "value_columns": ["price"], "context": 4, "horizon": 2}
TEXT = OPTIONS | {"text_column": "news"}


def rows(**changes: dict[int, str]) -> list[list[str]]:
    """59 good rows of date, price and news, with single cells changed: price={5: "x"} is the price of row 5, from 1."""
    columns = {"date": list(DAYS), "price": [str(20 + (7 * i) % 11) for i in range(59)], "news": ["rain"] * 59}
    for name, cells in changes.items():
        for row, cell in cells.items():
            columns[name][row - 1] = cell
    return [list(row) for row in zip(*columns.values(), strict=True)]


def csv(head: str = "date,price,news", **changes: dict[int, str]) -> bytes:
    return "\n".join([head, *map(",".join, rows(**changes)), ""]).encode()


def json_lines(**changes: dict[int, str]) -> bytes:
    lines = [f'{{"date": "{date}", "price": {price}, "news": "{news}"}}' for date, price, news in rows(**changes)]
    return "\n".join([*lines, ""]).encode()


def parquet(**changes: Any) -> bytes:
    columns = dict(zip(("date", "price", "news"), map(list, zip(*rows(), strict=True)), strict=True))
    table = pa.table({**columns, "price": [float(price) for price in columns["price"]], **changes})
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(table, sink, store_schema=False)
    return sink.getvalue().to_pybytes()


def wide(more: int) -> bytes:
    """The good CSV file with further columns."""
    head, *others = csv().splitlines()
    ends = [",".join(f"c{i}" for i in range(more)), *[",".join("1" * more)] * len(others)]
    return b"\n".join(line + b"," + end.encode() for line, end in zip([head, *others], ends, strict=True)) + b"\n"


def damaged(content: bytes, at: int, new: bytes) -> bytes:
    place = at % len(content)
    return content[:place] + new + content[place + len(new) :]


GOOD = parquet()
LONG = [None] * 59
# name: file, content, options, and what the message says
FILES: dict[str, tuple[str, bytes, dict[str, Any], str]] = {
    "csv: a million columns": (
        "t.csv", ",".join(f"c{i}" for i in range(1_000_000)).encode() + b"\n1\n", OPTIONS,
        "the first line .* is longer than 1 MB and has .* columns",
    ),
    "csv: a hundred thousand columns": (
        "t.csv", (",".join(map(str, range(100_000))) + "\n" + ",".join("1" * 100_000)).encode(), OPTIONS,
        "has 100,000 columns; expected at most 10,000",
    ),
    "csv: a first line without an end": ("t.csv", b"a" * 3_000_000, OPTIONS, "the first line .* is longer than 1 MB"),
    "csv: a name of 5,000 characters": ("t.csv", csv("date,price," + "n" * 5_000), OPTIONS, "a column with 5,000 char"),
    "csv: a quote that is never closed": (
        "t.csv", csv(news={40: '"rain'}), TEXT, "quote that is never closed: its last cell begins with 'rain",
    ),
    "csv: the head's quote is never closed": ("t.csv", csv('date,price,"news'), OPTIONS, "close every quote"),
    "csv: an open quote before 3 MB": (
        "t.csv", csv(news={3: '"' + "x" * 3_000_000}), TEXT, "keep rows below 1 MB",
    ),
    "csv: a row too short": ("t.csv", csv() + b"2024-03-01,3\n", OPTIONS, "has 2 cells, the first line names 3"),
    "csv: a row too long": ("t.csv", csv() + b"2024-03-01,3,a,b\n", OPTIONS, "has 4 cells, the first line names 3"),
    "csv: zero bytes": ("t.csv", csv(news={3: "\0"}), TEXT, "is a binary file"),
    "csv: a zero byte in a number, far behind": (
        "t.csv", csv(news={3: "x" * 70_000}, price={9: "1\0"}), TEXT, r"'price' holds '1\\x00' in row 9",
    ),
    "csv: Latin-1": ("t.csv", csv(news={7: "caf\xe9"}).replace(b"\xc3\xa9", b"\xe9"), TEXT, "byte 0xe9 in line 8"),
    "csv: UTF-16 with its mark": ("t.csv", csv().decode().encode("utf-16"), OPTIONS, "is in UTF-16"),
    "csv: UTF-16 without its mark": ("t.csv", csv().decode().encode("utf-16-le"), OPTIONS, "is a binary file"),
    "csv: UTF-32": ("t.csv", csv().decode().encode("utf-32"), OPTIONS, "is in UTF-16|is a binary file"),
    "csv: half an emoji": ("t.csv", csv(news={7: "#"}).replace(b"#", b"\xf0\x9f"), TEXT, "byte 0xf0 in line 8"),
    "csv: an integer of 400 digits": (
        "t.csv", csv(price={8: DIGITS}), OPTIONS, "'price' holds '9999.*' in row 8, more than a number can hold",
    ),
    "csv: an exponent of 999": ("t.csv", csv(price={8: "-1e999"}), OPTIONS, "holds '-1e999' in row 8, more than"),
    "csv: a number that searches for ever": (
        "t.csv", csv(price={8: "." * 50_000 + "1" + "." * 50_000 + "xxxxxxx"}), OPTIONS, "expected a number",
    ),
    "csv: a time of 400 digits": ("t.csv", csv(date={8: DIGITS}), OPTIONS, "in row 8; expected ISO 8601"),
    "csv: escape sequences in a number": (
        "t.csv", csv(price={8: "\x1b[31m5"}), OPTIONS, r"holds '\\x1b\[31m5' in row 8",
    ),
    "csv: packed and cut": ("t.csv.gz", gzip.compress(csv())[:-20], OPTIONS, "is it cut off"),
    "csv: packed and flipped": (
        "t.csv.gz", damaged(gzip.compress(csv()), 60, b"\0\0\0\0"), OPTIONS, "cannot be read.*cut off|UTF-8",
    ),
    "csv: one line of 300 MB, packed": (
        "t.csv.gz", gzip.compress(b"date,price\n" + b"1" * 300_000_000, 1), OPTIONS, "keep rows below 1 MB",
    ),
    "json: a line of 40 MB": (
        "t.jsonl", json_lines(news={3: "x" * 40_000_000}), TEXT, "line 3 of .* is longer than 16 MB",
    ),
    "json: a line of 300 MB, packed": (
        "t.jsonl.gz", gzip.compress(b"[" * 300_000_000, 1), TEXT, "line 1 of .* is longer than 16 MB",
    ),
    "json: 100,000 lists": ("t.jsonl", b'{"date": ' + b"[" * 100_000, OPTIONS, "nested too deeply"),
    "json: a million keys": (
        "t.jsonl", ("{" + ",".join(f'"c{i}":1' for i in range(1_000_000)) + "}").encode(), OPTIONS,
        "has 1,000,000 columns",
    ),
    "json: an integer of 400 digits": ("t.jsonl", json_lines(price={8: DIGITS}), OPTIONS, "in row 8, more than"),
    "json: an integer of 9,000 digits": (
        "t.jsonl", json_lines(price={8: "9" * 9_000}), OPTIONS, "in row 8, more than a number",
    ),
    "json: an exponent of 999": ("t.jsonl", json_lines(price={8: "1e999"}), OPTIONS, "'1e999' in row 8, more than"),
    "json: a key twice": (
        "t.jsonl", b'{"date": "2024-01-01", "price": 1, "price": 2}\n', OPTIONS, "line 1 .* 'price' comes twice",
    ),
    "json: a list in a cell": ("t.jsonl", json_lines(price={8: "[1]"}), OPTIONS, "line 8 .* in 'price'; expected one"),
    "json: a mapping in a cell": ("t.jsonl", json_lines(price={8: '{"a": {}}'}), OPTIONS, "line 8 .* in 'price'"),
    "json: not UTF-8": ("t.jsonl", json_lines(news={7: "#"}).replace(b"#", b"\xff"), TEXT, "byte 0xff in line 7"),
    "json: half a surrogate pair": ("t.jsonl", json_lines(news={7: "\\ud800"}), TEXT, "half of a surrogate pair"),
    "json: a bare number": ("t.jsonl", b"7\n", OPTIONS, "is no JSON object"),
    "json: a word that is none": ("t.jsonl", json_lines(price={8: "nil"}), OPTIONS, "line 8 of .* is no JSON object"),
    "json: a line that is cut": ("t.jsonl", json_lines()[:-9], OPTIONS, "line 59 of .* is no JSON object"),
    "parquet: cut": ("t.parquet", GOOD[:-30], OPTIONS, "cannot be read as Parquet"),
    "parquet: only its mark": ("t.parquet", b"PAR1", OPTIONS, "cannot be read as Parquet"),
    "parquet: a footer of 2 GB": (
        "t.parquet", damaged(GOOD, -8, b"\xff\xff\xff\x7f"), OPTIONS, "cannot be read as Parquet",
    ),
    "parquet: a footer of noise": ("t.parquet", damaged(GOOD, -200, b"\xff" * 150), OPTIONS, "cannot be read"),
    "parquet: data of noise": ("t.parquet", damaged(GOOD, 4, b"\xff" * 60), OPTIONS, "cannot be read as Parquet"),
    "parquet: lists as values": ("t.parquet", parquet(price=[[1.0]] * 59), OPTIONS, "'price' holds list"),
    "parquet: structures as values": ("t.parquet", parquet(price=[{"a": 1.0}] * 59), OPTIONS, "'price' holds struct"),
    "parquet: bytes as values": ("t.parquet", parquet(price=[b"\xff"] * 59), OPTIONS, "'price' holds .*binary"),
    "parquet: bytes as times": ("t.parquet", parquet(date=[b"\xff"] * 59), OPTIONS, "'date' holds .*binary"),
    "parquet: times as values": (
        "t.parquet", parquet(price=pa.array(range(59), pa.timestamp("s"))), OPTIONS, "'price' holds times",
    ),
    "parquet: a time beyond what a clock counts": (
        "t.parquet", parquet(date=pa.array([2**62] * 59, pa.timestamp("ms"))), OPTIONS, "between 1700-01-01",
    ),
    "parquet: a hundred thousand columns": (
        "t.parquet", parquet(**{f"c{i}": LONG for i in range(10_001)}), OPTIONS, "has 10,004 columns",
    ),
    "parquet: 30 GB of one text in 20 KB": (
        "t.parquet",
        parquet(
            **{
                name: pa.DictionaryArray.from_arrays(np.zeros(3_000, np.int32), [cell])
                for name, cell in {"date": "2024-01-01", "news": "x" * 10_000_000}.items()
            },
            price=np.arange(3_000.0),
        ),
        {"value_columns": ["price"], "series_column": "news"}, "'news' has texts of 10,000,000 bytes",
    ),
    "an unknown packing": ("t.csv.bz2", b"BZh9", OPTIONS, "ends in '.bz2'"),
}  # fmt: skip


def refused(make: Callable[[], Any], message: str) -> None:
    """It is refused in one paragraph with nothing that commands a terminal."""
    with pytest.raises(ValueError, match=message) as told:
        make()
    assert len(str(told.value)) < 900 and "Traceback" not in str(told.value)
    assert "\x1b" not in str(told.value) and "\n\n" not in str(told.value)


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_refused(case: str, tmp_path: Path) -> None:
    name, content, options, message = FILES[case]
    (tmp_path / name).write_bytes(content)
    refused(lambda: TableSequences(str(tmp_path / name), **options).setup(), message)


OPTIONS_OF: dict[str, tuple[dict[str, Any], str]] = {
    "time_format: a directive twice": ({"time_format": "%d/%m/%d"}, "time_format is '%d/%m/%d', .* comes twice"),
    "time_format: an unknown directive": ({"time_format": "%Q"}, "time_format is '%Q'.*bad directive"),
    "time_format: a stray percent": ({"time_format": "%Y-%"}, "time_format is '%Y-%'.*stray"),
    "time_format: no directive": ({"time_format": "mixed"}, "it has no directive"),
    "time_format: a parenthesis": ({"time_format": "("}, "it has no directive"),
    "time_format: a million characters": ({"time_format": "%Y" + "-" * 1_000_000}, "no format of times"),
    "step: 400 digits": ({"step": f"{DIGITS}h"}, "step is '9999.*from a millisecond to a century"),
    "step: 400 digits of months": ({"step": f"{DIGITS}M"}, "step is '9999"),
    "step: nothing": ({"step": "0D"}, "step is '0D'"),
    "step: less than nothing": ({"step": "-1D"}, "step is '-1D'"),
    "step: half a month": ({"step": "0.5M"}, "step is '0.5M'"),
    "step: next to nothing": ({"step": "0.0000001ms"}, "step is '0.0000001ms'"),
    "step: a thousand years": ({"step": "1000Y"}, "step is '1000Y'"),
    "step: not a number": ({"step": "nanD"}, "step is 'nanD'"),
    "step: an exponent": ({"step": "1e9D"}, "step is '1e9D'"),
    "step: a unit of a million letters": ({"step": "1" + "D" * 1_000_000}, "step is '1DDD"),
    "delimiter: a quote": ({"delimiter": '"'}, "delimiter is '\"'; expected one character"),
    "delimiter: a line break": ({"delimiter": "\n"}, "expected one character"),
    "delimiter: beyond ASCII": ({"delimiter": "é"}, "expected one character"),
    "missing: words, no list": ({"missing": "-9999"}, "missing is '-9999'; expected null or a list"),
    "time_unit: escape sequences": ({"time_unit": "\x1b]0;x\x07"}, r"time_unit is '\\x1b"),
    "split_dates: 400 digits": ({"split_dates": (DIGITS, DIGITS)}, "split_dates is '999"),
    "predict_from: a time of a million letters": ({"predict_from": "x" * 1_000_000}, "predict_from is 'xxx"),
    "value_columns: a column of escape sequences": ({"value_columns": ["\x1b[2J"]}, r"value_columns is '\\x1b\[2J'"),
}


@pytest.mark.parametrize("case", OPTIONS_OF)
def test_options_that_are_refused(case: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(csv())
    options, message = OPTIONS_OF[case]

    def make() -> None:
        data = TableSequences(str(tmp_path / "t.csv"), **(OPTIONS | options))
        data.setup()
        assert data.predict_records

    refused(make, message)


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a loop of links", "a name too long", "a zero byte"])
def test_paths_that_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path = Path("/dev/zero")
    elif kind == "a loop of links":
        path.symlink_to(path)
    elif kind == "a name too long":
        path = tmp_path / ("x" * 5_000)
    else:
        path = tmp_path / "x\0.csv"
    refused(
        lambda: TableSequences(str(path), **OPTIONS), "a pipe, a socket or a device|there is no file|cannot be read"
    )


def test_a_folder_without_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.bin").write_bytes(b"\0")
    refused(lambda: TableSequences(str(tmp_path), **OPTIONS), "cannot be loaded|has no part")


def test_a_history_of_too_many_steps_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time,price\n0,1\n1,2\n9000000000000,3\n")
    refused(lambda: read_history(tmp_path / "t.csv", ["price"], 2, time_unit="step"), "spans 9,000,000,000,001 steps")


@pytest.mark.parametrize("step", ["1e300", "9007199254740994", "-1e17"])
def test_steps_that_a_float_cannot_count_are_refused(step: str) -> None:
    refused(lambda: Times("n", "step").parse(pa.array(["0", step]), 1), "in row 2; expected a step below")


@pytest.mark.parametrize("text", ["here is the " * 20_000, "*" * 200_000, "NA;" * 50_000, "Facts " * 20_000])
def test_texts_that_search_for_ever_are_read(text: str) -> None:
    assert meaning(text) is None or len(str(meaning(text))) <= len(text)


@pytest.mark.parametrize("content", [b"", b'a,b\n1,"2\n', b"a,b\n1,2\n1,2,3\n", b"\xff\xfe\0", b"a\n\xff\n"])
def test_tables_of_dated_texts_that_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    refused(lambda: read_csv(tmp_path / "t.csv"), "cannot be read as a UTF-8 CSV table")


VALID: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "csv": ("t.csv", csv(), TEXT),
    "csv with a byte order mark": ("t.csv", b"\xef\xbb\xbf" + csv(), TEXT),
    "csv with breaks of Windows": ("t.csv", csv().replace(b"\n", b"\r\n"), TEXT),
    "csv with lines in a cell": ("t.csv", csv(news={59: '"rain\nand wind"'}), TEXT),
    "csv with a quote inside a cell": ("t.csv", csv(news={59: 'a 5" pipe'}), TEXT),
    "csv with lines in its last cell and a quote inside another": (
        "t.csv", csv(news={3: 'a 5" pipe', 59: '"rain\nand wind"'}), TEXT,
    ),
    "csv with infinity as a missing value": ("t.csv", csv(price={8: "inf", 9: "-Infinity"}), TEXT),
    "csv with 9,000 columns": ("t.csv", wide(9_000), TEXT),
    "csv, packed": ("t.csv.gz", gzip.compress(csv()), TEXT),
    "csv, packed in two parts": ("t.csv.gz", gzip.compress(csv()[:99]) + gzip.compress(csv()[99:]), TEXT),
    "json": ("t.jsonl", json_lines(), TEXT),
    "json with NaN and Infinity": ("t.jsonl", json_lines(price={8: "NaN", 9: "Infinity", 10: "null"}), TEXT),
    "json with a byte order mark": ("t.jsonl", b"\xef\xbb\xbf" + json_lines(), TEXT),
    "parquet": ("t.parquet", GOOD, TEXT),
    "parquet of decimals": (
        "t.parquet", parquet(price=pa.array([Decimal(i % 7) for i in range(59)], pa.decimal128(9, 2))), TEXT,
    ),
    "parquet of dates": (
        "t.parquet", parquet(date=pa.array(range(19_000, 19_059), pa.int32()).cast(pa.date32())), TEXT,
    ),
    "parquet of nanoseconds": (
        "t.parquet", parquet(date=pa.array([86_400 * 10**9 * i for i in range(59)], pa.timestamp("ns"))), TEXT,
    ),
    "parquet with a nested column beside": ("t.parquet", parquet(more=[{"a": [1]}] * 59), TEXT),
}  # fmt: skip


@pytest.mark.parametrize("case", VALID)
def test_what_is_valid_is_read(case: str, tmp_path: Path) -> None:
    name, content, options = VALID[case]
    (tmp_path / name).write_bytes(content)
    data = TableSequences(str(tmp_path / name), **options)
    data.setup()
    assert len(data.train_records) and data.value_names == ("price",) and data.has_text


def test_times_of_every_unit_are_the_same_hours() -> None:
    seconds = np.array([0, 1_700_000_000, -3_600, 10_000_000_001 // 7])
    hours = [
        Times("t").parse(pa.array(seconds * scale, pa.timestamp(unit)), 1)
        for unit, scale in (("s", 1), ("ms", 1_000), ("us", 10**6), ("ns", 10**9))
    ]
    assert all((one == hours[0]).all() for one in hours) and (hours[0] == seconds / 3600).all()


def test_texts_that_come_in_each_row_are_cut_before_they_fill_the_memory(tmp_path: Path) -> None:
    news = pa.DictionaryArray.from_arrays(np.zeros(59, np.int32), ["x" * 30_000_000])
    (tmp_path / "t.parquet").write_bytes(parquet(news=news))
    data = TableSequences(str(tmp_path / "t.parquet"), **TEXT)
    data.setup()
    assert data.texts() == ["x" * 2000]


def test_many_series_with_hostile_names_are_read(tmp_path: Path) -> None:
    names = ["..", "../../etc/passwd", "x" * 300, "\x1b[2J", "a\tb", "=1+1", "\u202egnp.exe", *map(str, range(4_000))]
    lines = [f'2024-01-{day:02},"{name}",{day + len(name) % 5}' for name in names[:7] for day in range(1, 31)]
    lines += [f"2024-01-0{day},{name},{day}" for name in names[7:] for day in (1, 2)]
    (tmp_path / "t.csv").write_text("\n".join(["date,id,price", *lines, ""]), encoding="utf-8")
    options = OPTIONS | {"series_column": "id", "split_dates": ("2024-01-20", "2024-01-25")}
    data = TableSequences(str(tmp_path / "t.csv"), **options)
    with pytest.warns(UserWarning, match="only predicted, with .*: '0', '1', '2', '3', '4' and 3,995 more$"):
        data.setup("fit")
    assert {record.series for record in data.windows("train")} == set(names[:7])


def test_lines_are_bounded_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "LONGEST_LINE", 100)
    (tmp_path / "t").write_bytes(b"a" * 100 + b"\n" + b"b" * 99 + b"\n")
    with pytest.raises(ValueError, match="line 1"):
        list(raw.lines_of(tmp_path / "t"))
    (tmp_path / "t").write_bytes(b"a" * 99 + b"\n" + b"b" * 99 + b"\n")
    assert len(list(raw.lines_of(tmp_path / "t"))) == 2


def test_infinity_is_only_what_is_written_as_such() -> None:
    assert np.isinf(numbers(pa.array(["inf", "-Infinity", "+INF"]), "v", 1)).all()
    refused(lambda: numbers(pa.array(["1", "1e400"]), "v", 1), "'1e400' in row 2")


def test_steps_at_the_bounds_are_kept() -> None:
    assert Grid.of("1ms").hours == 1 / 3.6e6 and Grid.of("100Y").months == 1200
