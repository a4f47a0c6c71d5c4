"""Calendars, clocks and zones: the grid of stamps is one, in every format and through every door."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules import TableSequences
from datamodules.tables.history import read_history
from datamodules.tables.stamps import grid_of_stamps
from datamodules.time_mmd import step_numbers
from gssr.commands.main import build_parser
from gssr.commands.plan import read_record
from gssr.sequences.clock import count_of, iso_time, unit_of
from gssr.sequences.collate import collate
from gssr.sequences.phrases import time_spans

pytestmark = pytest.mark.trial

FORMATS = ("csv", "jsonl", "parquet", "parquet of times")
C, H = 6, 3
Table = dict[str, Any]


def written(folder: Path, kind: str, times: Any, name: str = "t") -> str:
    """A table of stamps ("when") and a wave ("y"); stamps are texts but in "parquet of times"."""
    values = [round(20 + 5 * np.sin(i / 4) + i / 100, 3) for i in range(len(times))]
    texts = [time if isinstance(time, str) else time.isoformat() for time in times]
    file = folder / f"{name}.{kind.split()[0]}"
    if kind == "csv":
        pd.DataFrame({"when": texts, "y": values}).to_csv(file, index=False)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps({"when": w, "y": y}) + "\n" for w, y in zip(texts, values, strict=True)))
    else:
        typed = pa.array(pd.DatetimeIndex(times)) if "of times" in kind else pa.array(texts)
        pq.write_table(pa.table({"when": typed, "y": values}), file)
    return str(file)


def read(path: str, **options: Any) -> tuple[TableSequences, list[str]]:
    """The data module of a table, and what was said."""
    data = TableSequences(path, time_column="when", value_columns=["y"], context=C, horizon=H, **options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data.setup(None)
    return data, [str(warning.message) for warning in said]


def plan(path: str, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_history(path, ["y"], H, C, time_column="when", **options)


def ahead(record: Any) -> list[str]:
    return [iso_time(hours) for hours in record.time[-H:]]


def stamps(first: str, freq: str, n: int = 60, zone: str | None = None, days: int = 0) -> pd.DatetimeIndex:
    return pd.date_range(first, periods=n + H, freq=freq, tz=zone) + pd.Timedelta(days=days)


def utc(time: pd.Timestamp) -> str:
    time = time if time.tz is None else time.tz_convert("UTC").tz_localize(None)
    return time.isoformat(timespec="milliseconds").replace(".000", "").removesuffix(":00") + "Z"


# source of the symptom, or of that of a sibling; stamps, of which the last three are the future
CALENDARS: dict[str, tuple[str, pd.DatetimeIndex]] = {
    "month ends": ("facebook/prophet#835", stamps("2015-01-31", "ME")),
    "month ends that begin in February": ("appsembler/figures#356", stamps("2015-02-28", "ME")),
    "month ends that end in January": ("facebook/prophet#835", stamps("2019-02-28", "ME", 60)),
    "month starts": ("facebook/prophet#1578", stamps("2015-01-01", "MS")),
    "the 15th": ("plaintextaccounting/hledger#2032", stamps("2015-01-01", "MS", days=14)),
    "quarter ends": ("appsembler/figures#356", stamps("2005-03-31", "QE")),
    "quarter ends that begin in June": ("appsembler/figures#356", stamps("2005-06-30", "QE")),
    "quarters of a fiscal year": ("facebook/prophet#1578", stamps("2005-01-31", "QE-JAN")),
    "year ends": ("facebook/prophet#835", stamps("1970-12-31", "YE")),
    "every second month": ("firefly-iii/firefly-iii#2806", stamps("2005-01-31", "2ME")),
    "first business days": ("macrosynergy/macrosynergy#1238", stamps("2015-01-01", "BMS")),
    "last business days": ("macrosynergy/macrosynergy#1238", stamps("2015-01-30", "BME")),
    "last business days of quarters": ("macrosynergy/macrosynergy#1238", stamps("2005-03-31", "BQE")),
    "business days up to a Friday": ("facebook/prophet#1830", stamps("2023-01-02", "B", 60)),
    "business days up to a Thursday": ("RJT1990/pyflux#103", stamps("2023-01-02", "B", 59)),
    "days but Saturdays": (
        "unit8co/darts#1420",
        stamps("2022-11-27", pd.offsets.CustomBusinessDay(weekmask="Mon Tue Wed Thu Fri Sun")),  # type: ignore[arg-type]
    ),
    "weeks": ("quarkfin/qf-lib#218", stamps("2015-01-05", "7D")),
    "four weeks": ("quarkfin/qf-lib#218", stamps("2015-01-05", "28D")),
    "thirteen weeks": ("quarkfin/qf-lib#218", stamps("2005-01-03", "91D")),
    "days of a clock, into summer": (
        "pandas-dev/pandas#39398",
        stamps("2024-01-31", "D", 60, "Europe/Berlin"),
    ),
    "days of a clock, into winter": (
        "davidusb-geek/emhass#601",
        stamps("2024-08-28", "D", 60, "America/New_York"),
    ),
    "hours of a clock, into summer": ("pandas-dev/pandas#39556", stamps("2024-03-28", "h", 73, "Europe/Berlin")),
    "hours of a clock, into winter": ("pandas-dev/pandas#38243", stamps("2024-10-24", "h", 74, "Europe/Berlin")),
    "weeks of a clock": ("pandas-dev/pandas#39398", stamps("2023-02-06", "W", 60, "Europe/Berlin")),
    "months of a clock": ("pandas-dev/pandas#7318", stamps("2019-01-01", "MS", 60, "Australia/Sydney")),
    "month ends of a clock": ("pandas-dev/pandas#7318", stamps("2019-01-31", "ME", 60, "Asia/Tokyo")),
    "business days of a clock": ("facebook/prophet#1830", stamps("2024-01-08", "B", 59, "Europe/Berlin")),
    "seconds": ("microsoft/qlib#288", stamps("2024-01-01 23:59:30", "s")),
    "half minutes": ("facebook/prophet#226", stamps("2024-01-01 23:50", "30s")),
    "tenths of a second": ("awslabs/gluonts#3202", stamps("2024-01-01", "100ms")),
    "milliseconds": ("microsoft/qlib#288", stamps("2024-01-01", "1ms")),
}


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


# pandas-dev/pandas#14585, #29031, #47398, #14402, nilmtk/nilmtk#450: the hour that comes twice
def clock_back(freq: str, n: int = 200, skip: tuple[int, ...] = ()) -> pd.DatetimeIndex:
    return pd.date_range("2024-10-26", periods=n, freq=freq, tz="Europe/Berlin").delete(list(skip))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("freq", ["h", "15min", "30min", "7min"])
def test_the_hour_that_comes_twice_is_told_by_the_order_of_rows(freq: str, kind: str, tmp_path: Path) -> None:
    times = clock_back(freq, 400)
    path = written(tmp_path, kind, times.tz_localize(None))
    data, said = read(path, time_zone="Europe/Berlin")
    assert not [line for line in said if "grid" in line]
    found = data.cutter.store.read("time", 0, 400)
    assert [iso_time(hours) for hours in found] == [utc(time) for time in times]


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_the_order_is_kept_over_chunks_and_series(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.tables.source.ROWS", chunk)
    times = clock_back("h", 60)
    rows = [f"{name},{time.tz_localize(None).isoformat()},{i % 7}\n" for i, time in enumerate(times) for name in "ab"]
    (tmp_path / "t.csv").write_text("id,when,y\n" + "".join(rows))
    data, _ = read(str(tmp_path / "t.csv"), time_zone="Europe/Berlin", series_column="id")
    for series in (0, 1):
        found = data.cutter.store.read("time", 60 * series, 60 * series + 60)
        assert [iso_time(hours) for hours in found] == [utc(time) for time in times]


def test_doubled_rows_of_that_hour_are_refused(tmp_path: Path) -> None:
    """pandas-dev/pandas#29056: quarters of an hour that stand pairwise."""
    times = clock_back("15min", 200).tz_localize(None).sort_values()
    with pytest.raises(ValueError, match="has the same time as the row before"):
        read(written(tmp_path, "csv", times), time_zone="Europe/Berlin")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_time_that_no_clock_shows_is_refused_and_the_advice_works(kind: str, tmp_path: Path) -> None:
    times = pd.date_range("2024-03-30", periods=80, freq="h")
    path = written(tmp_path, kind, times)
    with pytest.raises(ValueError, match="in row 27, which the clock of Europe/Berlin never shows") as refused:
        read(path, time_zone="Europe/Berlin")
    zone = re.findall(r"give time_zone: (\S+),", str(refused.value))[0]
    assert zone == "+01:00"
    data, _ = read(path, time_zone=zone)
    assert iso_time(data.train_records[0].time[0]) == "2024-03-29T23:00Z"
    assert iso_time(read(path, time_zone="UTC")[0].train_records[0].time[0]) == "2024-03-30T00:00Z"


