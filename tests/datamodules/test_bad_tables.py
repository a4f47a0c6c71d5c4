"""Tables and options that cannot be used, each told apart: what was given, what was expected, what to do."""

import gzip
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from datamodules.table_sequences import TableSequences

DAYS = [f"{day:%Y-%m-%d}" for day in pd.date_range("2024-01-01", periods=60)]
PRICES = [str(20 + (7 * i) % 11) for i in range(60)]
NEWS = ["rain is expected" if i % 2 else "nothing new" for i in range(60)]
NAMED = {"time_column": "date", "value_columns": ["price"], "context": 4, "horizon": 2}
TEXT = NAMED | {"text_column": "news"}


def lines(head: str = "date,price,news", **changes: dict[int, str]) -> str:
    """A good table of 60 days, with single cells changed: price={5: "x"} is the price of row 5, from 1."""
    columns = {"date": list(DAYS), "price": list(PRICES), "news": list(NEWS)}
    for name, cells in changes.items():
        for row, cell in cells.items():
            columns[name][row - 1] = cell
    return "\n".join([head, *(",".join(row) for row in zip(*columns.values(), strict=True))]) + "\n"


def everywhere(cell: str) -> dict[int, str]:
    return dict.fromkeys(range(1, 61), cell)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


# name: file's name, its content, options, and what the message must say
CASES: dict[str, tuple[str, str | bytes, dict[str, Any], str]] = {
    # the file
    "an empty file": ("t.csv", "", NAMED, r"is empty \(0 bytes\)"),
    "nothing but blanks": ("t.csv", " \n\n", NAMED, "holds nothing but blanks"),
    "a head without rows": ("t.csv", "date,price\n", NAMED, "has no rows"),
    "a binary file": ("t.csv", b"date,price\n\x00\x01\x02", NAMED, "is a binary file .*zero bytes at 11"),
    "an Excel file called csv": ("t.csv", b"PK\x03\x04....", NAMED, "Excel or ZIP file; export the sheet as CSV"),
    "a Parquet file called csv": ("t.csv", b"PAR1....", NAMED, "Parquet file; give it the ending .parquet"),
    "a CSV file called parquet": ("t.parquet", lines(), NAMED, "is no Parquet file"),
    "half a Parquet file": ("t.parquet", b"PAR1abcdefgh", NAMED, "cannot be read as Parquet.*cut off"),
    "a wrong ending": ("t.xlsx", b"PK\x03\x04", NAMED, "ends in '.xlsx'; it is an Excel.*expected a .csv"),
    "no ending": ("table", lines(), NAMED, "ends in 'nothing'"),
    "gz in name only": ("t.csv.gz", lines(), NAMED, "is not compressed by gzip"),
    "half a gzip file": ("t.csv.gz", gzip.compress(lines().encode())[:90], NAMED, "is it cut off"),
    "UTF-16": ("t.csv", lines().encode("utf-16"), NAMED, "is in UTF-16; write it as UTF-8"),
    "mixed encodings": (
        "t.csv", lines(news={7: "caf€"}).replace("€", "\ue000").encode().replace("\ue000".encode(), b"\xe9"), TEXT,
        "not UTF-8 throughout: byte 0xe9 in line 8",
    ),
    "a row too long": ("t.csv", lines(news={9: "rain, wind"}), TEXT, "line 10 of .* has 4 cells, .* names 3 columns"),
    "semicolons": ("t.csv", lines().replace(",", ";"), NAMED, "give delimiter: ';'"),
    "a JSON array": ("t.jsonl", '[{"date": 1}]', NAMED, "is no JSON object.*expected one such as"),
    "half a JSON line": (
        "t.jsonl", '{"date": "2024-01-01", "price": 1}\n{"date"', NAMED, "line 2 of .* is no JSON object",
    ),
    "a list in a cell": (
        "t.jsonl", '{"date": "2024-01-01", "price": [1, 2]}', NAMED, r"line 1 .* has \['1', '2'\] in 'price'",
    ),
    "half a surrogate": (
        "t.jsonl", '{"date": "2024-01-01", "price": 1, "news": "\\ud800"}', TEXT, "half of a surrogate pair",
    ),
    # columns
    "a misspelt column": (
        "t.csv", lines(), NAMED | {"value_columns": ["prise"]}, "value_columns is 'prise'.*did you mean 'price'",
    ),
    "a column in other case": (
        "t.csv", lines(), NAMED | {"time_column": "Date"}, "time_column is 'Date'.*did you mean 'date'",
    ),
    "a missing column": (
        "t.csv", lines(), NAMED | {"text_column": "zzz"}, "text_column is 'zzz'.*It has 'date', 'price', 'news'",
    ),
    "no head": ("t.csv", "\n".join(lines().split("\n")[1:]), NAMED, "first line of a CSV file must name its columns"),
    "two columns of one name": (
        "t.csv", lines("price,price,news"), {"value_columns": ["price"]}, "has 2 columns 'price'",
    ),
    "one column as two": ("t.csv", lines(), NAMED | {"text_column": "price"}, "are both 'price'"),
    "no column of numbers": (
        "t.csv", lines(), {"time_column": "date", "text_column": "price"}, "has no column of numbers",
    ),
    "no value at all": ("t.csv", lines(), NAMED | {"value_columns": []}, r"value_columns is \[\];"),
    "bounds without goals": ("t.csv", lines(), {"goal_low_column": "price"}, "need a goal_column"),
    # times
    "an unparsable time": ("t.csv", lines(date={12: "yesterday"}), NAMED, "'yesterday' in row 12; expected ISO 8601"),
    "a day that is not": ("t.csv", lines(date={12: "2024-02-31"}), NAMED, "'2024-02-31' in row 12"),
    "times of another form": ("t.csv", lines(date={1: "31/12/2023"}), NAMED, "give time_format, such as %d/%m/%Y"),
    "an empty time": ("t.csv", lines(date={12: ""}), NAMED, "'date' is empty in row 12; each row needs a time"),
    "a doubled time": (
        "t.csv", lines(date={12: DAYS[10]}), NAMED | {"same_time": "refuse"},
        r"row 12 \(2024-01-11\) has the same time.*merge such rows, or give same_time: last or mean",
    ),
    "a doubled time among unsorted rows": (
        "t.csv", lines(date={12: DAYS[5]}), NAMED | {"same_time": "refuse", "sort_rows": True},
        "1 of 60 rows of .*t.csv have the same time as another row, such as 2024-01-06; merge such rows",
    ),
    "many doubled times": (
        "t.csv", lines(date={i: DAYS[i - 2] for i in range(2, 16, 2)}), NAMED,
        "7 of 60 rows of .* if the table holds several series, name their column with series_column; else give",
    ),
    "unsorted times": (
        "t.csv", lines(date={12: DAYS[2]}), NAMED, r"row 12 \(2024-01-03\) comes after 2024-01-11.*sort_rows",
    ),
    "several series as one": (
        "t.csv", lines() + lines("x").split("\n", 1)[1], NAMED, "name their column with series_column",
    ),
    "mixed time zones": ("t.csv", lines(date={12: "2024-01-12T00:00Z"}), NAMED, "mixes times with a time zone"),
    "numbers as times": (
        "t.csv", "n,v\n" + "".join(f"{i},{i % 3}\n" for i in range(40)), {"time_column": "n"},
        "give the unit that they count with time_unit",
    ),
    "a placeholder as time": ("t.csv", lines(date={60: "9999-12-31"}), NAMED, "between 1700-01-01 and 2300-01-01"),
    "milliseconds as seconds": (
        "t.csv", "t,v\n" + "".join(f"{1700000000000 + i},{i % 3}\n" for i in range(40)),
        {"time_column": "t", "time_unit": "s"}, r"is time_unit \(s\) wrong",
    ),
    "two rows in a step": ("t.csv", lines(), NAMED | {"step": "1W"}, "has two rows in one step of 7D"),
    "irregular times": (
        "t.csv",
        "date,price\n" + "".join(f"2024-01-01T{h:02}:{3 * h:02},{h}\n" for h in range(20)),
        NAMED | {"step": None, "context": 2, "time_column": "date"}, "",
    ),
    # cells
    "a text among values": (
        "t.csv", lines(price={8: "about 20"}), NAMED, "holds 'about 20' in row 8; expected a number",
    ),
    "decimal commas": ("t.jsonl", '{"date": "2024-01-01", "price": "20,5"}\n', NAMED, "'20,5' in row 1.*decimal comma"),
    "commas of thousands": (
        "t.jsonl", '{"date": "2024-01-01", "price": "1,020.5"}\n', NAMED, "commas between thousands",
    ),
    "a sign of currency": ("t.csv", lines(price={8: "$20"}), NAMED, "leave out units and signs of currency"),
    "no value anywhere": ("t.csv", lines(price=everywhere("NaN")), NAMED, "holds no finite number .nothing everywhere"),
    "infinity everywhere": (
        "t.csv", lines(price=everywhere("inf")), NAMED, "holds no finite number .infinity everywhere",
    ),
    "a constant column": ("t.csv", lines(price=everywhere("3")), NAMED, r"'price' of .* is constant \(3\)"),
    "constant in training": (
        "t.csv", lines(price=dict.fromkeys(range(1, 50), "3")), NAMED, "'price' is always 3 in the training part",
    ),
    "too large for float32": ("t.csv", lines(price={8: "1e39"}), NAMED, "more than float32 can hold"),
    "a code of missing values": (
        "t.csv", lines(price={58: "-99999999"}), NAMED, "name codes of missing values in `missing`",
    ),
    "a large offset": (
        "t.csv", lines(price={i: str(10**9 + 300 * (i % 5)) for i in range(1, 61)}), NAMED,
        "subtract a constant from it",
    ),
    "numbers in the text column": (
        "t.csv", lines(news={i: str(i) for i in range(1, 61)}), TEXT, "holds nothing but numbers",
    ),
    "times as values": (
        "t.csv", lines(), NAMED | {"value_columns": ["date"], "time_column": None}, "holds '2024-01-01' in row 1",
    ),
    "a row without series": ("t.csv", lines(news={3: ""}), NAMED | {"series_column": "news"}, "is empty in row 3"),
    # options
    "a horizon of zero": ("t.csv", lines(), NAMED | {"horizon": 0}, "horizon is 0; expected a whole number from 1"),
    "a context below one": ("t.csv", lines(), NAMED | {"context": -1}, "context is -1; expected a whole number from 1"),
    "windows longer than the table": ("t.csv", lines(), NAMED | {"context": 80}, "no series of the train part has 80 "),
    "a step of no unit": ("t.csv", lines(), NAMED | {"step": "daily"}, "step is 'daily'; expected a number and a unit"),
    "an unknown time unit": ("t.csv", lines(), NAMED | {"time_unit": "fortnight"}, "time_unit is 'fortnight'"),
    "shares beyond one": ("t.csv", lines(), NAMED | {"split_shares": (0.7, 0.2, 0.2)}, "add up to 1"),
    "split by colour": ("t.csv", lines(), NAMED | {"split_by": "colour"}, "expected one of auto, time, series"),
    "one series split by series": ("t.csv", lines(), NAMED | {"split_by": "series"}, "needs at least 3"),
    "split outside the data": (
        "t.csv", lines(), NAMED | {"split_dates": ("2030-01-01", "2031-01-01")}, "goes from 2024-01-01 to 2024-02-29",
    ),
    "split in reverse": (
        "t.csv", lines(), NAMED | {"split_dates": ("2024-02-20", "2024-02-01")}, "an earlier and a later time",
    ),
    "split at no date": ("t.csv", lines(), NAMED | {"split_dates": ("soon", "2024-02-01")}, "split_dates is 'soon'"),
    "predict before the data": ("t.csv", lines(), NAMED | {"predict_from": "1999-01-01"}, "to predict from"),
    "a unit too many": ("t.csv", lines(), NAMED | {"units": ["EUR", "USD"]}, "give one for each"),
    "goals about nothing": ("t.csv", lines(), NAMED | {"goal_dim": 3}, "expected the index of one of"),
    "a lag into the future": ("t.csv", lines(), TEXT | {"text_lag": -1}, "text_lag is -1"),
    "a delimiter of two": ("t.csv", lines(), NAMED | {"delimiter": ", "}, "expected one character"),
    "options of times without times": (
        "t.csv", lines(), {"value_columns": ["price"], "step": "1D"}, "need a time_column",
    ),
    "goals in no file": ("t.csv", lines(), NAMED | {"goals": "goals.csv"}, "there is no such file"),
    "templates that are none": ("t.csv", lines(), NAMED | {"goals": {"sentences": []}}, "unknown keys .'sentences'"),
    "a template without a number": (
        "t.csv", lines(), NAMED | {"goals": {"numbers": {"any": ["Go up"]}}}, "lacks {value}",
    ),
}  # fmt: skip
del CASES["irregular times"]


