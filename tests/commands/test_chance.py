"""`gssr chance` on a history of the user's own: the numbers are those of Python, and what is wrong is one paragraph."""

import json
import math
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lightning import Trainer

from gssr.commands.main import main
from gssr.runs.trained import load_trained
from gssr.search.beliefs import chance, learn_twist
from gssr.sequences.collate import collate
from gssr.sequences.record import Record
from gssr.understanding import Reader, Understood
from tests.networks import make_network

EVENTS = ["wind +3 within 12h", "wind >= 55 at 2 and pressure 900..1020 until 6h"]


@pytest.fixture
def here(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    network = make_network(
        tiny_folder, ["wind", "pressure"], ["kt", "hPa"], latent_dim=4, hidden_dim=8, text_layers=(2,), goal_layer=2
    )
    network.world.scaler.fit(torch.tensor([[20.0, 900.0], [150.0, 1020.0], [60.0, 980.0]]))
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_model_summary=False)
    trainer.strategy.connect(network)
    trainer.save_checkpoint("best.ckpt")
    saved = torch.load("best.ckpt", weights_only=True)
    torch.save(saved | {"datamodule_hyper_parameters": {"context": 3, "horizon": 2}}, "best.ckpt")
    times = pd.date_range("2024-09-01", periods=4, freq="6h").strftime("%Y-%m-%dT%H:%MZ")
    table = pd.DataFrame({"time": times, "wind": [40.0, 55.0, 70.0, 52.0], "pressure": [1000.0, 990.0, None, 960.0]})
    table.to_csv("ian.csv", index=False)
    return tmp_path


GIVEN = ["chance", "--input", "ian.csv", "--ckpt_path", "best.ckpt", "--budget", "2000"]


