"""Times are on the clock of their zone: in tables, options and goal files, also where the clock changes."""

import re
from pathlib import Path

import pandas as pd
import pytest

from gssr.commands.history import read_record
from gssr.commands.main import build_parser
from gssr.sequences.clock import iso_time
from tests.trials.stamps import FORMATS, C, H, Table, ahead, plan, read, stamps, utc, written

pytestmark = pytest.mark.trial


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
    with pytest.raises(ValueError, match="have the same time, 2024-10-27T01:15 in UTC, in an hour that"):
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


def test_the_command_takes_a_zone(tmp_path: Path) -> None:
    times = stamps("2024-02-01", "D", 58, "Europe/Berlin")
    path = written(tmp_path, "csv", times[:-H].tz_localize(None))
    typed = ["plan", "--input", path, "--time_column", "when", "--horizon", str(H), "--time_zone", "Europe/Berlin"]
    assert ahead(read_record(build_parser().parse_args(typed), ["y"], {})) == [utc(time) for time in times[-H:]]
