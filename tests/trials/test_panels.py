"""Panels whose series begin and end at different times or have steps of their own, and histories from them."""

import json
import warnings
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightning import Trainer

import train
from datamodules import SequenceData, Storms, Strikes, TableSequences
from datamodules.tables.history import read_history
from gssr.commands.main import main
from gssr.network import GoalNetwork
from gssr.runs.sharing import pull, push
from gssr.runs.trained import load_trained
from tests.trials.conftest import days

pytestmark = [pytest.mark.trial, pytest.mark.filterwarnings("ignore:.*:UserWarning")]
DAY = date(2023, 1, 1)
FORMATS = ("csv", "jsonl", "parquet")
COLUMNS: dict[str, Any] = {"time_column": "date", "series_column": "id", "value_columns": ["y"]}


def saved(frame: pd.DataFrame, folder: Path, kind: str = "csv") -> str:
    file = folder / f"t.{kind}"
    if kind == "csv":
        frame.to_csv(file, index=False)
    elif kind == "jsonl":
        frame.to_json(file, orient="records", lines=True)
    else:
        frame.to_parquet(file, index=False)
    return str(file)


def panel(folder: Path, spans: dict[str, tuple[int, int]], kind: str = "csv") -> str:
    """A table with one series for each (first day, number of days)."""
    rows = [
        (name, str(DAY + timedelta(first + i)), (i * 7) % 11) for name, (first, n) in spans.items() for i in range(n)
    ]
    return saved(pd.DataFrame(rows, columns=["id", "date", "y"]), folder, kind)


def stepped(steps: dict[str, tuple[str, int]]) -> pd.DataFrame:
    """A table with one series for each (step, number of rows)."""
    parts = [
        pd.DataFrame({"id": name, "date": pd.date_range("2021-01-01", periods=n, freq=step), "y": np.arange(n) % 7})
        for name, (step, n) in steps.items()
    ]
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(date=frame["date"].dt.strftime("%Y-%m-%dT%H:%M"))


def read(path: str, **options: Any) -> tuple[TableSequences, list[str], str]:
    """The data, the series that `predict` forecasts, and the line about series (empty: there is none)."""
    data = TableSequences(path, **COLUMNS | {"context": 8, "horizon": 4} | options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data.setup(None if data.train_through == "train" else "predict")
    records = data.predict_records
    told = [str(w.message) for w in said if str(w.message).startswith("of the ")]
    assert len(told) < 2
    return data, [records[i].series for i in range(len(records))], "".join(told)


def trained_on(data: TableSequences) -> set[str]:
    return {data.train_records[i].series for i in range(len(data.train_records))}


# FluSightNetwork/cdc-flusight-ensemble#210: regions missing in a file of forecasts.
@pytest.mark.parametrize("kind", FORMATS)
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
    kind: str, options: dict[str, Any], expected: list[str], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = panel(tmp_path, {"a": (0, 120), "b": (0, 60), "c": (90, 30)}, kind)
    data = TableSequences(path, **COLUMNS, context=8, horizon=4, **options)
    data.setup("predict")
    assert [data.predict_records[i].series for i in range(len(data.predict_records))] == expected
    told = [str(w.message) for w in recwarn if "not predicted" in str(w.message)]
    assert len(told) == (len(expected) < 3) and all("'c'" in line for line in told)


def test_a_split_by_series_predicts_those_of_the_test_part(tmp_path: Path) -> None:
    path = panel(tmp_path, dict.fromkeys("abcdefghij", (0, 60)))
    _, series, said = read(path, split_by="series")
    assert 0 < len(series) < 10 and not said


@pytest.mark.parametrize("kind", FORMATS)
def test_a_value_that_lies_before_the_window_is_not_known(kind: str, tmp_path: Path) -> None:
    frame = pd.concat(
        [
            pd.DataFrame({"id": "a", "date": pd.date_range("2023-01-01", periods=90), "y": np.arange(90) % 7.0}),
            pd.DataFrame({"id": "b", "date": pd.to_datetime(["2023-03-01", "2023-03-31"]), "y": [1.0, None]}),
        ]
    )
    frame["date"] = frame["date"].dt.strftime("%Y-%m-%d")
    data, series, _ = read(saved(frame, tmp_path, kind))
    assert series == ["a"] and np.isfinite(data.predict_records[0].value[:8]).all()


# lag-llama#132, autogluon/autogluon#4743, ourownstory/neural_prophet#1142: panels of several frequencies.
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("steps", "own"),
    [
        ({"most": ("1h", 600), "other": ("1D", 120)}, "1D"),
        ({"most": ("1D", 600), "other": ("7D", 60)}, "7D"),
        ({"other": ("6h", 90), "most": ("10min", 900)}, "6h"),
        ({"most": ("1D", 900), "other": ("MS", 25)}, "1 month"),
    ],
)
def test_a_series_of_another_step_is_left_out_and_named(
    kind: str, steps: dict[str, tuple[str, int]], own: str, tmp_path: Path
) -> None:
    path = saved(stepped(steps), tmp_path, kind)
    data, series, said = read(path)
    assert series == ["most"] and trained_on(data) == {"most"}
    assert f"left out, since their step is not {data.cutter.grid}" in said and f"'other' ({own})" in said
    assert "\n" not in said


