"""The season that steps have by default, and the values one season before, which `test` shows as a baseline."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datamodules.sequence_data import SequenceData
from datamodules.storms import Storms
from datamodules.table_sequences import TableSequences
from datamodules.tables.grid import Grid
from gssr.evaluation.forecast_report import SEASONAL, evaluate_forecasts
from gssr.sequences.collate import collate
from tests.evaluation.fakes import FakeNetwork

SEASONS = {
    "1h": 24, "6h": 4, "12h": 2, "15min": 96, "1min": 1440, "10s": None, "1D": 7, "1B": 5, "1W": 52, "2W": 26,
    "1M": 12, "1Q": 4, "6 months": 2, "1Y": None, "2Y": None, "10D": 37, "120D": None, "2D": 183,
}  # fmt: skip


@pytest.mark.parametrize("step", SEASONS)
def test_a_step_has_the_season_of_its_calendar(step: str) -> None:
    assert Grid.of(step).season == SEASONS[step]


def made(frame: pd.DataFrame, folder: Path, **options) -> TableSequences:
    frame.to_csv(folder / "t.csv", index=False)
    data = TableSequences(str(folder / "t.csv"), **({"time_column": "when", "value_columns": ["y"]} | options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.setup()
    return data


@pytest.mark.parametrize(
    ("freq", "zone", "period"),
    [("h", None, 24), ("D", None, 7), ("B", None, 5), ("MS", None, 12), ("ME", None, 12), ("W", None, 52),
     ("QS", None, 4), ("D", "Europe/Berlin", 7), ("6h", None, 4), ("h", "Europe/Berlin", 24)],
)  # fmt: skip
@pytest.mark.parametrize("horizon", [3, 9])
def test_values_a_season_before_are_those_of_the_row_so_many_rows_before(
    freq: str, zone: str | None, period: int, horizon: int, tmp_path: Path
) -> None:
    times = pd.date_range("2001-01-01", periods=400, freq=freq)
    frame = pd.DataFrame({"when": times.tz_localize(None).astype(str), "y": np.arange(400.0)})
    frame.loc[[310, 311], "y"] = np.nan
    data = made(frame.drop(index=[330]), tmp_path, context=4, horizon=horizon, time_zone=None if freq == "h" else zone)
    assert data.season_steps == period
    windows = [*data.windows("test"), *data.windows("train")]
    found = data.a_season_before(windows).numpy()[..., 0]
    places = {value: row for row, value in enumerate(frame["y"]) if value == value and row != 330}
    y = frame["y"].to_numpy().copy()
    y[330] = np.nan
    for window, before in zip(windows, found, strict=True):
        anchor = next(i for i, value in enumerate(window.value[:, 0]) if not np.isnan(value))
        row = places[float(window.value[anchor, 0])] - anchor
        for h in range(horizon):
            at = row + 4 + h - period * (h // period + 1)
            assert at < row + 4
            np.testing.assert_equal(before[h], y[at] if at >= 0 else np.nan)


def test_a_report_on_a_table_has_the_season_as_a_baseline(tmp_path: Path) -> None:
    hours = pd.date_range("2024-01-01", periods=600, freq="h")
    frame = pd.DataFrame({"when": hours.astype(str), "y": 10 + 5 * np.sin(2 * np.pi * np.arange(600) / 24)})
    data = made(frame.round(3), tmp_path, context=6, horizon=4)
    rows = evaluate_forecasts(FakeNetwork(), data, samples=4).table("forecast").rows
    assert rows[SEASONAL]["all steps"].value == pytest.approx(0, abs=1e-5)
    assert f"network − {SEASONAL}" in rows


def test_rows_without_times_and_data_without_a_season_have_no_such_baseline(tmp_path: Path) -> None:
    frame = pd.DataFrame({"y": np.sin(np.arange(200.0))})
    data = made(frame, tmp_path, time_column=None, context=6, horizon=4)
    assert data.season_steps is None
    assert Storms.season_steps is None and SequenceData.season_steps is None
    rows = evaluate_forecasts(FakeNetwork(), data, samples=4).table("forecast").rows
    assert SEASONAL not in rows


def test_a_season_that_the_table_does_not_reach_is_no_baseline(tmp_path: Path) -> None:
    weeks = pd.date_range("2024-01-01", periods=50, freq="7D")
    data = made(pd.DataFrame({"when": weeks.astype(str), "y": np.sin(np.arange(50.0))}), tmp_path, context=4, horizon=2)
    assert data.season_steps == 52 and bool(data.a_season_before(data.windows("test")).isnan().all())
    assert SEASONAL not in evaluate_forecasts(FakeNetwork(), data, samples=4).table("forecast").rows


def test_series_are_told_apart(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=60)
    frame = pd.concat([
        pd.DataFrame({"id": name, "when": days.astype(str), "y": start + np.arange(60.0)})
        for name, start in (("b", 1000.0), ("a", 0.0))
    ])  # fmt: skip
    data = made(frame, tmp_path, series_column="id", context=3, horizon=2)
    windows = list(data.windows("test"))
    truth = collate(windows).value[:, 3:]
    assert ((truth - data.a_season_before(windows)) == 7).all()
