"""Rows of one time, in tables and in Time-MMD's layout: one row is made of them as pandas would, or none."""

import warnings
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import datamodules.tables.order as order
import datamodules.tables.source as source
from datamodules.table_sequences import TableSequences
from datamodules.tables.history import read_history
from tests.datamodules.test_time_mmd import made, texts, weeks, write

OPTIONS = {"time_column": "day", "value_columns": ["a", "b"], "series_column": "id", "text_column": "said"}


def table(seed: int, series: int = 3, days: int = 40, repeats: int = 3) -> pd.DataFrame:
    """Rows in order of time and then of series, some twice or three times, with empty cells."""
    g = np.random.default_rng(seed)
    whole = pd.DataFrame([
        {"id": f"s{s}", "day": day, "a": g.integers(0, 99) / 1, "b": g.integers(0, 99) / 4, "said": f"{s} {day.day}"}
        for day in pd.date_range("2024-01-01", periods=days) for s in range(series)
    ])  # fmt: skip
    twice = whole.iloc[np.repeat(g.integers(0, len(whole), repeats), g.integers(1, 3, repeats))].copy()
    twice["a"] += 100.0
    twice["said"] = [f"again {i}" for i in range(len(twice))]
    for name in ("a", "b", "said"):
        twice.loc[g.random(len(twice)) < 0.4, name] = None
    return pd.concat([whole, twice]).sort_values("day", kind="stable", ignore_index=True)


def merged(frame: pd.DataFrame, how: str) -> pd.DataFrame:
    how_of = {"a": how, "b": how, "said": "last"}
    return frame.groupby(["id", "day"], as_index=False).agg(how_of).sort_values(["id", "day"])


@pytest.mark.parametrize("chunk", [5, 20_000])
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("how", ["last", "mean"])
def test_a_table_is_read_as_pandas_merges_it(
    how: str, shuffled: bool, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "ROWS", chunk)
    monkeypatch.setattr(order, "ROWS", chunk)
    frame = table(0)
    if shuffled:
        # By series backwards; rows of one time keep their order.
        frame = frame.sort_values("day", ascending=False, kind="stable", ignore_index=True)
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = TableSequences(str(tmp_path / "t.csv"), **OPTIONS, sort_rows=shuffled, same_time=how, context=4, horizon=2)
    with pytest.warns(UserWarning, match=rf"\d of {len(frame)} rows of .*same_time: {how}"):
        data.setup()
    store, expected = data.cutter.store, merged(frame, how)
    for number, name in enumerate(store.facts.series):
        own = expected[expected["id"] == name]
        first, end = store.offsets[number : number + 2]
        hours = (own["day"] - pd.Timestamp(0)) / pd.Timedelta(hours=1)
        np.testing.assert_array_equal(store.read("time", first, end), hours)
        np.testing.assert_allclose(store.read("value", first, end), own[["a", "b"]], rtol=1e-6)
        assert store.strings("text", first, end) == own["said"].tolist()
    assert len(store) == len(expected)


@pytest.mark.parametrize("how", ["last", "mean"])
def test_goals_and_bounds_of_one_time_stay_together(how: str, tmp_path: Path) -> None:
    rows = [f"2024-01-{day:02d},{20 + day},,," for day in range(1, 32)]
    rows[4:5] = ["2024-01-05,25,Rise to 30,29,31", "2024-01-05,27,,,"]
    (tmp_path / "t.csv").write_text("\n".join(["day,price,goal,low,high", *rows]))
    goals = {"goal_column": "goal", "goal_low_column": "low", "goal_high_column": "high", "value_columns": ["price"]}
    data = TableSequences(str(tmp_path / "t.csv"), time_column="day", **goals, same_time=how, context=4, horizon=2)
    with pytest.warns(UserWarning, match="1 of 32 rows"):
        data.setup()
    store = data.cutter.store
    assert store.strings("goal", 4, 5) == ["Rise to 30"] and store.read("bound", 4, 5).tolist() == [[29.0, 31.0]]
    assert store.read("value", 4, 5).item() == {"last": 27.0, "mean": 26.0}[how]


def test_a_history_is_read_likewise(tmp_path: Path) -> None:
    days = [f"2024-01-{day:02d},{day}" for day in [*range(1, 21), 20]]
    (tmp_path / "h.csv").write_text("\n".join(["day,price", *days[:-1], "2024-01-20,30"]))
    found = {}
    for how in ("last", "mean"):
        with pytest.warns(UserWarning, match="1 of 21 rows"):
            record = read_history(tmp_path / "h.csv", ["price"], 2, time_column="day", same_time=how)
        found[how] = record.value[:20, 0].tolist()[-2:]
    assert found == {"last": [19.0, 30.0], "mean": [19.0, 25.0]}
    with pytest.raises(ValueError, match="has the same time as the row before"):
        read_history(tmp_path / "h.csv", ["price"], 2, time_column="day", same_time="refuse")


@pytest.mark.parametrize(("how", "value"), [("last", 500.0), ("mean", 251.5)])
def test_a_domain_is_read_likewise(how: str, value: float, tmp_path: Path) -> None:
    again = weeks(60).iloc[[3]].assign(OT=500.0)
    missing = weeks(60).iloc[[5]].assign(OT=np.nan)
    write(
        tmp_path,
        "Health",
        pd.concat([weeks(60), again, missing]).sort_values("start_date", kind="stable"),
        report=texts(),
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = made(tmp_path, text="none", same_time=how)
    assert any(
        "2 of 62 rows" in str(warning.message) and f"same_time: {how}" in str(warning.message) for warning in said
    )
    rows = data.windows("train")[0].value[:, 0]
    assert rows[3] == value and rows[5] == 5.0
    with pytest.raises(ValueError, match="such as 2000-01-24; merge such rows"):
        made(tmp_path, text="none", same_time="refuse")


def test_a_table_without_repeats_says_nothing(tmp_path: Path) -> None:
    table(0, repeats=0).to_csv(tmp_path / "t.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TableSequences(str(tmp_path / "t.csv"), **OPTIONS, context=4, horizon=2).setup()


def test_the_epoch_of_dates_is_kept(tmp_path: Path) -> None:
    """Merging rows by a date leaves the type of the dates as it is."""
    write(tmp_path, "Health", pd.concat([weeks(4), weeks(60).iloc[3:]]), report=texts())
    with pytest.warns(UserWarning, match="1 of 61 rows"):
        data = made(tmp_path, text="none")
    first = data.windows("train")[0].time[0]
    assert first == (date(2000, 1, 3) - date(1970, 1, 1)).days * 24
