import os
import re
import warnings
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datamodules.dated_texts import meaning
from datamodules.time_mmd import TimeMMD, joined, step_numbers

REAL = os.environ.get("GSSR_BENCHMARK_DATA")
DOMAINS = ("Agriculture", "Climate", "Economy", "Energy", "SocialGood", "Traffic")
EPOCH = date(1970, 1, 1)


def weeks(count: int, first: date = date(2000, 1, 3)) -> pd.DataFrame:
    """`count` weekly rows; the value of row i is i."""
    starts = [first + timedelta(7 * i) for i in range(count)]
    return pd.DataFrame(
        {
            "date": starts,
            "start_date": starts,
            "end_date": [day + timedelta(6) for day in starts],
            "OT": np.arange(count, dtype=float),
        }
    )


def texts(*rows: tuple[date, date, str | None, str | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["start_date", "end_date", "fact", "preds"])


def write(folder: Path, domain: str, table: pd.DataFrame | bytes, **kinds: pd.DataFrame) -> Path:
    (folder / "numerical" / domain).mkdir(parents=True, exist_ok=True)
    (folder / "textual" / domain).mkdir(parents=True, exist_ok=True)
    file = folder / "numerical" / domain / f"{domain}.csv"
    file.write_bytes(table) if isinstance(table, bytes) else table.to_csv(file, index=False)
    for kind in ("report", "search"):
        kinds.get(kind, texts()).to_csv(folder / "textual" / domain / f"{domain}_{kind}.csv", index=False)
    return folder


def every_day(table: pd.DataFrame) -> pd.DataFrame:
    """A text for each day of the table, of one day, that says which."""
    first, last = table["start_date"].min(), table["end_date"].max()
    days = [first + timedelta(n) for n in range((last - first).days + 1)]
    return texts(*((day, day, f"said on {day}", None) for day in days))


def made(path: Path, domain: str = "Health", **options) -> TimeMMD:
    data = TimeMMD(str(path), domain, **({"context": 4, "horizon": 2, "text_chars": 10_000} | options))
    data.setup()
    return data


def windows(data: TimeMMD) -> list:
    return [r for split in ("train", "val", "test") for r in getattr(data, f"{split}_records").records]


def days_said(text: str | None) -> list[date]:
    return [date.fromisoformat(day) for day in re.findall(r"\d{4}-\d\d-\d\d", text or "")]


def day_of(hours: float) -> date:
    return EPOCH + timedelta(hours=hours)


def test_a_text_is_read_only_from_the_step_at_which_it_was_known(tmp_path):
    table = weeks(60)
    data = made(write(tmp_path, "Health", table, report=every_day(table)))
    said = set()
    for record in windows(data):
        for hours, text in zip(record.time, record.text, strict=True):
            monday = day_of(hours)
            assert days_said(text) == [
                monday + timedelta(n) for n in range(7)
            ]  # all of its own week, none of a later one
            said.update(days_said(text))
    assert len(said) == 60 * 7  # nor is one lost


def test_a_text_of_many_days_waits_for_the_row_in_which_it_ends(tmp_path):
    table = weeks(60)
    month = texts((date(2000, 2, 1), date(2000, 2, 29), "all of February", None))
    data = made(write(tmp_path, "Health", table, search=month))
    found = {day_of(t) for r in windows(data) for t, text in zip(r.time, r.text, strict=True) if text}
    assert found == {date(2000, 2, 28)}  # the week from Monday 28th, which holds the 29th


def test_energys_reports_are_read_a_row_later_because_they_tell_the_next_price(tmp_path):
    table = weeks(60)
    ends = table["start_date"] + timedelta(4)
    report = texts(
        *(
            (start, end, f"the price of {start + timedelta(7)}", None)
            for start, end in zip(table["start_date"], ends, strict=True)
        )
    )
    write(tmp_path, "Energy", table, report=report, search=every_day(table))
    for record in windows(made(tmp_path, "Energy", text="report")):
        for hours, text in zip(record.time, record.text, strict=True):
            monday = day_of(hours)
            assert text == (None if monday == date(2000, 1, 3) else f"the price of {monday}")
    write(tmp_path, "Health", table, report=report)
    early = windows(made(tmp_path, "Health", text="report"))[0]
    assert early.text[0] == "the price of 2000-01-10"  # other domains' dates are taken at their word


def test_a_text_waits_for_the_last_day_that_its_facts_name(tmp_path):
    table = weeks(60)
    day = table["end_date"][1]
    report = texts(
        (day, day, "The price was 3 on February 2, 2000, less than on January 4, 2000.", "It may rise by May 1, 2000.")
    )
    data = made(write(tmp_path, "Health", table, report=report))
    assert {day_of(t) for r in windows(data) for t, text in zip(r.time, r.text, strict=True) if text} == {
        date(2000, 1, 31)
    }
    report["fact"] = "Nothing happened on February 30, 2000."  # no such day
    data = made(write(tmp_path, "Health", table, report=report))
    assert {day_of(t) for r in windows(data) for t, text in zip(r.time, r.text, strict=True) if text} == {
        date(2000, 1, 10)
    }


def test_nothing_of_the_horizon_is_in_the_context_whatever_its_texts_say(tmp_path):
    """Changing all that is known after a window's context changes nothing in the context."""
    table, last = weeks(60), date(2000, 1, 3) + timedelta(7 * 4 - 1)  # the last day of the first window's context
    report = every_day(table)
    changed = report.assign(
        fact=[f if day <= last else "changed" for f, day in zip(report["fact"], report["end_date"], strict=True)]
    )
    values = table.assign(
        OT=[v if day <= last else 1000.0 + v * v for v, day in zip(table["OT"], table["end_date"], strict=True)]
    )
    one = windows(made(write(tmp_path / "a", "Energy", table, report=report, search=report), "Energy"))[0]
    two = windows(made(write(tmp_path / "b", "Energy", values, report=changed, search=changed), "Energy"))[0]
    assert one.text[:4] == two.text[:4] and np.array_equal(one.value[:4], two.value[:4])
    assert one.text[4:] != two.text[4:]


def test_splits_share_no_row_and_the_scaler_sees_training_alone(tmp_path):
    data = made(write(tmp_path, "Health", weeks(100)))
    values = {
        s: {float(v) for r in getattr(data, f"{s}_records").records for v in r.value[:, 0]}
        for s in ("train", "val", "test")
    }
    assert values == {"train": set(range(70)), "val": set(range(70, 85)), "test": set(range(85, 100))}
    assert data.scaler.mean.item() == pytest.approx(34.5) and data.scaler.high.item() == 69


@pytest.mark.parametrize(("through", "last"), [("val", 85), ("test", 100)])
def test_training_goes_through_later_parts_when_asked_and_crosses_their_borders(tmp_path, through, last):
    data = TimeMMD(str(write(tmp_path, "Health", weeks(100))), "Health", context=4, horizon=2, train_through=through)
    data.setup("fit")
    starts = sorted(r.value[0, 0] for r in data.train_records.records)
    assert starts == list(range(last - 5))  # no window is lost at a border
    assert {v for r in data.val_records.records for v in r.value[:, 0]} == set(range(70, 85))
    assert data.scaler.high.item() == last - 1
    with pytest.raises(ValueError, match="the val part is trained on"):
        data.setup("validate")
    if through == "test":
        with pytest.raises(ValueError, match="train_through is test: the test part is trained on"):
            data.setup("test")
    else:
        data.setup("test")
        assert {v for r in data.test_records.records for v in r.value[:, 0]} == set(range(85, 100))


def test_rows_out_of_order_are_sorted_with_a_warning(tmp_path):
    table = weeks(60)
    ordered = windows(made(write(tmp_path / "a", "Climate", table, report=every_day(table)), "Climate"))
    for name, shuffled in (("b", table[::-1]), ("c", table.sample(frac=1, random_state=0))):
        write(tmp_path / name, "Climate", shuffled, report=every_day(table).sample(frac=1, random_state=1))
        with pytest.warns(UserWarning, match="not in order of start_date; they are sorted"):
            data = made(tmp_path / name, "Climate")
        for one, two in zip(ordered, windows(data), strict=True):
            assert np.array_equal(one.value, two.value) and np.array_equal(one.time, two.time) and one.text == two.text


def test_infinities_and_gaps_in_the_column_are_missing_values(tmp_path):
    table = weeks(60)
    table.loc[3, "OT"], table.loc[5, "OT"], table.loc[40, "OT"] = np.inf, np.nan, -np.inf
    write(tmp_path, "Health_AFR", table)
    with pytest.warns(UserWarning, match="2 infinities in column 'OT' are read as missing"):
        data = made(tmp_path, "Health_AFR")
    missing = {day_of(t) for r in windows(data) for t, v in zip(r.time, r.value[:, 0], strict=True) if np.isnan(v)}
    assert missing == {table["start_date"][i] for i in (3, 5, 40)}
    assert data.scaler.high.item() == 41


def test_texts_that_are_missing_or_say_nothing_are_none(tmp_path):
    table = weeks(60)
    day = table["end_date"]
    report = texts(
        (day[0], day[0], None, None),
        (day[1], day[1], "NA", "NA;NA"),
        (day[2], day[2], "Prices rose.", "NA;They may fall."),
        (day[3], day[3], "NA (No relevant information found)\n\nNote: the results do not help.", ""),
    )
    data = made(write(tmp_path, "Security", table, report=report), "Security", text="report")
    first = data.train_records.records[0]
    assert first.text == [None, None, "Prices rose. They may fall.", None, None, None]
    empty = texts(
        *((start, end, None, None) for start, end in zip(table["start_date"], table["end_date"], strict=True))
    )
    data = made(write(tmp_path / "empty", "Security", table, report=empty), "Security", text="report")
    assert data.texts() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, None),
        (float("nan"), None),
        ("  \n", None),
        ("NA", None),
        ("NA;NA", None),
        ("NA\n\nNote: The provided search results do not contain sufficient information to make any.", None),
        ("NAHere is the summarized information:;NA", None),
        ("NA (No relevant information found about the current economy situation)", None),
        ("Objective facts about the situation**\nThere is no mention of the situation in the report. \n\n**", None),
        (
            "Long-term predictions (next few months):\nNA;Short-term predictions (next 1-4 weeks):\nPrices may rise.",
            "Prices may rise.",
        ),
        ("NASA's activities generated output.", "NASA's activities generated output."),
        ("NAFTA was signed.", "NAFTA was signed."),
        ("* Exports fell.\n* Imports rose.", "Exports fell. Imports rose."),
        ("Prices may stay.Here is the summarized information:", "Prices may stay."),
        ("Facts matter. So do prices.", "Facts matter. So do prices."),
    ],
)
def test_boilerplate_is_no_text(text, said):
    assert meaning(text) == said