def test_a_day_whose_midnight_is_skipped_is_a_day(tmp_path: Path) -> None:
    days = [str(day.date()) for day in pd.date_range("2018-09-20", periods=60)]
    data, said = read(written(tmp_path, "csv", days), time_zone="America/Sao_Paulo")
    assert not [line for line in said if "grid" in line] and str(data.cutter.grid) == "1D"


@pytest.mark.parametrize(
    ("zone", "hint"),
    [("Europe/Berln", "Europe/Berlin"), ("europe/berlin", "Europe/Berlin"), ("America/NewYork", "America/New_York")],
)
def test_a_wrong_zone_names_the_right_one(zone: str, hint: str, tmp_path: Path) -> None:
    path = written(tmp_path, "csv", stamps("2024-01-01", "D"))
    for door in (read, plan):
        with pytest.raises(ValueError, match=f"time_zone is .*did you mean {hint}"):
            door(path, time_zone=zone)
        door(path, time_zone=hint)


@pytest.mark.parametrize("zone", ["", "Mars/Base", "+1", "+25:00", "CEST", "../../etc/passwd", "\0"])
def test_what_is_no_zone_is_refused(zone: str, tmp_path: Path) -> None:
    path = written(tmp_path, "csv", stamps("2024-01-01", "D"))
    for door in (read, plan):
        with pytest.raises(ValueError, match="time_zone is .*; expected a name such as Europe/Berlin"):
            door(path, time_zone=zone)


