"""Months, business days, weeks and stamps that wander: the grid is one, in every format and through every door."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datamodules.tables.stamps import grid_of_stamps
from datamodules.time_mmd import step_numbers
from gssr.commands.history import read_record
from gssr.commands.main import build_parser
from gssr.sequences.clock import iso_time
from gssr.sequences.collate import collate
from tests.trials.stamps import CALENDARS, FORMATS, C, H, ahead, plan, read, stamps, utc, written

pytestmark = pytest.mark.trial


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("what", CALENDARS)
def test_the_future_follows_the_calendar(what: str, kind: str, tmp_path: Path) -> None:
    _, times = CALENDARS[what]
    path = written(tmp_path, kind, times[:-H])
    zone = {} if times.tz is None or kind == "parquet of times" else {"time_zone": str(times.tz)}
    expected = [utc(time) for time in times[-H:]]
    data, said = read(path, **zone)
    assert not [line for line in said if "beside the grid" in line]
    assert ahead(data.predict_records[0]) == expected
    assert ahead(plan(path, **zone)) == expected
    assert ahead(plan(path, step=str(data.cutter.grid), **zone)) == expected  # the step that a network keeps
    first = data.train_records[0]
    assert [iso_time(hours) for hours in first.time] == [utc(time) for time in times[: C + H]]
    assert not np.isnan(first.value).any()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("freq", "first", "off"),
    [
        ("MS", "2015-01-01", [(0, -1), (5, 1), (20, -1), (41, 1)]),
        ("ME", "2015-01-31", [(1, -1), (7, 1), (25, 1)]),
        ("QS", "2005-01-01", [(3, -1), (9, 1)]),
        ("QE", "2005-03-31", [(3, -1), (9, 1)]),
        ("7D", "2015-01-05", [(0, 1), (3, -1), (4, 1), (30, 1)]),
        ("28D", "2015-01-05", [(3, -1), (9, 1), (10, -1)]),
        ("YS", "1960-01-01", [(3, -1), (9, 1)]),
    ],
)
def test_stamps_that_wander_by_a_day_are_on_one_grid(
    freq: str, first: str, off: list[tuple[int, int]], kind: str, tmp_path: Path
) -> None:
    """quarkfin/qf-lib#218: the step of irregular weeks; the other calendars are siblings."""
    times = stamps(first, freq)
    moved = times.to_list()
    for row, days in off:
        moved[row] += pd.Timedelta(days=days)
    path = written(tmp_path, kind, moved[:-H])
    data, said = read(path)
    (line,) = [line for line in said if "beside the grid" in line]
    assert line.startswith(f"{len(off)} rows of") and "at most 24 hours" in line
    window = data.train_records[0]
    assert [iso_time(hours) for hours in window.time] == [utc(time) for time in times[: C + H]]
    assert not np.isnan(window.value).any()
    assert ahead(data.predict_records[0]) == ahead(plan(path)) == [utc(time) for time in times[-H:]]


@pytest.mark.parametrize(
    ("times", "step"),
    [
        (["2024-01-01", "2024-01-31", "2024-02-01", *(f"2024-{m:02d}-01" for m in range(3, 13))], "1M"),
        ([str(day.date()) for day in pd.date_range("2024-01-01", periods=30)], "1W"),
    ],
)
def test_two_rows_in_a_step_are_refused_and_the_advice_works(times: list[str], step: str, tmp_path: Path) -> None:
    path = written(tmp_path, "csv", times)
    with pytest.raises(ValueError, match="two rows in one step of .*merge rows first") as refused:
        read(path, step=step)
    (advice,) = re.findall(r"table(\.resample\('[^']+'\)\.mean\(\))", str(refused.value))
    table = pd.read_csv(path, parse_dates=["when"]).set_index("when")
    assert len(eval(f"table{advice}", {"table": table})) < len(times)


# Few rows: facebook/prophet#835, RJT1990/pyflux#103
SHORT = [
    (["2023-12-31", "2024-01-31"], ["2024-02-29", "2024-03-31", "2024-04-30"]),
    (["2024-01-31", "2024-02-29"], ["2024-03-31", "2024-04-30", "2024-05-31"]),
    (["2024-01-01", "2024-02-01"], ["2024-03-01", "2024-04-01", "2024-05-01"]),
    (["2023-09-30", "2023-12-31"], ["2024-03-31", "2024-06-30", "2024-09-30"]),
    (["2023-03-31", "2024-03-31"], ["2025-03-31", "2026-03-31", "2027-03-31"]),
    (["2024-01-01", "2024-01-29"], ["2024-02-26", "2024-03-25", "2024-04-22"]),
    (["2024-01-04", "2024-01-05", "2024-01-08", "2024-01-09", "2024-01-10", "2024-01-11", "2024-01-12"],
     ["2024-01-15", "2024-01-16", "2024-01-17"]),
]  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS[:3])
@pytest.mark.parametrize(("days", "future"), SHORT)
def test_a_few_rows_tell_the_calendar(days: list[str], future: list[str], kind: str, tmp_path: Path) -> None:
    assert ahead(plan(written(tmp_path, kind, days))) == [f"{day}T00:00Z" for day in future]


def test_few_business_days_go_on_by_the_step_of_training(tmp_path: Path) -> None:
    path = written(tmp_path, "csv", [f"2024-01-{day:02d}" for day in range(1, 6)])
    assert ahead(plan(path, step="1B"))[0] == "2024-01-08T00:00Z"


@pytest.mark.parametrize("kind", FORMATS[:3])
@pytest.mark.parametrize(
    "what", ["month ends", "first business days", "business days up to a Friday", "tenths of a second"]
)
def test_the_command_goes_on_by_the_calendar(what: str, kind: str, tmp_path: Path) -> None:
    times = CALENDARS[what][1]
    path = written(tmp_path, kind, times[:-H])
    typed = ["plan", "--input", path, "--time_column", "when", "--horizon", str(H), "--context", "2"]
    batch = collate([read_record(build_parser().parse_args(typed), ["y"], {})])
    assert [iso_time(hours) for hours in batch.time[0, -H:].tolist()] == [utc(time) for time in times[-H:]]


@pytest.mark.parametrize("what", ["month ends", "first business days", "weeks", "four weeks", "quarter ends"])
def test_time_mmd_shares_the_grid(what: str) -> None:
    times = CALENDARS[what][1]
    moved = times.to_series(index=range(len(times)))
    moved[7] += pd.Timedelta(days=1)
    steps, hours, _ = step_numbers(moved.drop(index=[20, 21]).reset_index(drop=True))
    assert steps.tolist() == [i for i in range(len(times)) if i not in (20, 21)]
    assert iso_time(hours[7]) == utc(times[7])


def test_two_rows_of_one_month_are_refused_by_time_mmd() -> None:
    starts = pd.Series([*pd.date_range("2020-01-01", periods=30, freq="MS"), pd.Timestamp("2022-06-03")])
    with pytest.raises(ValueError, match="two rows in one step of 1 month"):
        step_numbers(starts)


@pytest.mark.parametrize(
    "step",
    ["1ms", "33.33333333ms", "1500ms", "10min", "1h", "1D", "7D", "1B", "1 month", "3 months", "12 months"],
)
def test_the_words_of_a_step_are_read_as_the_step(step: str) -> None:
    assert str(grid_of_stamps([], step)) == step