def test_of_many_texts_the_latest_fit():
    said = [(0, "first one"), (0, "second"), (2, "word " * 9 + "end"), (0, "third"), (0, "third")]
    assert joined(said, 3, 12) == ["second third", None, "word word"]
    assert joined(said, 3, 100)[0] == "first one second third"


def test_months_are_steps_and_gaps_are_not_crossed(tmp_path):
    starts = pd.Series(pd.date_range("2000-01-01", periods=80, freq="MS"))
    steps, _, grid = step_numbers(starts)
    assert np.array_equal(steps, np.arange(80)) and grid.season == 12
    assert step_numbers(pd.Series(pd.date_range("2000-01-03", periods=9, freq="7D")))[2].season == 52
    table = pd.DataFrame(
        {"start_date": starts.dt.date, "end_date": (starts + pd.offsets.MonthEnd()).dt.date, "OT": np.arange(80.0)}
    )
    data = made(write(tmp_path / "whole", "Traffic", table), "Traffic")
    assert len(data.train_records) == 56 - 5
    first = data.train_records.records[0]
    assert [day_of(t) for t in first.time] == [day.date() for day in starts[:6]]
    data = made(write(tmp_path / "gap", "Traffic", table.drop(index=20)), "Traffic")
    assert all(np.array_equal(np.diff(r.value[:, 0]), np.ones(5)) for r in windows(data))