def test_the_numbers_are_those_of_python(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "events.txt").write_text(f"\n{EVENTS[1]}\n\nwind >= 900 at 2\n", encoding="utf-8")
    assert main([*GIVEN, "--event", EVENTS[0], "--events", "events.txt", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    value = np.full((5, 2), np.nan, np.float32)
    value[:3] = [[55, 990], [70, np.nan], [52, 960]]
    begin = pd.Timestamp("2024-09-01T06:00Z").timestamp() / 3600
    record = Record("ian", begin + 6.0 * np.arange(5), value, [None] * 5, goal_start=2)
    network, _ = load_trained("best.ckpt")
    (own,) = chance(network, collate([record]), [*EVENTS, "wind >= 900 at 2"], budget=2000)
    assert [line["hits"] for line in printed["events"]] == [each.hits for each in own]
    assert [line["probability"] for line in printed["events"]] == [each.probability for each in own]
    assert printed["events"][0]["event"] == EVENTS[0] and own[0].hits > 0
    assert printed["events"][0]["log_probability"] == math.log(own[0].probability)
    assert printed["events"][2]["log_probability"] is None and printed["events"][2]["interval"][0] == 0

    assert main([*GIVEN, "--event", EVENTS[0], "--event", "wind >= 900 at 2"]) == 0
    shown = capsys.readouterr().out
    assert EVENTS[0] in shown and str(own[0]) in shown and "less than 1 in 668" in shown and "2,000" in shown


def test_chances_over_time_end_with_those_of_now(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GIVEN, "--event", EVENTS[0], "--json"]) == 0
    (now,) = json.loads(capsys.readouterr().out)["events"]
    assert main([*GIVEN, "--event", EVENTS[0], "--over-time", "--json", "--plot", "chances.png"]) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [step["time"] for step in steps] == ["2024-09-01T06:00Z", "2024-09-01T12:00Z", "2024-09-01T18:00Z"]
    assert steps[-1]["events"] == [{**now, "came_true": None}] and steps[1]["events"][0]["came_true"] is None
    assert Path("chances.png").read_bytes().startswith(b"\x89PNG")
    assert main([*GIVEN, "--event", EVENTS[0], "--over-time"]) == 0
    shown = capsys.readouterr().out
    assert "2024-09-01T12:00Z" in shown and EVENTS[0] in shown
    assert main([*GIVEN, "--event", EVENTS[0], "--plot", "chances.png"]) == 2
    assert "--over-time" in capsys.readouterr().err


def test_a_plan_where_an_event_holds_has_paths_in_which_it_does(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["plan", *GIVEN[1:5], "--no-texts"]
    assert main([*given, "--where", "wind >= 60 at 2", "--json", "plan.json", "--samples", "16"]) == 0
    plan = json.loads(Path("plan.json").read_text(encoding="utf-8"))["with_goal"]
    assert plan["samples"] == 16 and all(path[1][0] >= 60 for path in plan["rollouts"]) and plan["mean"][1][0] >= 60
    assert "where wind >= 60 at 2: chance" in capsys.readouterr().out
    assert main([*given, "--where", "wind >= 900 at 2"]) == 2
    assert main([*given, "--where", "wind >= 60 at 2", "--goal", "Rise"]) == 2


def make_run(here: Path, monkeypatch: pytest.MonkeyPatch, rows: int = 60, **data: Any) -> tuple[list[str], str]:
    """A run whose training windows are those of a table; what names it to a command, and a rare event."""
    monkeypatch.setattr("gssr.runs.twists.learn_twist", partial(learn_twist, steps=200))
    folder = here / "runs" / "mine" / "checkpoints"
    folder.mkdir(parents=True)
    shutil.copy("best.ckpt", folder)
    times = pd.date_range("2024-01-01", periods=rows, freq="6h").strftime("%Y-%m-%dT%H:%MZ")
    wave = np.sin(np.arange(rows) / 5)
    pd.DataFrame({"time": times, "wind": 60 + 30 * wave, "pressure": 980 - 20 * wave}).to_csv("table.csv", index=False)
    options = {"path": "table.csv", "time_column": "time", "context": 3, "horizon": 2, "goals": None}
    data = {"class_path": "datamodules.TableSequences", "init_args": options} | data
    (folder.parent / "config.yaml").write_text(yaml.safe_dump({"data": data}), encoding="utf-8")
    network, _ = load_trained(str(folder / "best.ckpt"))
    value = np.full((5, 2), np.nan, np.float32)
    value[:3] = [[55, 990], [70, np.nan], [52, 960]]
    record = Record("ian", 6.0 * np.arange(5), value, [None] * 5, goal_start=2)
    paths = network.rollout(collate([record]), [None], 10_000, calibrated=False).sample
    return ["--input", "ian.csv", "--run", "mine"], f"wind >= {float(paths[:, 0, 1, 0].quantile(0.99)):.1f} at 2"


def test_particles_find_a_rare_event_by_a_twist_that_is_learned_once(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given, rare = make_run(here, monkeypatch)
    often = ["chance", *given, "--event", "wind >= 0 at 2"]
    file = here / "runs" / "mine" / "checkpoints" / "best.twist.safetensors"
    assert main(often) == 0 and not file.exists()
    capsys.readouterr()
    found = []
    for first in (True, False):
        assert main(["chance", *given, "--event", rare, "--json"]) == 0
        shown = capsys.readouterr()
        assert ("gssr: the event is rare" in shown.err) == first and "Traceback" not in shown.err
        found += json.loads(shown.out)["events"]
        assert file.exists()
    assert found[0] == found[1] and found[0]["method"] == "particles"
    assert found[0]["probability"] == pytest.approx(0.01, rel=0.5) and found[0]["interval"][0] > 0.005
    file.write_bytes(b"damaged")
    assert main(["chance", *given, "--event", rare, "--budget", "3000"]) == 0
    shown = capsys.readouterr()
    assert "learned anew" in shown.err and "particles" in shown.out and file.stat().st_size > 1000

    assert main(["plan", *given, "--where", rare, "--no-texts", "--samples", "32", "--json", "plan.json"]) == 0
    plan = json.loads(Path("plan.json").read_text(encoding="utf-8"))
    level = float(rare.split()[2])
    assert plan["with_goal"]["samples"] == 32 and all(path[1][0] >= level for path in plan["with_goal"]["rollouts"])
    assert plan["chance"]["method"] == "particles" and plan["chance"]["probability"] == pytest.approx(0.01, rel=0.5)
    assert "particles satisfy it, as good as" in capsys.readouterr().out


def test_chances_are_corrected_by_validation_windows(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given, _ = make_run(here, monkeypatch, rows=300)
    asked = ["chance", *given, "--event", "wind >= 60 at 2", "--budget", "2000", "--json"]
    assert main(asked) == 0
    (own,) = json.loads(capsys.readouterr().out)["events"]
    assert main([*asked, "--recalibrate"]) == 0
    shown = capsys.readouterr()
    (corrected,) = json.loads(shown.out)["events"]
    known = corrected["validation"]
    assert f"came true behind {known['came_true']} of {known['windows']} validation windows" in shown.err
    assert corrected["uncorrected"] == {name: own[name] for name in corrected["uncorrected"]}
    assert corrected["probability"] != own["probability"]
    assert main(["chance", *GIVEN[1:5], "--event", EVENTS[0], "--recalibrate"]) == 2
    assert "lies in no run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"class_path": "calendar.Calendar", "init_args": {}}, "calendar.Calendar was not imported"),
        ({"init_args": {"path": "gone.csv"}}, "gone.csv"),
        ({"class_path": "datamodules.Nothing"}, "cannot be read"),
    ],
)
def test_rollouts_are_counted_where_training_windows_cannot_be_read(
    data: dict[str, Any],
    message: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given, rare = make_run(here, monkeypatch, **data)
    assert main(["chance", *given, "--event", rare, "--budget", "2000", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["events"][0]["method"] == "rollouts"
    assert message in shown.err and "rollouts are counted" in shown.err and "Traceback" not in shown.err


def test_a_time_beyond_the_horizon_is_refused_before_anything_is_imagined(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def imagined(*args: Any, **options: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("gssr.evaluation.forecasting.forecast", imagined)
    monkeypatch.setattr("gssr.network.GoalNetwork.rollout", imagined)
    assert main(["plan", *GIVEN[1:5], "--where", "wind >= 60 at 48h"]) == 2
    assert "beyond the horizon" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no event was given"),
        (["--event", ""], "the condition is empty"),
        (["--event", "winds >= 3 at 2"], "did you mean 'wind'"),
        (["--event", "wind >= 3 at 48h"], "beyond the horizon of 2 steps, 12 h"),
        (["--event", "wind >= 3 mph at 2"], "'wind' is in kt"),
        (["--events", "nowhere.txt"], "cannot be read"),
        (["--event", EVENTS[0], "--series", "x"], "series is 'x'"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*GIVEN, *arguments]) == 2
    error = "".join(line for line in capsys.readouterr().err.splitlines(True) if "computes in" not in line)
    assert message in error and "Traceback" not in error and error.count("gssr: ") == 1


def test_a_sentence_is_an_event_whose_meaning_is_told(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    meant = {"Strengthen soon": Understood("goal", "wind >= 60 at 2", 0.9), "Sing": Understood("none", None, 0.9)}
    monkeypatch.setattr(Reader, "bundled", lambda: SimpleNamespace(read=lambda text, setting: meant[text]))
    assert main([*GIVEN, "--event", "Strengthen soon", "--event", "wind >= 60 at 2", "--json"]) == 0
    said = capsys.readouterr()
    one, two = json.loads(said.out)["events"]
    assert one["event"] == "wind >= 60 at 2" and one["hits"] == two["hits"]
    assert "'Strengthen soon' is understood as: wind >= 60 at 2" in said.err
    assert main([*GIVEN, "--event", "Sing"]) == 2
    assert "no goal" in capsys.readouterr().err
    assert main([*GIVEN, "--event", "wind >= 60 knots at 2"]) == 2  # a mistake in an event is no sentence
    assert "'wind' is in kt" in capsys.readouterr().err
