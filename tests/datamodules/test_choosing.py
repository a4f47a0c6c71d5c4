"""What a table decides itself: the column of times, context and horizon, and where contexts may lie."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import train
from datamodules.table_sequences import TableSequences
from datamodules.tables.choosing import context_of, horizon_of

AUTO = {"time_column": "auto", "context": "auto", "horizon": "auto", "lead_in": True}


def months(rows: int = 240, season: float = 3.0) -> pd.DataFrame:
    times = pd.date_range("2000-01-01", periods=rows, freq="MS").strftime("%Y-%m-%d")
    y = season * np.sin(np.arange(rows) * 2 * np.pi / 12) + np.random.default_rng(0).normal(size=rows).cumsum() * 0.2
    return pd.DataFrame({"nr": np.arange(rows) % 7, "when": times, "y": y.round(3)})


def made(frame: pd.DataFrame, folder: Path, **options: Any) -> TableSequences:
    frame.to_csv(folder / "t.csv", index=False)
    data = TableSequences(str(folder / "t.csv"), **({"value_columns": ["y"], "goals": None} | options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.prepare_data()
        data.setup()
    return data


def test_months_with_a_season(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = made(months(), tmp_path, **AUTO)
    assert data.chosen == {"time_column": "when", "context": 36, "horizon": 12}
    assert {data.hparams[name] for name in ("context", "horizon")} == {36, 12} and data.hparams.time_column == "when"
    window = data.windows("train")[0]
    assert len(window) == 48 and window.goal_start == 35
    said = capsys.readouterr().out
    assert "time_column 'when', the first column of dates" in said
    assert "season 12 by the calendar and by autocorrelation: context 36" in said


def test_rows_without_dates_are_counted_and_a_season_is_found_in_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = made(months().drop(columns="when"), tmp_path, **AUTO)
    assert data.chosen == {"time_column": None, "context": 36, "horizon": 12} and data.season_steps == 12
    said = capsys.readouterr().out
    assert "no column of dates: rows are counted" in said and "season 12 by autocorrelation: horizon 12" in said


def test_what_is_given_is_not_chosen(tmp_path: Path) -> None:
    data = made(months(), tmp_path, time_column="when", context="auto", horizon=5, lead_in=True)
    assert data.chosen == {"context": 36, "horizon": 5}
    assert made(months(), tmp_path, time_column="when").chosen == {}


def test_a_column_of_that_name_is_that_column(tmp_path: Path) -> None:
    data = made(months().rename(columns={"when": "auto"}), tmp_path, time_column="auto")
    assert data.chosen == {} and data.step == "1 month"


def test_a_step_that_the_chosen_horizon_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="goal_step is 90"):
        made(months(), tmp_path, goal_step=90, **AUTO)


@pytest.mark.parametrize(
    ("season", "context", "horizon"),
    [(None, 24, 8), (4, 16, 8), (5, 16, 10), (7, 21, 14), (12, 36, 12), (24, 72, 24), (48, 64, 48), (52, 68, 8),
     (365, 24, 8)],
)  # fmt: skip
def test_sizes_by_the_season(season: int | None, context: int, horizon: int) -> None:
    assert (context_of(season, 10, 10_000), horizon_of(season, 10_000)) == (context, horizon)


def test_a_context_fits_into_the_parts_where_it_may_not_lie_before_them(tmp_path: Path) -> None:
    data = made(months(), tmp_path, **AUTO | {"lead_in": False})
    assert data.chosen["horizon"] == 12 and data.chosen["context"] == 12
    assert min(len(data.windows(name)) for name in ("val", "test")) == 13


def test_few_rows_make_short_windows() -> None:
    assert context_of(12, 4, 48) == 12 and horizon_of(12, 48) == 4


def test_contexts_lie_before_their_part_and_horizons_never_do(tmp_path: Path) -> None:
    options = {"time_column": "when", "context": 24, "horizon": 6}
    inside, leading = made(months(), tmp_path, **options), made(months(), tmp_path, lead_in=True, **options)
    frame = pd.read_csv(tmp_path / "t.csv")
    starts = {
        name: [pd.Timestamp(window.time[24] * 3600, unit="s") for window in leading.windows(name)]
        for name in ("val", "test")
    }
    cuts = [pd.Timestamp(frame["when"][row]) for row in (168, 204)]
    assert min(starts["val"]) == cuts[0] and min(starts["test"]) == cuts[1] > max(starts["val"])
    assert len(leading.windows("val")) == len(inside.windows("val")) + 24 == 31
    assert len(leading.windows("train")) == len(inside.windows("train"))
    assert torch.equal(inside.scaler.mean, leading.scaler.mean)


def test_the_config_of_a_run_holds_what_was_chosen(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a table alone; going on and forecasting choose nothing again."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    months().to_csv("t.csv", index=False)
    config = Path(train.__file__).parent / "configs" / "any_table.yaml"
    small = {"trainer.max_steps": 2, "trainer.val_check_interval": 2, "model.world.goal_layer": 1, "threads": 1,
        "model.world.text_layers": "[1]", "model.backbone.name": tiny_folder, "data.value_columns": "[y]"}  # fmt: skip
    words = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    train.main(["fit", "--config", str(config), "--data.path", "t.csv", "--run", "one", *words])
    options = yaml.safe_load(Path("runs/one/config.yaml").read_text())
    own, world = options["data"]["init_args"], options["model"]["init_args"]["world"]
    assert (own["time_column"], own["context"], own["horizon"]) == ("when", 36, 12)
    assert world["normalisation"] in ("training", "window", "last", "mixed") and world["calendar"] in (True, False)
    months(260, 0.0).to_csv("t.csv", index=False)
    train.main(["predict", "--run", "one"])
    assert list(Path("runs/one").glob("predict*/predictions.jsonl"))
    with pytest.raises(SystemExit, match="trained without goals"):
        train.main(["predict", "--run", "one", "--data.goal", "Raise y to 1 within 3 months"])
    months().to_csv("t.csv", index=False)
    train.main(["fit", "--run", "one", "--ckpt_path", "last", "--trainer.max_steps", "3"])
    again = yaml.safe_load(Path("runs/one/config.yaml").read_text())
    assert again["data"]["init_args"]["context"] == 36 and again["model"]["init_args"]["world"] == world
    torch.set_num_threads(threads)