@pytest.mark.parametrize("case", CASES)
def test_each_is_told_apart(case: str, tmp_path: Path) -> None:
    name, content, options, message = CASES[case]
    with pytest.raises(ValueError, match=message) as told:  # some are told at once, some when the table is read
        TableSequences(str(write(tmp_path, name, content)), **options).setup()
    assert len(str(told.value)) < 700


def test_there_are_more_than_forty(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f" [{len(CASES) + len(GOALS)} bad inputs, each with its message]", end="")
    assert len(CASES) + len(GOALS) >= 40


def test_the_good_table_is_good(tmp_path: Path) -> None:
    """Every case above differs from this one in what it is called after."""
    TableSequences(str(write(tmp_path, "t.csv", lines())), **TEXT).setup()


GOALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "an unknown series": ("series,goal\nnorht,Be at 22\n", {}, "the series 'norht' in row 1.*did you mean 'north'"),
    "reversed bounds": (
        "series,goal,low,high\nnorth,Be between,25,22\n",
        {},
        "row 1 has the lower bound 25 above the upper",
    ),
    "no goal column": ("series,aim\nnorth,Be at 22\n", {}, "goal column.*is 'goal'"),
    "an empty goal": ("series,goal\nnorth,\n", {}, "has no goal in row 1"),
    "no goals": ("series,goal\n", {}, "holds no goals|has no rows"),
    "a time that is none": ("series,time,goal\nnorth,soon,Be at 22\n", {}, "'soon' in row 1"),
    "bounds in words": ("series,goal,low\nnorth,Be at 22,low\n", {}, "holds 'low' in row 1"),
}


