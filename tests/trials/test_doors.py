"""One table gives the same scores and forecasts in each format and by each door, and so does its beginning."""

import json
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from lightning import Trainer

import train
from datamodules import TableSequences
from datamodules.tables.history import read_history
from gssr.commands.main import main
from gssr.evaluation.forecasting import forecast
from gssr.evaluation.predictions import Forecast
from gssr.network import GoalNetwork
from gssr.runs.trained import load_trained
from gssr.sequences.collate import collate
from tests.conftest import SENTENCES
from tests.fuzz.damage import fuzz
from tests.trials.conftest import fit
from tests.trials.test_formats import FORMATS, OPTIONS, options_for, tables, write

pytestmark = [pytest.mark.trial, pytest.mark.filterwarnings("ignore")]
C, H = 4, 2


@pytest.fixture(scope="module")
def network(trained_place: Path) -> GoalNetwork:
    """The trained network as one that does not know its step, which takes tables of any."""
    network = load_trained(str(trained_place / "runs/small/checkpoints/best.ckpt"))[0]
    network.options.values = replace(network.options.values, step=None)
    return network


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GSSR_CACHE", str(tmp_path / "cache"))
    return tmp_path


def opened(file: Path, **options: Any) -> TableSequences:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = TableSequences(str(file), context=C, horizon=H, batch_size=16, **OPTIONS | options)
        data.setup(None)
    return data


def predicted(network: GoalNetwork, data: TableSequences) -> list[dict[str, Any]]:
    """The lines of `predict`, without texts."""
    network.objective.lacks = {"text"}
    batch = collate([data.predict_records[i] for i in range(len(data.predict_records))])
    return [json.loads(line) for line in Forecast.of(network, batch, *network.predict_step(batch, 0)).lines()]


def scores(network: GoalNetwork, data: TableSequences) -> dict[str, float]:
    how = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", limit_val_batches=2, **how)
    return trainer.validate(network, datamodule=data, verbose=False)[0]


@fuzz(4)
@given(frame=tables())
def test_scores_and_forecasts_in_python(frame: pd.DataFrame, network: GoalNetwork, cache: Path) -> None:
    first: list[Any] = []
    options = options_for(frame)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        for kind in FORMATS:
            file = write(frame, kind, Path(folder))
            data, name = opened(file, **options), frame["id"].iloc[-1]
            record = read_history(file, ["a", "b"], H, C, series=name, goal="Rise to 3", trained=options)
            found = [predicted(network, data), forecast(network, [record], 4, False).lines()]
            found += [scores(network, data)] if kind in ("csv", "jsonl", "parquet") else first[2:]
            first = first or found
            assert found == first, kind
    assert np.isfinite(list(first[2].values())).all() and len(first[2]) > 5


@fuzz(1)
@given(frame=tables().filter(lambda frame: frame["id"].nunique() > 1))
def test_fit_predict_and_plan_by_their_commands(frame: pd.DataFrame, here: Path, tiny_folder: Path) -> None:
    first: list[Any] = []
    with tempfile.TemporaryDirectory(dir=here) as folder:
        for kind in ("csv", "jsonl", "parquet"):
            file, run = write(frame, kind, Path(folder)), f"{Path(folder).name}-{kind}"
            fit(file, run, tiny_folder, "--trainer.max_steps", "2", "--trainer.val_check_interval", "2")
            metrics = pd.read_csv(here / "runs" / run / "metrics.csv").drop(columns=["seconds"], errors="ignore")
            train.main(["predict", "--run", run, "--prediction_writer.charts", "0"])
            (lines,) = (here / "runs" / run).glob("predict-*/predictions.jsonl")
            plan = Path(folder) / "plan.json"
            asked = [
                "--series",
                frame["id"].iloc[0],
                "--goal",
                "Rise to 3",
                "--mode",
                "pull",
                "--samples",
                "4",
                "--no-texts",
            ]
            assert main(["plan", "--run", run, "--input", str(file), "--json", str(plan), *asked]) == 0
            found = [metrics.to_csv(), lines.read_text(encoding="utf-8"), plan.read_text(encoding="utf-8")]
            first = first or found
            assert found == first, kind
    assert len(first[1].splitlines()) == frame["id"].nunique()


