"""TableSequences against pandas; windows have texts from when they were known, and goals from when they were given."""

import hashlib
import json
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import datamodules.table_sequences as module
from datamodules.storms.datamodule import GOALS_FILE
from datamodules.table_sequences import TableSequences
from datamodules.tables.grid import Grid
from datamodules.tables.stamps import grid_of_stamps
from gssr.sequences.collate import collate
from gssr.sequences.goals import GoalWriter

C, H = 4, 3
OPTIONS: dict[str, Any] = {"context": C, "horizon": H, "time_column": "date", "value_columns": ["price", "volume"]}


def table(rows: int = 80, seed: int = 0, start: str = "2024-01-01") -> pd.DataFrame:
    g = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "date": pd.date_range(start, periods=rows, freq="D").strftime("%Y-%m-%d"),
            "price": np.round(30 + g.normal(0, 3, rows).cumsum() / 3, 2),
            "volume": g.integers(1, 20, rows) * 5.0,
            "news": [f"day {i}" if i % 3 else None for i in range(rows)],
        }
    )


def save(frame: pd.DataFrame, path: Path) -> str:
    match path.suffix:
        case ".csv":
            frame.to_csv(path, index=False)
        case ".parquet":
            frame.to_parquet(path, index=False)
        case _:
            rows = (
                {k: None if v is None or v != v else v for k, v in row.items()}
                for row in frame.astype(object).to_dict("records")
            )
            path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return str(path)


def made(frame: pd.DataFrame, folder: Path, name: str = "t.csv", **options: Any) -> TableSequences:
    data = TableSequences(save(frame, folder / name), **(OPTIONS | options))
    data.setup()
    return data


def every(data: TableSequences) -> dict[str, list[Any]]:
    return {split: list(data._windows[split]) for split in ("train", "val", "test")}


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.parquet", "hub"])
def test_windows_are_those_of_the_table_in_every_format(name: str, tmp_path: Path) -> None:
    frame = table()
    if name == "hub":
        (tmp_path / "hub").mkdir()
        save(frame, tmp_path / "hub" / "part.parquet")
        data = TableSequences(str(tmp_path / "hub"), text_column="news", **OPTIONS)
        data.setup()
    elif name == "t.csv.gz":
        frame.to_csv(tmp_path / name, index=False)
        data = TableSequences(str(tmp_path / name), text_column="news", **OPTIONS)
        data.setup()
    else:
        data = made(frame, tmp_path, name, text_column="news")
    windows = every(data)
    first = 0
    for split, rows in (("train", 56), ("val", 12), ("test", 12)):
        assert len(windows[split]) == rows - C - H + 1
        for i, window in enumerate(windows[split]):
            part = frame.iloc[first + i : first + i + C + H]
            np.testing.assert_array_equal(window.value, part[["price", "volume"]].to_numpy(np.float32))
            assert window.text == [None if t is None or t != t else t for t in part["news"]]
            hours = pd.to_datetime(part["date"]).to_numpy().astype("datetime64[h]").astype(np.float64)
            np.testing.assert_array_equal(window.time, hours)
        first += rows
    training = frame[["price", "volume"]].to_numpy()[:56]
    np.testing.assert_allclose(data.scaler.mean, training.mean(0), rtol=1e-6)
    np.testing.assert_allclose(data.scaler.std, training.std(0), rtol=1e-6)
    assert data.value_resolution[0] == 0.01