# rbw/pysnow#94, csmberkeley/csm_web#258: what a user gives is on the clock of the column
GIVEN: dict[str, tuple[str | None, Table, str, str]] = {
    # zone of the column, options, predict_from, the last time that is known then
    "a date, no zone": (None, {}, "2024-02-10", "2024-02-10T00:00Z"),
    "a date with Z, no zone": (None, {}, "2024-02-10T00:00Z", "2024-02-10T00:00Z"),
    "a date, UTC": ("UTC", {}, "2024-02-10", "2024-02-10T00:00Z"),
    "a date, an offset": ("+05:30", {}, "2024-02-10", "2024-02-09T18:30Z"),
    "a date, a zone": ("America/New_York", {}, "2024-02-10", "2024-02-10T05:00Z"),
    "a time, a zone": ("America/New_York", {}, "2024-02-09T23:59", "2024-02-09T05:00Z"),
    "another offset, a zone": ("America/New_York", {}, "2024-02-10T06:00+01:00", "2024-02-10T05:00Z"),
    "an offset of hours": ("+05:30", {}, "2024-02-10T00:00+05", "2024-02-09T18:30Z"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("what", GIVEN)
def test_given_times_are_on_the_clock_of_the_column(what: str, kind: str, tmp_path: Path) -> None:
    zone, options, given, known = GIVEN[what]
    path = written(tmp_path, kind, stamps("2024-01-01", "D", 66, zone))
    if zone == "America/New_York" and kind != "parquet of times":
        options = options | {"time_zone": zone}
    data, _ = read(path, predict_from=given, **options)
    assert iso_time(data.predict_records[0].time[C - 1]) == known
    day = given.split("T")[0]
    data, _ = read(path, split_dates=("2024-02-01", "2024-02-20"), **options)
    start = pd.Timestamp("2024-02-20").tz_localize(zone)
    assert iso_time(min(data.windows("test")[0].time)) == utc(start), day


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("zone", [None, "UTC", "+05:30", "America/New_York"])
def test_goal_files_are_on_the_clock_of_the_table(zone: str | None, kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, kind, stamps("2024-01-01", "D", 60, zone))
    (tmp_path / "goals.csv").write_text("when,goal\n2024-01-06,Reach 22\n")
    options = {"time_zone": zone} if zone == "America/New_York" and kind != "parquet of times" else {}
    data, _ = read(path, goals=str(tmp_path / "goals.csv"), **options)
    assert [data.train_records[i].goal for i in range(2)] == ["Reach 22", "Reach 22"]  # the last context day is the 6th
    (tmp_path / "goals.csv").write_text("when,goal\n2024-01-06T00:01,Reach 22\n")
    data, _ = read(path, goals=str(tmp_path / "goals.csv"), **options)
    assert [data.train_records[i].goal for i in range(2)] == [None, "Reach 22"]


def test_an_offset_beside_times_without_a_zone_is_refused_and_the_advice_works(tmp_path: Path) -> None:
    path = written(tmp_path, "csv", stamps("2024-01-01", "D"))
    with pytest.raises(ValueError, match="predict_from is .*the times of the table have no zone") as refused:
        read(path, predict_from="2024-02-10T00:00+01:00")
    typed = re.findall(r"write (\S+) as on their clock", str(refused.value))[0]
    assert iso_time(read(path, predict_from=typed)[0].predict_records[0].time[C - 1]) == "2024-02-10T00:00Z"
    data, _ = read(path, predict_from="2024-02-10T00:00+01:00", time_zone="Europe/Berlin")
    assert iso_time(data.predict_records[0].time[C - 1]) == "2024-02-09T23:00Z"
    (tmp_path / "goals.csv").write_text("time,goal\n2024-01-06T00:00-05:00,Reach 22\n")
    with pytest.raises(ValueError, match=r"in row 1, but the times of the table have no zone"):
        read(path, goals=str(tmp_path / "goals.csv"))


def test_a_time_without_an_offset_beside_several_is_refused_and_both_advices_work(tmp_path: Path) -> None:
    path = written(tmp_path, "csv", stamps("2024-03-01", "D", 60, "America/Chicago"))
    with pytest.raises(ValueError, match="have the offsets -05:00 and -06:00; write its own") as refused:
        read(path, predict_from="2024-04-10")
    typed, zone = re.findall(r"such as (\S+), or give time_zone: (\S+)$", str(refused.value))[0]
    for options in ({"predict_from": typed}, {"predict_from": "2024-04-10", "time_zone": zone}):
        data, _ = read(path, **options)
        assert iso_time(data.predict_records[0].time[C - 1]) == "2024-04-10T05:00Z"


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "Europe/London", "America/New_York", "Australia/Sydney", "Asia/Jerusalem"]
)
def test_days_of_several_offsets_are_told_and_the_advice_works(zone: str, tmp_path: Path) -> None:
    """davidusb-geek/emhass#601"""
    times = stamps("2024-02-01", "D", 90, zone)
    path = written(tmp_path, "csv", times[:-H])
    _, said = read(path)
    (line,) = [line for line in said if "have the offsets" in line]
    (advice,) = re.findall(r"give time_zone: (\S+) to", line)
    data, said = read(path, time_zone=advice)
    assert not [line for line in said if "offsets" in line or "grid" in line]
    assert ahead(data.predict_records[0]) == [utc(time) for time in times[-H:]]