def test_more_values_by_name_and_the_calendar(tmp_path):
    table = weeks(80).assign(Exports=np.arange(80) ** 2.0)
    data = made(write(tmp_path, "Economy", table), "Economy", columns=["Exports"], calendar=True)
    assert data.value_names == ("OT", "Exports", "season_sin", "season_cos")
    record = data.train_records.records[0]
    np.testing.assert_allclose(record.value[:, 1], record.value[:, 0] ** 2)
    np.testing.assert_allclose((record.value[:, 2:] ** 2).sum(1), 1, rtol=1e-5)


def test_goals_of_hindsight_say_the_target_and_the_time_in_steps(tmp_path):
    starts = pd.Series(pd.date_range("2000-01-01", periods=80, freq="MS"))
    ends = (starts + pd.offsets.MonthEnd()).dt.date
    table = pd.DataFrame({"start_date": starts.dt.date, "end_date": ends, "OT": np.arange(80.0) ** 1.5})
    write(tmp_path, "Traffic", table)
    data = made(tmp_path, "Traffic", goals="hindsight", calendar=True)
    assert data.has_goals and data.step == "1 month" and data.goal_writer.number_step == 2
    assert made(tmp_path, "Traffic").goal_writer is None and not made(tmp_path, "Traffic").has_goals
    written = [r for r in data.train_records if r.goal is not None]
    assert len(written) > 0.5 * len(data.train_records)
    for record in written:
        assert abs(record.goal_low[0] - record.value[-1, 0]) < 2.6 * 2 and np.isnan(record.goal_low[1:]).all()
        assert f"{record.goal_low[0]:g}" in record.goal, record.goal
    said = " ".join(record.goal for record in written)
    assert "2 months" in said and "hours" not in said and "OT" in said and "value" in said
    own = made(tmp_path, "Traffic", goals={"numbers": {"any": ["Exports of {value}"]}})
    assert all(r.goal is None or r.goal.startswith("Exports of ") for r in own.train_records)
    for wrong in ("goals.csv", "goals.yaml"):
        with pytest.raises(ValueError, match="there is no such file"):
            TimeMMD(str(tmp_path), "Traffic", goals=wrong)
    (tmp_path / "goals.csv").write_text("goal\nRise\n", encoding="utf-8")
    with pytest.raises(ValueError, match="expected hindsight, a .yaml file of templates, or null"):
        TimeMMD(str(tmp_path), "Traffic", goals=str(tmp_path / "goals.csv"))


