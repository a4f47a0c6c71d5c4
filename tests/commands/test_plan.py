"""`gssr plan` on a history of the user's own: the numbers are the network's, and what is wrong with a file is said."""

import argparse
import json
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import pytest
import rich.console
import torch

from datamodules.tables.history import read_history
from gssr.commands import plan as plan_command
from gssr.evaluation.forecasting import forecast
from gssr.network.speaker import Speaker
from gssr.runs.trained import load_trained
from gssr.sequences.collate import collate
from gssr.understanding import Reader, Understood
from tests.networks import make_network

GOAL = "Weaken to 35 knots in 48 hours"
PULLED = ("--goal", GOAL, "--mode", "pull")


@pytest.fixture(scope="module")
def checkpoint(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = make_network(
        tiny_folder, latent_dim=4, hidden_dim=8, text_layers=(2,), goal_layer=2, names=["wind", "pressure"]
    )
    network.world.scaler.fit(torch.tensor([[20.0, 900.0], [150.0, 1020.0], [60.0, 980.0]]))
    network.world.steering.schedule.arrival.data.fill_(3.0)
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_model_summary=False)
    trainer.strategy.connect(network)
    file = tmp_path_factory.mktemp("run") / "best.ckpt"
    trainer.save_checkpoint(file)
    saved = torch.load(file, weights_only=True)
    torch.save(saved | {"datamodule_hyper_parameters": {"context": 3, "horizon": 2}}, file)
    return file


def table(rows: int = 5) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "time": pd.date_range("2024-09-01", periods=rows, freq="6h").strftime("%Y-%m-%dT%H:%MZ"),
            "wind": [40.0, 55.0, 70.0, 90.0, 100.0][:rows],
            "pressure": [1000.0, 990.0, None, 960.0, 950.0][:rows],
            "text": ["Tropical storm.", None, "Hurricane.", "Hurricane.", " "][:rows],
        }
    )