@st.composite
def begun(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.Timestamp, dict[str, Any]]:
    """A table of some series that begin and end when they like, with gaps; one of its times; and options."""
    g = np.random.default_rng(draw(st.integers(0, 2**32)))
    step = draw(st.sampled_from(["15min", "6h", "1D", "7D"]))
    clock, parts = pd.date_range("2021-03-01T06:00", periods=90, freq=step), []
    for name in "abcd"[: draw(st.integers(1, 4))]:
        first, last = (0, 90) if name == "a" else (int(g.integers(0, 70)), int(g.integers(75, 91)))
        when = clock[first:last]
        values = g.normal(size=(len(when), 2)).cumsum(0).round(2)
        values[g.random(values.shape) < draw(st.sampled_from([0, 0.15]))] = np.nan
        frame = pd.DataFrame({"id": name, "when": when, "a": values[:, 0], "b": values[:, 1]})
        frame["said"] = [str(g.choice(SENTENCES)) if g.random() < 0.3 else None for _ in when]
        frame["aim"] = [f"Be at {g.integers(-9, 9)}" if g.random() < 0.2 else None for _ in when]
        parts.append(frame[g.random(len(frame)) > draw(st.sampled_from([0, 0.1]))])
    frame = pd.concat(parts, ignore_index=True)
    frame.loc[0, "said"], frame.loc[:9, "aim"] = "words", "Be at 3"
    goals: dict[str, Any] = draw(
        st.sampled_from([{"goals": None}, {}, {"goal": "Rise to 4"}, {"goal_column": "aim"}, {"goals": "goals.csv"}])
    )
    more = {"step": step, "split_by": "time", "text_lag": draw(st.integers(0, 2))}
    return frame, draw(st.sampled_from(sorted(frame["when"][frame["when"] > clock[40]]))), goals | more


@fuzz(30)
@given(drawn=begun())
def test_predict_from_a_row_is_predict_of_the_table_up_to_it(
    drawn: tuple[pd.DataFrame, pd.Timestamp, dict[str, Any]], network: GoalNetwork, cache: Path
) -> None:
    frame, cut, options = drawn
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        if options.get("goals") == "goals.csv":
            goals = frame.dropna(subset="aim")[["id", "when", "aim"]].rename(columns={"aim": "goal"})
            goals.set_axis(["id", "when", "goal"], axis=1).to_csv(Path(folder, "goals.csv"), index=False)
            options = options | {"goals": str(Path(folder, "goals.csv"))}
        whole, known = Path(folder, "whole.csv"), Path(folder, "known.csv")
        frame.to_csv(whole, index=False, date_format="%Y-%m-%dT%H:%M")
        frame[frame["when"] <= cut].to_csv(known, index=False, date_format="%Y-%m-%dT%H:%M")
        try:
            begun_only = opened(known, **options)
        except ValueError as error:
            assume("no series of the" not in str(error))  # too little is known to train on
            raise
        found, expected = (
            predicted(network, data)
            for data in (opened(whole, **options, predict_from=cut.strftime("%Y-%m-%dT%H:%M")), begun_only)
        )
        for line in (*found, *expected):
            assert len(line.pop("truth")) == H
        assert found == expected


def test_predict_from_by_the_command(here: Path) -> None:
    frame = pd.read_csv("days.csv", parse_dates=["when"])
    frame[frame["when"] <= "2024-02-20"].to_csv("known.csv", index=False)
    found = []
    for more in (["--data.predict_from", "2024-02-20"], ["--data.path", "known.csv"]):
        train.main(["predict", "--run", "small", "--prediction_writer.charts", "0", *more])
        files = (here / "runs/small").glob("predict-*/predictions.jsonl")
        lines = max(files, key=lambda file: file.stat().st_mtime_ns).read_text(encoding="utf-8").splitlines()
        found.append([json.loads(line) | {"truth": None} for line in lines])
    assert found[0] == found[1] and len(found[0]) == 2