def constant(count: int) -> pd.DataFrame:
    return weeks(count).assign(OT=1.0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (weeks(60).rename(columns={"OT": "OTT"}), "has no column 'OT'; did you mean 'OTT'"),
        (weeks(60).drop(columns="end_date"), "has no column 'end_date'"),
        (
            weeks(60).astype({"OT": object}).replace({"OT": {7.0: "seven"}}),
            "column 'OT' holds 'seven', which is not a number",
        ),
        (
            weeks(60).astype({"start_date": object}).replace({"start_date": {date(2000, 1, 10): "soon"}}),
            "start_date of row 3 is 'soon', which is not a date",
        ),
        (pd.concat([weeks(60), weeks(9)]), "9 of 69 rows of .* have the same time as another row, such as 2000-01-03"),
        (weeks(60).assign(end_date=date(1999, 1, 1)), "each end_date must lie after its start_date"),
        (weeks(12), "no series of the val part has 4 \\+ 2 steps in a row"),
        (constant(60), "value dimension 0 is always 1 in the training part"),
        (b"", "cannot be read as a UTF-8 CSV table"),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "cannot be read as a UTF-8 CSV table"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*not in order")
def test_tables_that_cannot_be_used_are_refused(tmp_path, table, message):
    write(tmp_path, "Health", table)
    with pytest.raises(ValueError, match=message):
        made(tmp_path)


def test_wrong_places_and_options_are_refused_with_what_is_there(tmp_path):
    with pytest.raises(ValueError, match="has no folder 'numerical'; expected Time-MMD's layout"):
        made(tmp_path)
    write(tmp_path, "Energy", weeks(60))
    write(tmp_path, "SocialGood", weeks(60))
    with pytest.raises(ValueError, match="no domain 'Enrgy' .* did you mean 'Energy'\\? It has Energy, SocialGood"):
        made(tmp_path, "Enrgy")
    with pytest.raises(ValueError, match="did you mean 'SocialGood'"):
        made(tmp_path, "socialgood")
    (tmp_path / "textual" / "Energy" / "Energy_search.csv").unlink()
    with pytest.raises(ValueError, match="Energy_search.csv is missing; read other texts"):
        made(tmp_path, "Energy")
    assert len(made(tmp_path, "Energy", text="report").train_records) > 0
    with pytest.raises(ValueError, match="text is 'news'; expected one of report, search, both, none"):
        TimeMMD(str(tmp_path), text="news")
    with pytest.raises(ValueError, match="together below 1"):
        TimeMMD(str(tmp_path), val_share=0.6, test_share=0.5)
    with pytest.raises(ValueError, match="no column 'Export'"):
        made(tmp_path, "SocialGood", columns=["Export"])


@pytest.mark.skipif(REAL is None, reason="GSSR_BENCHMARK_DATA does not name the folder that holds time_mmd")
@pytest.mark.parametrize("domain", DOMAINS)
def test_all_real_domains_are_read(domain):
    folder = Path(REAL or "") / "time_mmd"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = TimeMMD(str(folder), domain)
        data.setup()
    unsorted = any("not in order" in str(w.message) for w in caught)
    assert unsorted == (domain in ("Climate", "Economy"))
    assert data.season_steps == (52 if domain in ("Climate", "Energy") else 12)
    assert min(len(getattr(data, f"{s}_records")) for s in ("train", "val", "test")) >= 30
    said = [text is not None for r in data.test_records.records for text in r.text]
    assert np.mean(said) > 0.9
    assert not any(re.match(r"NA\b", text) for text in data.texts())


@pytest.mark.skipif(REAL is None, reason="GSSR_BENCHMARK_DATA does not name the folder that holds time_mmd")
def test_energys_real_reports_never_tell_the_price_of_a_later_week():
    data = TimeMMD(str(Path(REAL or "") / "time_mmd"), "Energy", text="report", text_chars=10_000)
    data.setup()
    own = later = 0
    for record in windows(data):
        for hours, text in zip(record.time, record.text, strict=True):
            monday = day_of(hours)
            for words in re.findall(r"per gallon on ([A-Z][a-z]+ \d{1,2}, \d{4})", text or ""):
                day = pd.to_datetime(words).date()
                own += monday <= day <= monday + timedelta(6)
                later += day > monday + timedelta(6)
    assert later == 0 and own > 1000