def test_no_step_is_in_two_parts_and_time_goes_on(tmp_path: Path) -> None:
    frame = pd.concat([table(40, i).assign(id=f"s{i}") for i in range(4)])
    windows = every(made(frame, tmp_path, series_column="id"))
    spans = {s: (min(w.time[0] for w in part), max(w.time[-1] for w in part)) for s, part in windows.items()}
    for before, after in pairwise(("train", "val", "test")):
        assert spans[before][1] < spans[after][0]
    whole = every(made(frame, tmp_path, series_column="id", split_by="series"))
    owners = [{w.series for w in part} for part in whole.values()]
    assert all(owners) and sum(map(len, owners)) == len(set.union(*owners)) == 4
    dated = every(made(frame, tmp_path, series_column="id", split_dates=("2024-01-20", "2024-01-30")))
    limit = pd.Timestamp("2024-01-20").timestamp() / 3600
    assert max(w.time[-1] for w in dated["train"]) < limit <= min(w.time[0] for w in dated["val"])


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_a_text_is_used_only_from_the_step_at_which_it_was_known(lag: int, tmp_path: Path) -> None:
    """The text of day i says i; at step t of a window nothing younger than t - lag may stand, and that does."""
    frame = table().assign(news=[f"{i}" + " words" for i in range(80)])
    data = made(frame, tmp_path, text_column="news", text_lag=lag)
    seen = 0
    for part in (*every(data).values(), list(data.predict_records)):
        for window in part:
            days = (window.time / 24 - pd.Timestamp("2024-01-01").timestamp() / 86400).round().astype(int)
            for day, text in zip(days, window.text, strict=True):
                expected = day - lag if lag <= day < 80 + lag else None
                assert text == (None if expected is None else f"{expected} words")
                seen += text is not None
    assert seen > 300


def test_missing_cells_gaps_and_infinities_are_masked(tmp_path: Path) -> None:
    frame = table().drop(index=[10, 11, 30]).reset_index(drop=True)
    frame.loc[5, "price"], frame.loc[6, "volume"] = np.nan, np.inf
    data = made(frame, tmp_path)
    window = next(w for w in every(data)["train"] if w.time[0] == pd.Timestamp("2024-01-06").timestamp() / 3600)
    assert np.isnan(window.value[0, 0]) and np.isnan(window.value[1, 1])  # the cell, the infinity
    assert np.isnan(window.value[5:7]).all()  # the days without a row
    assert not np.isnan(window.value[2:5]).any()
    batch = collate([window])
    assert torch.isfinite(batch.value).all() and not batch.value_mask[0, 5].any()
    for windows in every(data).values():
        for w in windows:  # something to start from, and something to score
            assert not np.isnan(w.value[:C]).all() and not np.isnan(w.value[C:]).all()


@pytest.mark.filterwarnings("ignore:of the 4 series:UserWarning")
def test_a_series_shorter_than_a_window_gives_a_shorter_one(tmp_path: Path) -> None:
    lengths = {"long": 40, "short": C + 1, "tiny": C, "other": 30}
    frame = pd.concat([table(n, i).assign(id=name) for i, (name, n) in enumerate(lengths.items())])
    data = TableSequences(save(frame, tmp_path / "t.csv"), series_column="id", split_by="series", **OPTIONS)
    with pytest.raises(ValueError, match="no series of the"):  # a part of the tiny one alone has no window
        for shares in ((0.5, 0.25, 0.25), (0.25, 0.5, 0.25), (0.25, 0.25, 0.5)):
            data = TableSequences(
                save(frame, tmp_path / "t.csv"), series_column="id", split_by="series", split_shares=shares, **OPTIONS
            )
            data.setup()
    frame = frame[frame.id != "tiny"]
    windows = [w for part in every(made(frame, tmp_path, series_column="id", split_by="series")).values() for w in part]
    (short,) = [w for w in windows if w.series == "short"]
    assert (len(short), short.goal_start, short.goal_step) == (C + 1, C - 1, C)
    assert all(len(w) == C + H for w in windows if w.series != "short")
    batch = collate([short, next(w for w in windows if w.series == "long")])
    assert batch.step_mask.sum(1).tolist() == [C + 1, C + H]