def test_a_time_that_comes_twice_is_refused_as_an_option_and_the_advice_works(tmp_path: Path) -> None:
    path = written(tmp_path, "csv", clock_back("h", 200).tz_localize(None))
    with pytest.raises(ValueError, match="which the clock of Europe/Berlin shows twice") as refused:
        read(path, predict_from="2024-10-27T02:00", time_zone="Europe/Berlin")
    first, last = re.findall(r"write (\S+) or (\S+)$", str(refused.value))[0]
    for typed, known in ((first, "2024-10-27T00:00Z"), (last, "2024-10-27T01:00Z")):
        data, _ = read(path, predict_from=typed, time_zone="Europe/Berlin")
        assert iso_time(data.predict_records[0].time[C - 1]) == known


def test_ends_of_a_table_are_told_on_its_clock_and_can_be_typed(tmp_path: Path) -> None:
    path = written(tmp_path, "csv", stamps("2024-01-01", "D", 60, "+05:30"))
    with pytest.raises(ValueError, match="within the table") as refused:
        read(path, split_dates=("2020-01-01", "2020-02-01"))
    first, last = re.findall(r"goes from (\S+) to (\S+)$", str(refused.value))[0]
    assert (first, last) == ("2024-01-01T00:00+05:30", "2024-03-03T00:00+05:30")
    assert iso_time(read(path, predict_from=last)[0].predict_records[0].time[C - 1]) == "2024-03-02T18:30Z"


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_a_column_of_numbers_has_the_clock_that_is_given(unit: str, tmp_path: Path) -> None:
    times = stamps("2024-03-01", "D", 60, "Europe/Berlin")
    counts = [str(int(time.timestamp() * {"s": 1, "ms": 1000}[unit])) for time in times]
    path = written(tmp_path, "csv", counts[:-H])
    options = {"time_unit": unit, "time_zone": "Europe/Berlin"}
    assert ahead(read(path, **options)[0].predict_records[0]) == [utc(time) for time in times[-H:]]
    data, _ = read(path, predict_from="2024-04-10", **options)  # a date beside numbers
    assert iso_time(data.predict_records[0].time[C - 1]) == "2024-04-09T22:00Z"
    with pytest.raises(ValueError, match="time_unit D counts without a zone"):
        read(path, time_unit="D", time_zone="Europe/Berlin")


