"""Histories of plans: read as the data module reads the table that it trains on."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datamodules.table_sequences import TableSequences
from datamodules.tables.history import read_history

C, H = 5, 3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A table of two series with a gap, missing values, texts and numbers as times."""
    days = [*range(30), *range(32, 60)]
    frame = pd.DataFrame(
        {"day": days, "price": [20 + (7 * d) % 11 for d in days], "news": [f"day {d}" if d % 3 else None for d in days]}
    )
    frame.loc[frame.day == 57, "price"] = -999
    both = pd.concat(
        [frame.assign(shop="north"), frame.assign(shop="south", price=frame.price + 5 * (frame.price > 0))]
    )
    both.to_csv(tmp_path / "shops.csv", index=False)
    return tmp_path / "shops.csv"


OPTIONS = {
    "time_column": "day", "series_column": "shop", "text_column": "news", "time_unit": "D", "missing": ["-999"],
    "text_lag": 1, "max_text_chars": 5,
}  # fmt: skip


@pytest.mark.parametrize("series", ["north", "south"])
def test_the_history_is_the_window_of_predict(file: Path, series: str) -> None:
    data = TableSequences(
        str(file), value_columns=["price"], context=C, horizon=H, split_by="time", goal="Rise", **OPTIONS
    )
    data.setup("predict")
    (expected,) = [record for record in (data.predict_records[i] for i in range(2)) if record.series == series]
    found = read_history(file, ["price"], H, C, goal="Rise", series=series, trained=data.hparams)
    assert found.series == series and found.goal == "Rise"
    np.testing.assert_array_equal(found.value, expected.value)
    np.testing.assert_array_equal(found.time, expected.time)
    assert np.isnan(found.value[2, 0]) and not np.isnan(found.value[:2]).any()  # the code of a missing value
    assert found.text == expected.text and "day 5" in found.text
    assert (found.goal_start, found.goal_step) == (expected.goal_start, expected.goal_step) == (C - 1, C + H - 1)


def test_rows_that_are_absent_are_missing_steps(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,v\n" + "".join(f"2024-01-{d:02d},{d}\n" for d in (1, 2, 3, 5, 6)))
    record = read_history(tmp_path / "a.csv", ["v"], 2)
    np.testing.assert_array_equal(record.value[:, 0], [1, 2, 3, np.nan, 5, 6, np.nan, np.nan])
    assert record.series == "a" and record.text == [None] * 8 and record.goal is None


def test_a_constant_or_unobserved_value_is_no_mistake_in_a_history(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,v,w\n2024-01-01,1,\n2024-01-02,1,\n")
    record = read_history(tmp_path / "a.csv", ["v", "w"], 2, 8)
    assert record.value[:2, 0].tolist() == [1, 1] and np.isnan(record.value[:, 1]).all() and record.goal_start == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "has 2 series, 'north', 'south'; a plan goes on from one; name it with series"),
        ({"series": "east"}, "series is 'east'; expected one of 'north', 'south'"),
        ({"series": "north", "goal_step": 4}, "goal_step is 4; expected a step of the horizon, from 1 to 3"),
        ({"series": "north", "series_column": "town"}, "series_column is 'town', but"),
        ({"series": "north", "missing": None}, None),
    ],
)
def test_what_cannot_be_a_history_is_refused(file: Path, options: dict, message: str | None) -> None:
    if message is None:
        assert read_history(file, ["price"], H, C, trained=OPTIONS, **options).value[2, 0] == -999
        return
    with pytest.raises(ValueError, match=message):
        read_history(file, ["price"], H, C, trained=OPTIONS, **options)


def test_a_history_needs_values(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,v\n2024-01-01,1\n2024-01-02,\n2024-01-03,\n")
    with pytest.raises(ValueError, match="has no value in its last 2 rows"):
        read_history(tmp_path / "a.csv", ["v"], 2, 2)