def test_rows_of_series_may_be_mixed_and_unsorted_rows_be_sorted(tmp_path: Path) -> None:
    frame = pd.concat([table(40, i).assign(id=f"s{i}") for i in range(3)])
    options = {"series_column": "id", "text_column": "news", "split_by": "series"}
    plain = every(made(frame, tmp_path, "a.csv", **options))
    mixed = every(made(frame.sort_values("date", kind="stable"), tmp_path, "b.csv", **options))
    with pytest.warns(UserWarning, match="were sorted"):
        shuffled = every(made(frame.iloc[::-1], tmp_path, "c.csv", sort_rows=True, **options))
    by_key = [{(w.series, w.time[0]): w for p in parts.values() for w in p} for parts in (plain, mixed, shuffled)]
    assert by_key[0].keys() == by_key[1].keys()
    for key, window in by_key[0].items():
        for other in (by_key[1][key], by_key[2].get(key)):
            if other is not None:  # the reversed table numbers its series otherwise, so its parts are others
                np.testing.assert_array_equal(window.value, other.value)
                assert window.text == other.text
    assert len(by_key[2].keys() & by_key[0].keys()) > 50


def test_rows_are_counted_where_there_is_no_time(tmp_path: Path) -> None:
    frame = pd.concat([table(30, i).assign(id=i).drop(columns="date") for i in range(6)])
    data = TableSequences(save(frame, tmp_path / "runs.jsonl"), series_column="id", context=C, horizon=H)
    data.setup()
    assert data.value_names == ("price", "volume")
    window = data.train_records[0]
    assert np.diff(window.time).tolist() == [1.0] * (C + H - 1)
    goals = [r.goal for r in data.train_records if r.goal is not None]
    assert any("3 steps" in goal for goal in goals) and not any("hour" in goal for goal in goals)


@pytest.mark.parametrize(
    ("frequency", "step", "word"),
    [("MS", "1 month", "month"), ("ME", "1 month", "month"), ("YS", "12 months", "year"),
     ("6h", "6h", "hours"), ("W", "7D", "week")],
)  # fmt: skip
def test_steps_are_found(frequency: str, step: str, word: str, tmp_path: Path) -> None:
    dates = pd.date_range("1950-01-31" if frequency == "ME" else "1950-01-01", periods=80, freq=frequency)
    data = made(table().assign(date=dates.strftime("%Y-%m-%dT%H:%M")), tmp_path)
    assert str(data.cutter.grid) == step
    assert any(word in (r.goal or "") for r in data.train_records)
    expected = (dates.to_numpy().astype("datetime64[m]").astype(np.float64) / 60)[: C + H]
    np.testing.assert_allclose(data.train_records[0].time, expected)


def test_irregular_times_need_a_step(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="times are irregular"):
        grid_of_stamps([np.cumsum([1.0, 2.5, 3.3, 4.4, 5.0])])
    jittered = 24 * np.arange(50) + np.random.default_rng(0).uniform(-2, 2, 50)
    assert str(grid_of_stamps([jittered])) == "1D"
    dates = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(80) ** 1.05 * 26, unit="h")
    with pytest.warns(UserWarning, match="beside the grid"):
        data = made(table().assign(date=dates.astype(str)), tmp_path, step="1D")
    assert str(data.cutter.grid) == "1D"
    values = [w.value for w in every(data)["train"]]
    assert any(np.isnan(v).any() for v in values)
    assert Grid.of("90min").hours == 1.5 and Grid.of("1Q").months == 3


def test_goals_come_from_a_column_when_they_were_said(tmp_path: Path) -> None:
    said = [None] * 80
    said[10], said[20] = "Be at 30", "Be above 31"
    frame = table().assign(aim=said, low=[30.0] * 20 + [31.0] * 60, high=[30.0] * 20 + [np.nan] * 60)
    data = made(
        frame, tmp_path, goal_column="aim", goal_low_column="low", goal_high_column="high", split_shares=(0.8, 0.1, 0.1)
    )
    for start, window in enumerate(data._windows["train"]):
        known = [row for row in (10, 20) if start <= row <= start + C - 1]
        assert window.goal == (said[known[-1]] if known else None)
        if known == [20]:
            assert window.goal_low[0] == 31 and window.goal_high[0] == np.float32(frame["price"].max())
            assert np.isnan(window.goal_low[1])
    assert data.goal_writer is None
    with pytest.raises(ValueError, match="level_jitter is 0.3, but given goals"):
        made(frame, tmp_path, goal_column="aim", level_jitter=0.3)