def test_mixed_times_are_refused_and_the_advice_works(tmp_path: Path) -> None:
    times = ["2024-01-01T00:00", *stamps("2024-01-02", "D", 60, "Europe/Berlin")]
    path = written(tmp_path, "csv", times)
    with pytest.raises(ValueError, match="mixes times with a time zone .* or give time_zone"):
        read(path)
    data, _ = read(path, time_zone="Europe/Berlin")
    assert iso_time(data.train_records[0].time[0]) == "2023-12-31T23:00Z" and str(data.cutter.grid) == "1D"


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


def test_the_command_takes_a_zone(tmp_path: Path) -> None:
    times = stamps("2024-02-01", "D", 58, "Europe/Berlin")
    path = written(tmp_path, "csv", times[:-H].tz_localize(None))
    typed = ["plan", "--input", path, "--time_column", "when", "--horizon", str(H), "--time_zone", "Europe/Berlin"]
    assert ahead(read_record(build_parser().parse_args(typed), ["y"], {})) == [utc(time) for time in times[-H:]]


SPANS = [
    (1 / 3.6e6, "1 millisecond"), (0.25 / 3600, "250 milliseconds"), (1 / 3600, "1 second"), (90 / 3600, "90 seconds"),
    (1 / 60, "1 minute"), (0.25, "15 minutes"), (1.5, "90 minutes"), (2.5, "2.5 hours"), (6, "6 hours"),
    (24, "24 hours"), (672, "4 weeks"), (2184, "13 weeks"),
]  # fmt: skip


# awslabs/gluonts#3202, facebook/prophet#226: steps below an hour
@pytest.mark.parametrize(("hours", "words"), SPANS, ids=[words for _, words in SPANS])
def test_spans_are_in_the_unit_that_fits(hours: float, words: str) -> None:
    assert words in time_spans(hours) and not any("e-" in span or "0.0" in span for span in time_spans(hours))


@pytest.mark.parametrize(
    ("freq", "words"),
    [
        ("s", "second"), ("100ms", "millisecond"), ("15min", "minute"), ("h", "hour"), ("B", "business day"),
        ("28D", "week"), ("BME", "month"), ("QE", "month"), ("YE", "year"),
    ],
)  # fmt: skip
def test_goals_count_in_the_unit_that_fits(freq: str, words: str, tmp_path: Path) -> None:
    data, _ = read(written(tmp_path, "csv", stamps("2000-01-03", freq, 120)))
    said = [goal for record in data.train_records if (goal := record.goal)]
    assert any(
        re.search(rf"\d (?:{words})s?\b|\b(?:one|two|three|four|nine|twelve) (?:{words})s?\b", goal) for goal in said
    )
    if words not in ("hour", "minute"):
        assert not any("hour" in goal for goal in said)


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (0.0, "1970-01-01T00:00Z"), (1 / 3600, "1970-01-01T00:00:01Z"), (0.25 / 3600, "1970-01-01T00:00:00.250Z"),
        (473_352 + 59.999 / 3600, "2024-01-01T00:00:59.999Z"), (1 / 30 / 3600, "1970-01-01T00:00:00.033333Z"),
        (473_352 - 1e-10, "2024-01-01T00:00Z"), (-1 / 3.6e6, "1969-12-31T23:59:59.999Z"),
    ],
)  # fmt: skip
def test_times_are_written_with_what_they_have(hours: float, words: str) -> None:
    """Deltares/Ribasim#468"""
    assert iso_time(hours) == words


@pytest.mark.parametrize(
    ("freq", "unit", "ahead"),
    [
        ("250ms", "ms", "+250 ms"), ("s", "s", "+1 s"), ("15min", "min", "+15 min"), ("6h", "h", "+6 h"),
        ("D", "d", "+1 d"), ("B", "d", "+1 d"), ("28D", "d", "+28 d"), ("ME", "mo", "+1 mo"), ("QE", "mo", "+3 mo"),
        ("YE", "y", "+1 y"),
    ],
)  # fmt: skip
def test_charts_count_in_the_unit_that_fits(freq: str, unit: str, ahead: str) -> None:
    time = pd.date_range("2024-01-01", periods=10, freq=freq).to_numpy("datetime64[ms]").astype(np.int64) / 3.6e6
    assert unit_of(time)[0] == unit and count_of(time[1] - time[0], unit) == ahead


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