def series_table() -> str:
    rows = [f"{day},{price},{name}" for name in ("north", "south") for day, price in zip(DAYS, PRICES, strict=True)]
    return "\n".join(["date,price,series", *rows]) + "\n"


@pytest.mark.parametrize("case", GOALS)
def test_each_bad_file_of_goals_is_told_apart(case: str, tmp_path: Path) -> None:
    content, options, message = GOALS[case]
    table, goals = write(tmp_path, "t.csv", series_table()), write(tmp_path, "goals.csv", content)
    with pytest.raises(ValueError, match=message):
        TableSequences(str(table), series_column="series", goals=str(goals), **(NAMED | options)).setup()


def test_what_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, "prices.csv", lines())
    for path, message in {
        str(tmp_path / "price.csv"): "did you mean '.*prices.csv'",
        str(tmp_path): "the folder .* cannot be loaded|has no part",
        "": "the path is empty",
    }.items():
        if path == str(tmp_path):
            (tmp_path / "prices.csv").rename(tmp_path / "prices.bin")
        with pytest.raises(ValueError, match=message):
            TableSequences(path, **NAMED)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            lambda: lines(date={12: DAYS[2], 3: DAYS[11]}), {"sort_rows": True},
            "were not sorted by time; they were sorted",
        ),
        (
            lambda: lines(date={12: f"{DAYS[11]}T03:00"}), {},
            r"1 rows of .* lie beside the grid of 1D; .* at most 3 hours",
        ),
        (
            lines, {"goal": "Raise the price to 3500 within 5 days"},
            "lies outside anything seen: values go from 20 to 30",
        ),
    ],
)  # fmt: skip
def test_what_can_be_used_is_used_aloud(
    make: Callable[[], str], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=message):
        TableSequences(str(write(tmp_path, "t.csv", make())), **(NAMED | options)).setup()


def test_a_goal_within_what_was_seen_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = TableSequences(
            str(write(tmp_path, "t.csv", lines())), goal="Raise price to 25 within 500 hours", **NAMED
        )
        data.setup()
    assert re.fullmatch("Raise price.*", data.predict_records[0].goal or "")