def test_levels_are_jittered_in_training_and_goals_written_at_the_level_that_is_seen(tmp_path: Path) -> None:
    data = made(table(), tmp_path, level_jitter=0.5)
    own, dataset = data._windows["train"][0], data.train_records
    seen = [dataset[epoch, 0] for epoch in range(20)]
    assert len({float(window.value[0, 0]) for window in seen}) == 20
    for window in seen:
        np.testing.assert_allclose(window.value, own.value * (window.value[0, 0] / own.value[0, 0]), rtol=1e-5)
        if window.goal is not None:
            assert window.goal_low[0] - 3 <= window.value[window.goal_step, 0] <= window.goal_high[0] + 3


def test_goals_come_from_a_file_by_series_and_time(tmp_path: Path) -> None:
    frame = pd.concat([table(40, i).assign(id=f"s{i}") for i in range(3)])
    goals = pd.DataFrame(
        {"id": ["s0", "s1", "s1"], "date": ["2024-01-03", "2024-01-02", "2024-01-05"], "goal": ["a", "b", "c"],
         "low": [25.0, 26, 27], "high": [25.0, 28, 29]}
    )  # fmt: skip
    file = save(goals, tmp_path / "goals.csv")
    data = made(frame, tmp_path, series_column="id", goals=file, split_by="time")
    for window in data._windows["train"]:
        day = window.time / 24 - pd.Timestamp("2024-01-01").timestamp() / 86400
        known = {"s0": {2: "a"}, "s1": {1: "b", 4: "c"}, "s2": {}}[window.series]
        inside = [goal for when, goal in known.items() if day[0] <= when <= day[C - 1]]
        assert window.goal == (inside[-1] if inside else None)
    everywhere = save(goals[["goal"]][:1], tmp_path / "one.csv")
    data = made(frame, tmp_path, series_column="id", goals=everywhere)
    assert {w.goal for w in data._windows["train"]} == {"a"}


def test_no_goals_at_all(tmp_path: Path) -> None:
    data = made(table(), tmp_path, goals=None)
    assert not data.has_goals and not data.has_text
    assert {r.goal for r in data.train_records} == {None} and data.windows_evaluation("val") == []


@pytest.mark.parametrize("scale", [1e-6, 0.01, 1.0, 1e4, 1e9])
def test_hindsight_goals_name_what_was_reached_at_any_scale(scale: float, tmp_path: Path) -> None:
    frame = table(200)
    frame["price"] = [float(f"{v:.6g}") for v in (frame["price"] - 30) * scale]
    data = made(frame, tmp_path, value_columns=["price"])
    writer, std = data.goal_writer, float(data.scaler.std[0])
    assert 0.01 * std < writer.number_step <= std / 25 * 1.001
    found = 0
    for epoch in range(2):
        for i in range(len(data.train_records)):
            record = data.train_records[epoch, i]
            if record.goal is None:
                continue
            number, reached = float(record.goal_low[0]), float(record.value[-1, 0])
            words = [
                float(w.rstrip("."))
                for w in record.goal.replace(",", " ").replace("=", " ").replace("?", " ").split()
                if _number(w)
            ]
            assert any(np.isclose(w, number, rtol=1e-3, atol=1e-9 * scale) for w in words), (record.goal, number)
            assert abs(number - reached) <= 2.51 * writer.number_step
            assert not writer.is_held_out_number(number)
            found += 1
    assert found > 100
    held = [*data.windows_evaluation("val", "numbers"), *data.windows_evaluation("train", "numbers")]
    assert held and all(writer.is_held_out_number(float(r.goal_low[0])) for r in held)


