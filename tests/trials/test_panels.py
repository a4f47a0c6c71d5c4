"""Panels whose series begin and end at different times."""

import warnings
from datetime import date, timedelta
from pathlib import Path

import pytest

from datamodules import TableSequences

pytestmark = pytest.mark.trial
DAY = date(2023, 1, 1)


def panel(folder: Path, spans: dict[str, tuple[int, int]], kind: str = "csv") -> str:
    """A table with one series for each (first day, number of days)."""
    rows = [
        (name, str(DAY + timedelta(first + i)), (i * 7) % 11) for name, (first, n) in spans.items() for i in range(n)
    ]
    file = folder / f"t.{kind}"
    if kind == "csv":
        file.write_text("id,date,y\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    else:
        file.write_text("".join(f'{{"id": "{a}", "date": "{b}", "y": {c}}}\n' for a, b, c in rows))
    return str(file)


def predicted(path: str, **options: str) -> tuple[list[str], list[str]]:
    """Series that `predict` forecasts, and what was said."""
    columns = {"time_column": "date", "series_column": "id", "value_columns": ["y"]}
    data = TableSequences(path, **columns, context=8, horizon=4, **options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data.setup("predict")
    records = data.predict_records
    return [records[i].series for i in range(len(records))], [str(w.message) for w in said]


# FluSightNetwork/cdc-flusight-ensemble#210: regions missing in a file of forecasts.
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["a", "b", "c"]),
        ({"predict_from": "2023-02-15"}, ["a", "b"]),
        ({"predict_from": "2023-04-15"}, ["a", "b", "c"]),
        ({"split_dates": ("2023-03-20", "2023-04-10")}, ["a", "b", "c"]),
    ],
)
def test_every_series_with_a_known_value_is_predicted(
    kind: str, options: dict[str, str], expected: list[str], tmp_path: Path
) -> None:
    path = panel(tmp_path, {"a": (0, 120), "b": (0, 60), "c": (90, 30)}, kind)
    series, said = predicted(path, **options)
    assert series == expected
    told = [line for line in said if "not predicted" in line]
    assert len(told) == (len(expected) < 3) and all("'c'" in line for line in told)


def test_a_split_by_series_predicts_those_of_the_test_part(tmp_path: Path) -> None:
    path = panel(tmp_path, dict.fromkeys("abcdefghij", (0, 60)))
    series, said = predicted(path, split_by="series")
    assert 0 < len(series) < 10 and not [line for line in said if "not predicted" in line]