def run(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    plan_command.add_commands(parser.add_subparsers())
    options = parser.parse_args(["plan", *map(str, arguments)])
    options.run(options)


def lines(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_plan_is_the_networks_own(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    table().to_csv(tmp_path / "ian.csv", index=False)
    run(
        *("--input", tmp_path / "ian.csv", "--ckpt_path", checkpoint, *PULLED, "--samples", 4),
        *("--json", tmp_path / "plan.json", "--plot", tmp_path / "fan.png"),
    )
    line = lines(tmp_path / "plan.json")
    assert line["goal"] == GOAL and line["time"][-2:] == ["2024-09-02T06:00Z", "2024-09-02T12:00Z"]
    assert line["context"] == [[70.0, None], [90.0, 960.0], [100.0, 950.0]]  # the last 3 rows, as in training

    network, trained = load_trained(str(checkpoint))
    record = read_history(tmp_path / "ian.csv", network.value_names, 2, 3, goal=GOAL)
    assert trained["horizon"] == 2
    assert record.text == ["Hurricane.", "Hurricane.", None, None, None] and np.isnan(record.value[3:]).all()
    for name, goal in (("with_goal", GOAL), ("without_goal", None)):
        plan = network.plan(collate([record]), [goal], 4, generator=torch.Generator().manual_seed(0))
        np.testing.assert_allclose(line[name]["mean"], plan.mean[0], rtol=1e-6)
        assert line[name]["text"] == plan.text[0]
    assert line["with_goal"]["mean"] != line["without_goal"]["mean"]
    assert (tmp_path / "fan.png").read_bytes()[:4] == b"\x89PNG"
    printed = capsys.readouterr().out
    assert "mean [central 80 %] of rollouts" in printed
    assert GOAL in printed and "wind" in printed and "2024-09-02T12:00Z" in printed


@pytest.mark.parametrize(("width", "ranges"), [(160, 3), (60, 2)])
def test_a_plan_is_read_in_lines_of_one_step(
    width: int,
    ranges: int,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Speaker, "write", lambda self, x, *args: ["Rain  again.", "Rain again.", "Sun."][: len(x)])
    monkeypatch.setattr(rich.console.Console, "width", width)
    table().to_csv(tmp_path / "ian.csv", index=False)
    given = ("--ckpt_path", checkpoint, "--samples", 4, *PULLED, "--horizon", 3)
    run("--input", tmp_path / "ian.csv", *given)
    printed = capsys.readouterr().out.splitlines()
    steps = [line for line in printed if line.strip().startswith("2024-09-02")]
    assert len(steps) == 6 and max(map(len, steps)) <= min(width, 100)
    assert [line.count("[") for line in steps[:3]] == [ranges] * 3
    assert [line.split(" ", 1)[1] for line in steps[3:]] == ["Rain  again.", "〃", "Sun."]
    assert any("typical rollout" in line for line in printed)


def test_different_futures_are_told_on_the_terminal_and_in_json(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Speaker, "write", lambda self, x, *args: [f"Text {i}." for i in range(len(x))])
    table().to_csv(tmp_path / "ian.csv", index=False)
    given = ("--ckpt_path", checkpoint, "--samples", 5, "--horizon", 2, "--input", tmp_path / "ian.csv")
    run(*given, "--samples-in-words", 3, "--json", tmp_path / "plan.json")
    printed = capsys.readouterr().out
    assert [f"future {k} of 3" in printed for k in (1, 2, 3, 4)] == [True, True, True, False]
    assert "future 1 of 3: a typical rollout" in printed and all(f"Text {i}." in printed for i in range(6))
    plan = lines(tmp_path / "plan.json")["without_goal"]
    assert len(plan["futures"]) == 3 and plan["futures"][0]["text"] == plan["text"]
    assert sum(future["share"] for future in plan["futures"]) == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="tell fewer, or imagine more"):
        run(*given, "--samples-in-words", 6)


def test_without_a_goal_it_is_a_forecast_from_any_kind_of_table(checkpoint: Path, tmp_path: Path) -> None:
    frame = table()
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "a.parquet")
    results = []
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        options = ("--ckpt_path", checkpoint, "--samples", 2, "--horizon", 3, "--no-texts")
        run("--input", tmp_path / name, *options, "--json", tmp_path / "plan.json")
        results.append(lines(tmp_path / "plan.json"))
    assert results[0] == results[1] == results[2]
    assert results[0]["with_goal"] is None and len(results[0]["without_goal"]["mean"]) == 3


def test_the_strength_of_the_goal_can_be_chosen(checkpoint: Path, tmp_path: Path) -> None:
    table().to_csv(tmp_path / "ian.csv", index=False)
    given = ["--ckpt_path", checkpoint, "--input", tmp_path / "ian.csv", *PULLED, "--no-texts", "--samples", 4]
    plans = {}
    for strength in ("0", "1.25", "2", None):
        file = tmp_path / f"{strength}.json"
        run(*given, "--json", file, *([] if strength is None else ["--strength", strength]))
        plans[strength] = lines(file)
    assert plans[None] == plans["1.25"] != plans["2"]
    assert plans["0"]["with_goal"]["mean"] == plans["0"]["without_goal"]["mean"]


def broken(**columns: object) -> pd.DataFrame:
    return table().assign(**columns)


@pytest.mark.parametrize(
    ("frame", "arguments", "message"),
    [
        (table().rename(columns={"wind": "winds"}), [], "did you mean 'winds'"),
        (table().rename(columns={"time": "when"}), [], "time_column is 'time', but .* has no such column"),
        (table()[::-1], [], "times are not sorted; sort the rows, or give sort_rows"),
        (broken(time="soon"), [], "'soon' in row 1; expected ISO 8601"),
        (broken(wind=["a", "b", "c", "d", "e"]), [], "value column 'wind' holds 'a' in row 1"),
        (table(), ["--text_column", "words"], "text_column is 'words', but"),
        (table(), ["--step", "soon"], "step is 'soon'; expected a number and a unit"),
        (table()[:0], [], "no rows"),
        (table()[:1], [], "at least 2"),
        (table(), ["--goal", "  "], "the goal is empty"),
        (table(), ["--goal", GOAL, "--goal_step", "9"], "expected a step of the horizon, from 1 to 2"),
        (table(), ["--dimension", "sea"], "expected one of the network's values"),
        (table(), ["--json", "nowhere/at/all.json"], "does not exist"),
    ],
)
def test_what_is_wrong_is_said(
    frame: pd.DataFrame, arguments: list[str], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(ValueError, match=message):
        run("--input", tmp_path / "a.csv", "--ckpt_path", checkpoint, *arguments)


def test_files_that_are_none_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        run("--input", tmp_path / "a.csv", "--ckpt_path", checkpoint)
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(ValueError, match="ends in '.doc'"):
        run("--input", tmp_path / "a.doc", "--ckpt_path", checkpoint)
    table().to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "bad.ckpt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        run("--input", tmp_path / "a.csv", "--ckpt_path", tmp_path / "bad.ckpt")


def test_another_unit_is_suspected(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    table().assign(pressure=1e5).to_csv(tmp_path / "a.csv", index=False)
    run("--input", tmp_path / "a.csv", "--ckpt_path", checkpoint, "--samples", 2, "--no-texts")
    assert "pressure lies far outside" in capsys.readouterr().err


def test_python_and_the_command_give_the_same_plan(checkpoint: Path, tmp_path: Path) -> None:
    table().to_csv(tmp_path / "a.csv", index=False)
    run("--input", tmp_path / "a.csv", "--ckpt_path", checkpoint, *PULLED, "--json", tmp_path / "plan.json")
    network, trained = load_trained(str(checkpoint))
    history = read_history(tmp_path / "a.csv", network.value_names, 2, 3, goal=GOAL, trained=trained)
    found = forecast(network, [history])
    told = {"understood": None, "chance": None, "likeliest": None}  # by the command alone
    assert json.loads(found.lines()[0]) == lines(tmp_path / "plan.json") | told
    predicted = network.predict_step(found.batch, 0)  # as `train.py predict` does
    for own, other in zip(predicted, (found.with_goal, found.without_goal), strict=True):
        assert torch.equal(own.rollouts.sample, other.rollouts.sample) and own.text == other.text


def test_the_table_is_read_as_in_training_unless_options_say_otherwise(checkpoint: Path, tmp_path: Path) -> None:
    frame = table()
    frame.to_csv(tmp_path / "plain.csv", index=False)
    frame = frame.rename(columns={"time": "when", "text": "words"})
    frame["when"] = pd.to_datetime(frame["when"]).dt.strftime("%d/%m/%Y %H:%M")
    frame.fillna({"pressure": -9}).to_csv(tmp_path / "other.csv", index=False, sep=";")
    options = {"time_column": "when", "time_format": "%d/%m/%Y %H:%M", "text_column": "words", "missing": ["-9.0"]}
    options |= {"delimiter": ";", "step": None, "context": 3, "horizon": 2}
    saved = torch.load(checkpoint, weights_only=True)
    torch.save(saved | {"datamodule_hyper_parameters": options}, tmp_path / "tables.ckpt")
    given = [word for name in ("time_column", "time_format", "text_column") for word in (f"--{name}", options[name])]
    given += ["--missing=-9.0", "--delimiter", ";"]
    found = []
    for file, which, more in (
        ("plain.csv", checkpoint, []),
        ("other.csv", tmp_path / "tables.ckpt", []),
        ("other.csv", checkpoint, given),
        (
            "plain.csv",
            tmp_path / "tables.ckpt",
            ["--time_column=time", "--text_column=text", "--delimiter=,", "--time_format=%Y-%m-%dT%H:%MZ"],
        ),
    ):
        run("--input", tmp_path / file, "--ckpt_path", which, "--samples", 2, *more, "--json", tmp_path / "plan.json")
        line = lines(tmp_path / "plan.json")
        assert line.pop("series") == Path(file).stem
        found.append(line)
    assert found[0] == found[1] == found[2] == found[3]


def reads(monkeypatch: pytest.MonkeyPatch, **meant: object) -> None:
    """Typed goals mean this."""
    given = {"kind": "goal", "condition": None, "sure": 0.9, **meant}
    reader = argparse.Namespace(read=lambda sentence, setting: Understood(**given))
    monkeypatch.setattr(Reader, "bundled", lambda: reader)


def planned(checkpoint: Path, folder: Path, *more: object) -> dict:
    table().to_csv(folder / "ian.csv", index=False)
    given = ("--input", folder / "ian.csv", "--ckpt_path", checkpoint, "--goal", GOAL, "--no-texts", "--samples", 16)
    run(*given, "--budget", 2000, "--json", folder / "plan.json", *more)
    return lines(folder / "plan.json")


def test_paths_of_a_typed_goal_satisfy_what_is_understood(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    reads(monkeypatch, condition="wind >= 80 at 12h")
    line = planned(checkpoint, tmp_path)
    assert min(rollout[-1][0] for rollout in line["with_goal"]["rollouts"]) >= 80
    assert line["understood"]["condition"] == "wind >= 80 at 12h" and line["understood"]["mode"] == "condition"
    assert 0 < line["chance"]["probability"] < 1 and line["goal"] == GOAL
    printed = capsys.readouterr().out
    assert f"'{GOAL}' is understood as: wind >= 80 at 12h" in printed and "chance" in printed
    pulled = planned(checkpoint, tmp_path, "--mode", "pull")
    assert pulled["understood"]["mode"] == "pull" and pulled["chance"] is not None
    assert pulled["with_goal"]["mean"] != line["with_goal"]["mean"]


def test_the_likeliest_path_stands_beside_the_plan(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    reads(monkeypatch, condition="wind >= 80 at 12h")
    line = planned(checkpoint, tmp_path, "--likeliest")
    assert line["likeliest"]["values"][-1][0] >= 80 and 0 <= line["likeliest"]["nats"] < 20
    printed = capsys.readouterr().out
    assert "likeliest path:" in printed and "likeliest\n" in printed.replace(" ", "")
    with pytest.raises(ValueError, match="give one by --goal or --where"):
        run("--input", tmp_path / "ian.csv", "--ckpt_path", checkpoint, "--likeliest")


def test_a_network_that_was_trained_without_goals_has_paths_in_which_a_goal_holds(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = torch.load(checkpoint, weights_only=True)
    saved["hyper_parameters"]["objective"]["goal_dropout"] = 1.0
    torch.save(saved, tmp_path / "free.ckpt")
    reads(monkeypatch, condition="wind >= 80 at 12h")
    line = planned(tmp_path / "free.ckpt", tmp_path)
    assert min(rollout[-1][0] for rollout in line["with_goal"]["rollouts"]) >= 80 and line["goal"] == GOAL
    assert line["understood"]["mode"] == "condition" and line["with_goal"] != line["without_goal"]
    with pytest.raises(ValueError, match="trained without goals"):
        planned(tmp_path / "free.ckpt", tmp_path, "--mode", "pull")


@pytest.mark.parametrize("kind", ["none", "other"])
def test_what_is_no_goal_changes_nothing(
    kind: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    reads(monkeypatch, kind=kind, problem="understood as no goal; it changes nothing")
    line = planned(checkpoint, tmp_path)
    assert line["with_goal"] is None and line["understood"]["mode"] == "none"
    assert "changes nothing" in capsys.readouterr().out
    free = json.loads((tmp_path / "plan.json").read_text())["without_goal"]
    given = ("--input", tmp_path / "ian.csv", "--ckpt_path", checkpoint, "--no-texts", "--samples", 16)
    run(*given, "--json", tmp_path / "free.json")
    assert lines(tmp_path / "free.json")["without_goal"] == free
    assert planned(checkpoint, tmp_path, "--mode", "pull")["understood"]["mode"] == "pull"  # whoever insists


def test_below_reach_the_pulled_path_is_shown_and_marked(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    reads(monkeypatch, condition="wind >= 100000 at 12h")
    line = planned(checkpoint, tmp_path)
    assert line["understood"]["mode"] == "pull" and line["chance"]["hits"] == 0
    printed = capsys.readouterr().out
    assert "less than 1 in" in printed and "none of its own" in printed


def test_a_goal_that_cannot_be_asked_for_says_why(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    reads(monkeypatch, problem="its time lies before the last observation")
    with pytest.raises(ValueError, match="before the last observation; type another, or add --mode pull"):
        planned(checkpoint, tmp_path)
    reads(monkeypatch, condition="wind >= 80 at 48h")
    with pytest.raises(ValueError, match="beyond the horizon"):
        planned(checkpoint, tmp_path)
    assert planned(checkpoint, tmp_path, "--mode", "pull")["chance"] is None
    assert "its chance is unknown" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--strength is that of the pull"):
        planned(checkpoint, tmp_path, "--mode", "condition", "--strength", "2")


def test_without_a_reader_goals_still_pull(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def missing() -> Reader:
        raise ValueError("the reader was learned for another language model")

    monkeypatch.setattr(Reader, "bundled", missing)
    line = planned(checkpoint, tmp_path)
    assert line["understood"] is None and line["with_goal"] is not None
    assert "another language model" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:plans have no texts")
@pytest.mark.parametrize("how", [(), ("--where", "wind > 0 at 2")])
def test_a_network_whose_beliefs_tell_nothing_of_texts_writes_none(
    checkpoint: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    saved, silent = torch.load(checkpoint, weights_only=True), tmp_path / "silent.ckpt"
    saved["state_dict"]["calibration.text_gain"].zero_()
    torch.save(saved, silent)
    table().to_csv(tmp_path / "ian.csv", index=False)
    for file, written in ((checkpoint, True), (silent, False)):
        run("--input", tmp_path / "ian.csv", "--ckpt_path", file, "--samples", 8, "--json", tmp_path / "p.json", *how)
        line = lines(tmp_path / "p.json")
        plans = [line["without_goal"]] + [line["with_goal"]] * bool(how)
        assert all(bool(plan["text"]) == written for plan in plans)


def quiet_then(noise: float, rows: int = 60) -> pd.DataFrame:
    """Wind around 60 whose last half has another noise."""
    wind = 60 + np.random.default_rng(0).normal(size=rows) * np.where(np.arange(rows) < rows // 2, 1.0, noise)
    times = pd.date_range("2024-09-01", periods=rows, freq="6h").strftime("%Y-%m-%dT%H:%MZ")
    return pd.DataFrame({"time": times, "wind": wind.round(1), "pressure": 980.0})


def fan(checkpoint: Path, file: Path, *more: object) -> np.ndarray:
    """How wide the fan of wind is at each step."""
    run("--input", file, "--ckpt_path", checkpoint, "--no-texts", "--json", file.with_suffix(".json"), *more)
    quantiles = np.array(lines(file.with_suffix(".json"))["without_goal"]["quantiles"])
    return quantiles[:, 0, -1] - quantiles[:, 0, 0]


@pytest.fixture(scope="module")
def goes_on(checkpoint: Path) -> Path:
    """The checkpoint of a network whose series go on from its training part to its test part."""
    saved, file = torch.load(checkpoint, weights_only=True), checkpoint.with_name("goes_on.ckpt")
    options = saved["datamodule_hyper_parameters"] | {"time_column": "time", "split_by": "auto"}
    torch.save(saved | {"datamodule_hyper_parameters": options}, file)
    return file


def test_fans_widen_where_forecasts_from_earlier_rows_erred(
    checkpoint: Path, goes_on: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    whole, wild = quiet_then(60.0), tmp_path / "wild.csv"
    whole.to_csv(wild, index=False)
    whole.tail(3).to_csv(tmp_path / "short.csv", index=False)
    wide, short = fan(goes_on, wild), fan(goes_on, tmp_path / "short.csv")
    assert (wide > 1.2 * short).all() and "times as wide as by validation" in capsys.readouterr().out
    # Rows that were trained on would make fans too narrow.
    quiet_then(0.01).to_csv(tmp_path / "quiet.csv", index=False)
    quiet_then(0.01).tail(3).to_csv(tmp_path / "end.csv", index=False)
    np.testing.assert_allclose(fan(goes_on, tmp_path / "quiet.csv"), fan(goes_on, tmp_path / "end.csv"))
    # Each series of other data is in one part, so that validation has seen none of it.
    np.testing.assert_allclose(fan(checkpoint, wild), short)
    assert "times as wide" not in capsys.readouterr().out


def test_a_value_whose_forecasts_erred_widens_no_other_and_narrows_none(goes_on: Path, tmp_path: Path) -> None:
    both = quiet_then(0.01)
    both["pressure"] = 980 + 20 * (quiet_then(60.0)["wind"] - 60)
    both.to_csv(tmp_path / "both.csv", index=False)
    both.tail(3).to_csv(tmp_path / "end.csv", index=False)
    np.testing.assert_allclose(fan(goes_on, tmp_path / "both.csv"), fan(goes_on, tmp_path / "end.csv"))


def test_only_values_that_have_arrived_widen_a_fan(goes_on: Path, tmp_path: Path) -> None:
    table, widths = quiet_then(60.0), []
    for name, last in (("a", 1.0), ("b", 1e4)):
        table.loc[:2, "wind"] = last  # too long ago for any forecast that is looked at
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        widths.append(fan(goes_on, tmp_path / f"{name}.csv"))
    np.testing.assert_array_equal(*widths)