def _number(word: str) -> bool:
    try:
        float(word.rstrip("."))
    except ValueError:
        return False
    return True


def test_templates_of_ones_own(tmp_path: Path) -> None:
    forms = {"numbers": {"any": ["Let {name} cost {value} {unit} {when}"], "raise": ["Dearer: {value} {unit}"]}}
    file = tmp_path / "goals.yaml"
    file.write_text(json.dumps(forms), encoding="utf-8")  # JSON is YAML
    for goals in (forms, str(file)):
        data = made(table(), tmp_path, goals=goals, units=["EUR", ""])
        said = {r.goal for r in data.train_records if r.goal}
        assert any("Let price cost" in goal for goal in said) and all("EUR" in goal for goal in said)


def test_storms_are_told_the_same_goals_as_ever() -> None:
    """Numbers of any scale must not change the sentences of a run that was trained before."""
    writer, g, told = GoalWriter.read(GOALS_FILE), np.random.default_rng(7), []
    for mode in ("train", "combinations", "numbers", "forms", "all"):
        for i in range(300):
            start = float("nan") if i % 11 == 0 else float(g.integers(10, 165))
            target = float(5 * g.integers(2, 33)) + (0.4 if i % 5 == 0 else 0)
            goal = writer.sentence(start, target, float(6 * (i % 20 + 1)), i % 20 + 1, mode, g)
            told.append(repr(goal and (goal.text, goal.low, goal.high, goal.form, goal.key)))
    assert hashlib.sha256("\n".join(told).encode()).hexdigest()[:16] == "8753fec35d6fefe9"


def test_predict_imagines_what_is_not_known_yet(tmp_path: Path) -> None:
    frame = table()
    data = made(frame, tmp_path, goal="Raise price to 31 within 3 days")
    (window,) = data.predict_records
    np.testing.assert_array_equal(window.value[:C], frame[["price", "volume"]].to_numpy(np.float32)[-C:])
    assert np.isnan(window.value[C:]).all() and window.goal == "Raise price to 31 within 3 days"
    (past,) = made(frame, tmp_path, predict_from="2024-02-10").predict_records
    at = list(frame["date"]).index("2024-02-10") + 1
    np.testing.assert_array_equal(past.value, frame[["price", "volume"]].to_numpy(np.float32)[at - C : at + H])


def test_the_cache_is_used_again_and_follows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSSR_CACHE", str(tmp_path / "store"))
    first = made(table(), tmp_path)
    assert made(table(), tmp_path, horizon=2).cutter.store.folder.parent == first.cutter.store.folder.parent
    again = TableSequences(str(tmp_path / "t.csv"), **OPTIONS)
    monkeypatch.setattr("datamodules.tables.build.Reading.write", None)  # nothing is read anew
    again.setup()
    np.testing.assert_array_equal(again.train_records[3].value, first.train_records[3].value)
    monkeypatch.undo()
    changed = table().assign(price=table()["price"] + 1)
    other = made(changed, tmp_path)
    assert other.train_records[3].value[0, 0] == pytest.approx(first.train_records[3].value[0, 0] + 1, abs=1e-5)


def test_windows_travel_to_workers_and_texts_stay_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made(table(), tmp_path, text_column="news")
    copy = pickle.loads(pickle.dumps(data._windows["val"]))
    assert copy[1].text == data._windows["val"][1].text
    assert len(data.texts()) == len({t for t in table()["news"] if t is not None and t == t})
    data._texts = None
    monkeypatch.setattr(module, "MOST_TEXTS", 10)
    assert data.texts() == []


def test_batches_resume(tmp_path: Path) -> None:
    data = made(table(), tmp_path, batch_size=8)
    loader = data.train_dataloader()
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    expected = next(batches)
    again = data.train_dataloader()
    again.load_state_dict(state)
    found = next(iter(again))
    assert torch.equal(found.value, expected.value) and found.goal == expected.goal