@pytest.mark.parametrize("kind", FORMATS)
def test_a_series_of_shorter_steps_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = saved(stepped({"most": ("1D", 600), "other": ("1h", 100)}), tmp_path, kind)
    with pytest.raises(ValueError, match="series 'other' of .* has two rows in one step of 1D"):
        read(path)


@pytest.mark.parametrize("rows", [2, 3, 5, 30])
def test_a_series_with_many_rows_absent_is_no_series_of_another_step(rows: int, tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    at = np.cumsum(g.choice([3, 5, 8], rows))
    gappy = pd.DataFrame({"id": "b", "date": [str(DAY + timedelta(int(i))) for i in at], "y": np.arange(rows) % 3})
    whole = pd.DataFrame({"id": "a", "date": [str(DAY + timedelta(i)) for i in range(200)], "y": np.arange(200) % 7})
    data, series, said = read(saved(pd.concat([whole, gappy]), tmp_path))
    assert series == ["a", "b"] and "left out" not in said
    assert "only predicted, with too few rows for 8 steps and a horizon: 'b'" in said


SPANS: dict[str, tuple[dict[str, tuple[int, int]], str]] = {
    "shorter than a window": ({"a": (0, 120), "b": (100, 6)}, "only predicted, with too few rows for 8 steps"),
    "of one row": ({"a": (0, 120), "b": (70, 1)}, "only predicted, with too few rows for 8 steps"),
    "ended early": (
        {"a": (0, 120), "b": (0, 60)},
        "trained on and predicted, but not tested, since they end too early",
    ),
    "begins late": ({"a": (0, 120), "b": (95, 25)}, "scored and predicted, but not trained on, since they begin too l"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("what", SPANS)
def test_a_series_that_is_not_used_in_full_is_named_with_what_happens_to_it(
    what: str, kind: str, tmp_path: Path
) -> None:
    spans, expected = SPANS[what]
    data, series, said = read(panel(tmp_path, spans, kind))
    assert said.startswith("of the 2 series of ") and f"{expected}" in said and said.endswith("'b'")
    assert series == ["a", "b"] and ("b" in trained_on(data)) == (what == "ended early")


def test_nothing_is_said_of_series_that_are_used_in_full(tmp_path: Path) -> None:
    assert read(panel(tmp_path, dict.fromkeys("abc", (0, 120))))[2] == ""


@pytest.mark.parametrize("name", ["s{}", "\x1b[2J{}", "\u202e{}", "x" * 500 + "{}"])
def test_a_line_about_many_series_is_short_and_clean(name: str, tmp_path: Path) -> None:
    spans = {"all": (0, 1500)} | {name.format(i): (40 + i % 50, 3) for i in range(300)}
    _, series, said = read(panel(tmp_path, spans))
    assert len(series) == 301 and "and 295 more" in said and len(said) < 600 and said.isprintable()


# ourownstory/neural_prophet#426, Nixtla/nixtla#392: a history at another frequency than that of the training.
STEPS = {"1h": "1h", "1D": "1D", "7D": "1W", "MS": "1M", "15min": "15min", "YS": "1Y"}


def history(folder: Path, freq: str, kind: str = "csv", rows: int = 12) -> str:
    return saved(stepped({"a": (freq, rows)}).rename(columns={"date": "time"}).drop(columns="id"), folder, kind)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("freq", STEPS)
@pytest.mark.parametrize("trained", STEPS)
def test_a_history_whose_step_is_not_that_of_training_is_refused(
    trained: str, freq: str, kind: str, tmp_path: Path
) -> None:
    path = history(tmp_path, freq, kind)
    if trained == freq:
        assert np.isfinite(read_history(path, ["y"], 2, 4, trained={"step": STEPS[trained]}).value[:4]).all()
        return
    with pytest.raises(ValueError, match=r"lie .* apart, and the network was trained on steps of") as refused:
        read_history(path, ["y"], 2, 4, trained={"step": STEPS[trained]})
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


@pytest.mark.parametrize(("given", "right"), [("1D", True), ("24h", True), ("1h", False), ("1W", False), ("1M", False)])
def test_a_step_that_is_given_is_that_of_training(given: str, right: bool, tmp_path: Path) -> None:
    path = history(tmp_path, "1D")
    if right:
        assert read_history(path, ["y"], 2, 4, trained={"step": "1D"}, step=given).series == "t"
        return
    with pytest.raises(ValueError, match=f"step is '{given}', and the network was trained on steps of 1D"):
        read_history(path, ["y"], 2, 4, trained={"step": "1D"}, step=given)


@pytest.mark.parametrize("gone", [[3], [1, 2, 3], [2, 4, 6, 8], [9]])
def test_rows_that_are_absent_are_no_other_step(gone: list[int], tmp_path: Path) -> None:
    frame = pd.read_csv(history(tmp_path, "1D")).drop(index=gone)
    record = read_history(saved(frame, tmp_path), ["y"], 2, 12, trained={"step": "1D"})
    assert np.flatnonzero(np.isnan(record.value[:12, 0])).tolist() == gone


def test_months_of_one_length_are_months_to_a_network_of_months(tmp_path: Path) -> None:
    frame = pd.DataFrame({"time": ["2023-07-01", "2023-08-01"], "y": [1.0, 2.0]})
    record = read_history(saved(frame, tmp_path), ["y"], 3, 2, trained={"step": "1M"})
    steps = [str(np.datetime64(round(hours), "h"))[:10] for hours in record.time]
    assert steps == ["2023-07-01", "2023-08-01", "2023-09-01", "2023-10-01", "2023-11-01"]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_checkpoint_keeps_the_step_of_its_table(kind: str, here: Path, tmp_path: Path) -> None:
    network, trained = load_trained("best", "small")
    assert network.options.values.step == trained["step"] == "1D"
    right, wrong = (days(20, step=step).query("id == 'north'").drop(columns="id") for step in ("1D", "1h"))
    for frame, given in ((right, []), (wrong, []), (right, ["--step", "1h"])):
        words = ["plan", "--run", "small", "--input", saved(frame, tmp_path, kind), "--no-texts", "--samples=2", *given]
        assert main(words) == (0 if frame is right and not given else 2)


@pytest.mark.parametrize("kind", FORMATS)
def test_predict_and_test_refuse_a_table_of_another_step(kind: str, here: Path, tmp_path: Path) -> None:
    path = saved(days(60, step="1h"), tmp_path, kind)
    for stage in ("predict", "test"):
        with pytest.raises(SystemExit, match="values.step: 1D in the checkpoint, 1h here"):
            train.main([stage, "--run", "small", f"--data.path={path}"])
    names = {"time_column": "when", "series_column": "id", "value_columns": ["a", "b"], "context": 4, "horizon": 2}
    with pytest.raises(ValueError, match="trained on steps of 1D, and the data has steps of 1h"):
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.validate(load_trained("best", "small")[0], datamodule=TableSequences(path, **names))


def test_a_network_that_was_shared_keeps_its_step(here: Path, tmp_path: Path) -> None:
    push("small", tmp_path / "out")
    assert GoalNetwork.from_pretrained(tmp_path / "out").options.values.step == "1D"
    pull(tmp_path / "out", "runs/fetched")
    path = saved(days(20, step="1h").query("id == 'north'").drop(columns="id"), tmp_path)
    with pytest.raises(ValueError, match="the rows of .* lie 1h apart, and the network was trained on steps of 1D"):
        read_history(path, ["a", "b"], 2, time_column="when", trained=load_trained("best", "fetched")[1])


@pytest.mark.parametrize(("kind", "step"), [(Storms, "6h"), (Strikes, "7D"), (SequenceData, None)])
def test_other_data_name_their_steps(kind: type[SequenceData], step: str | None) -> None:
    assert kind.step == step


# unit8co/darts and Nixtla keep one long file of several series.
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["id", "unique_id", "item_id", "Series"])
def test_a_history_of_several_series_is_refused_even_where_nobody_named_their_column(
    name: str, kind: str, tmp_path: Path
) -> None:
    frame = pd.DataFrame(
        {name: ["low"] * 60 + ["high"] * 3, "time": [str(DAY + timedelta(i)) for i in range(63)], "y": range(63)}
    )
    path = saved(frame, tmp_path, kind)
    with pytest.raises(ValueError, match=f"has a column '{name}' of several series.*name it with series_column"):
        read_history(path, ["y"], 2, 8)
    with pytest.raises(ValueError, match="has 2 series, 'low', 'high'; a plan goes on from one; name it with series"):
        read_history(path, ["y"], 2, 8, series_column=name)
    record = read_history(path, ["y"], 2, 8, series_column=name, series="high")
    assert record.series == "high" and record.value[: record.goal_start + 1, 0].tolist() == [60, 61, 62]


@pytest.mark.parametrize(
    ("name", "cells"),
    [("id", list(range(12))), ("id", ["one"] * 12), ("status", ["TS"] * 6 + ["HU"] * 6), ("id", [None] * 12)],
)
def test_other_columns_name_no_series(name: str, cells: list[Any], tmp_path: Path) -> None:
    frame = pd.DataFrame({name: cells, "time": [str(DAY + timedelta(i)) for i in range(12)], "y": range(12)})
    assert read_history(saved(frame, tmp_path), ["y"], 2, 8).value[7, 0] == 11


def test_a_table_that_mixes_series_says_so(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = panel(tmp_path, {"a": (0, 60), "b": (60, 60)})
    data = TableSequences(path, **COLUMNS | {"series_column": None}, context=8, horizon=4)
    data.setup("fit")
    assert any("if 'id' names several, give series_column" in str(w.message) for w in recwarn)


@pytest.mark.parametrize("kind", FORMATS)
def test_plan_takes_one_series_of_the_table_of_training(
    kind: str, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = saved(days(60), tmp_path, kind)
    words = ["plan", "--run", "small", "--input", path, "--samples", "2", "--json", str(tmp_path / "p.json")]
    for series in ("north", "south"):
        main([*words, "--series", series])
        line = json.loads((tmp_path / "p.json").read_text())
        own = days(60).query(f"id == '{series}'")
        assert line["series"] == series and line["context"][-1] == own[["a", "b"]].iloc[-1].tolist()
    for more, message in (
        ([], "has 2 series, 'north', 'south'; a plan goes"),
        (["--series", "x"], "series is 'x'; exp"),
    ):
        assert main([*words, *more]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("count", [7, 20_000])
def test_the_series_that_are_offered_are_few(count: int, tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": np.repeat([f"s{i}" for i in range(count)], 2), "y": 1.0})
    frame["time"] = np.tile(["2023-01-01", "2023-01-02"], count)
    with pytest.raises(ValueError, match=f"has {count:,} series, 's0', .* and {count - 5:,} more; a plan") as refused:
        read_history(saved(frame, tmp_path), ["y"], 2, series_column="id")
    assert len(str(refused.value)) < 300
