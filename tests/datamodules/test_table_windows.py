"""Rows at one bit each, against a list of the marked ones; and windows found by it against a plain search."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.table_sequences import TableSequences
from datamodules.tables import marks, store, windows
from datamodules.tables.marks import Marks


@given(st.lists(st.lists(st.booleans(), max_size=70), max_size=12), st.integers(1, 5))
def test_the_kth_marked_row(chunks: list[list[bool]], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marks, "BLOCK", block)
        found = Marks(np.array(chunk, bool) for chunk in chunks)
        marked = [row for row, good in enumerate(good for chunk in chunks for good in chunk) if good]
        assert [found.find(k) for k in range(len(found))] == marked


def test_memory_of_marks_is_a_bit_a_row() -> None:
    found = Marks(np.ones(50_000, bool) for _ in range(20))
    assert len(found) == 1_000_000 and found.find(654_321) == 654_321
    assert found._bits.nbytes + found._before.nbytes < 130_000


def gappy(g: np.random.Generator) -> pd.DataFrame:
    """Series of different lengths, with steps left out, cells missing, and rows of series among each other."""
    parts = []
    for name in "abcde":
        rows = 60 if name == "a" else int(g.integers(3, 60))
        days = np.sort(g.choice(int(rows * 1.4) + 1, rows, replace=False))
        values = np.where(g.random(rows) < 0.3, np.nan, g.normal(30, 3, rows).round(2))
        parts.append(pd.DataFrame({"id": name, "day": days, "price": values}))
    frame = pd.concat(parts)
    return frame.iloc[np.argsort(frame["day"].to_numpy() + g.integers(0, 9), kind="stable")]


def plain_windows(frame: pd.DataFrame, first: int, last: int, c: int, h: int, stride: int) -> set[tuple[str, int, int]]:
    """Series, first day and length of all windows within the days from first to last, step by step as the rules say."""
    found = set()
    for name, rows in frame[(frame["day"] >= first) & (frame["day"] <= last)].groupby("id"):
        value = dict(zip(rows["day"], rows["price"], strict=True))
        earliest, latest = min(value), max(value)
        length = min(c + h, latest - earliest + 1)
        for day in value if length > c else ():
            steps = range(day, day + length)
            has_row = [s in value for s in steps]
            seen = [s in value and value[s] == value[s] for s in steps]
            placed = steps[-1] <= latest and (day - earliest) % stride == 0
            if placed and sum(has_row) >= length / 2 and any(seen[:c]) and any(seen[c:]):
                found.add((name, day, length))
    return found


@pytest.mark.parametrize("rows_at_once", [5, 50_000])
@pytest.mark.parametrize(("seed", "through"), list(enumerate(["train", "train", "train", "val", "val", "test"])))
def test_windows_are_those_of_a_plain_search(
    seed: int, through: str, rows_at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GSSR_CACHE", str(tmp_path))
    for part in (store, windows):
        monkeypatch.setattr(part, "ROWS", rows_at_once)
    g = np.random.default_rng(seed)
    frame, (c, h, stride) = gappy(g), (int(g.integers(1, 5)), int(g.integers(1, 5)), int(g.integers(1, 4)))
    frame.to_csv(tmp_path / "t.csv", index=False)
    options: dict[str, Any] = {
        "series_column": "id",
        "time_column": "day",
        "time_unit": "D",
        "step": "1D",
        "goals": None,
    }
    data = TableSequences(
        str(tmp_path / "t.csv"), value_columns=["price"], context=c, horizon=h, stride=stride, split_dates=("25", "40"),
        train_through=through, **options
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = data.read_windows()
    for split, first, last in (
        ("train", -99, {"train": 24, "val": 39, "test": 999}[through]),
        ("val", 25, 39),
        ("test", 40, 999),
    ):
        found = [(w.series, round(w.time[0] / 24), len(w)) for w in parts[split]]
        assert len(set(found)) == len(found)
        assert set(found) == plain_windows(frame, first, last, c, h, stride)
        for w in parts[split]:
            row = frame[(frame["id"] == w.series) & (frame["day"] == round(w.time[0] / 24))]
            np.testing.assert_array_equal(w.value[0], row["price"].to_numpy(np.float32))
    some = windows.TableWindows(data.cutter, data.parts["train"], most=7)
    all_of_them = list(parts["train"])
    assert [w.time[0] for w in some] == [
        all_of_them[i * len(all_of_them) // len(some)].time[0] for i in range(len(some))
    ]
    assert len(some) == min(7, len(all_of_them))


@pytest.mark.parametrize("rows_at_once", [5, 50_000])
def test_unsorted_series_among_each_other_come_into_order(
    rows_at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROWS", rows_at_once)
    g = np.random.default_rng(0)
    frame = gappy(g).sample(frac=1, random_state=0)
    names, times = frame["id"].tolist(), frame["day"].to_numpy(np.float64)
    writer = store.Writer(tmp_path / "store", "t.csv", ["price"], sort=True, counted=True)
    for start in range(0, len(frame), 7):
        part = slice(start, start + 7)
        texts = [f"{name} {time:g}" if time % 3 else None for name, time in zip(names[part], times[part], strict=True)]
        writer.add(names[part], times[part], frame[["price"]].to_numpy(np.float64)[part].copy(), texts, None, None)
    facts = writer.close()
    assert "were sorted" in facts.notes[0]
    found = store.Store(tmp_path / "store")
    for series, name in enumerate(facts.series):
        own = frame[frame["id"] == name].sort_values("day")
        first, end = found.offsets[series : series + 2]
        np.testing.assert_array_equal(found.read("time", first, end), own["day"])
        np.testing.assert_array_equal(found.read("value", first, end)[:, 0], own["price"].to_numpy(np.float32))
        assert found.strings("text", first, end) == [f"{name} {day}" if day % 3 else None for day in own["day"]]
