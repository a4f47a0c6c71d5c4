import re
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

import datamodules.strikes.datamodule as module
from datamodules.strikes.build import REMARK, WEEK, build, remarks_of_week, shorten
from datamodules.strikes.datamodule import GOALS_FILE, Strikes, read_strikes, season
from gssr.sequences.goals import GoalWriter, form_core

HELD_OUT = {value + offset for value in (20, 40, 60, 80) for offset in range(-2, 3)}
CLASSES = {"few|quiet": (5, 24), "ordinary|like most": (25, 44), "a busy|many": (45, 64), "very busy|peak": (65, 110)}


@pytest.fixture(scope="module")
def strikes() -> Strikes:
    data = Strikes()
    data.setup()
    return data


def monday(hours: float) -> date:
    return datetime.fromtimestamp(hours * 3600, UTC).date()


def test_the_file_is_what_its_card_says():
    weeks = read_strikes()
    assert len(weeks) == 417 and min(weeks) == date(1990, 1, 1) and max(weeks) == date(1997, 12, 22)
    assert all(day.weekday() == 0 and (day - timedelta(7) in weeks or day == min(weeks)) for day in weeks)
    assert sum(row[0] for row in weeks.values()) == 18_048
    assert sum(row[2] is None for row in weeks.values()) == 6
    for strikes, affected, remarks in weeks.values():
        assert 0 <= affected <= strikes and (strikes > 0 or remarks is None)
        assert remarks is None or (len(remarks) <= WEEK and remarks == remarks.lower())


def test_no_step_is_in_two_splits_and_each_has_its_years(strikes):
    days = {
        name: {monday(t) for r in getattr(strikes, f"{name}_records").records for t in r.time}
        for name in ("train", "val", "test")
    }
    assert {day.year for day in days["train"]} == set(range(1990, 1996))
    assert {day.year for day in days["val"]} == {1996} and {day.year for day in days["test"]} == {1997}
    assert min(days["train"]) == date(1990, 4, 30)
    assert [len(days[name]) for name in days] == [296, 53, 51]


def test_training_through_validation_takes_its_year_and_the_new_year_between():
    data = Strikes(train_through="val")
    data.setup("fit")
    windows = data.train_records.records
    days = {monday(t) for r in windows for t in r.time}
    assert {day.year for day in days} == set(range(1990, 1997)) and len(days) == 296 + 53
    assert any({monday(t).year for t in r.time} == {1995, 1996} for r in windows)
    assert len(windows) == len(days) - 24 + 1


def test_texts_are_those_of_their_own_week_and_missing_ones_stay_missing(strikes, monkeypatch):
    weeks = read_strikes()
    for record in strikes.val_records.records + strikes.test_records.records:
        for t, value, text in zip(record.time, record.value, record.text, strict=True):
            number, affected, remarks = weeks[monday(t)]
            assert text == remarks and value[0] == number and value[1] == affected
    silent = {day: (row[0], row[1], None if day.month == 5 else row[2]) for day, row in weeks.items()}
    monkeypatch.setattr(module, "read_strikes", lambda: silent)
    data = Strikes()
    data.setup("validate")
    for record in data.val_records:
        assert [text is None for text in record.text] == [monday(t).month == 5 for t in record.time]


def test_the_future_reaches_neither_texts_nor_values_of_the_context(strikes, monkeypatch):
    """Whatever happens after the last step of the context, the context stays as it is."""
    weeks = read_strikes()
    window = strikes.val_records.records[3]
    last = monday(window.time[window.goal_start])
    changed = {day: row if day <= last else (row[0] + 50, row[1], "other birds.") for day, row in weeks.items()}
    monkeypatch.setattr(module, "read_strikes", lambda: changed)
    data = Strikes()
    data.setup("validate")
    other = data.val_records.records[3]
    seen = slice(0, window.goal_start + 1)
    assert np.array_equal(window.value[seen], other.value[seen]) and window.text[seen] == other.text[seen]
    assert not np.array_equal(window.value, other.value)


def test_the_scaler_sees_training_weeks_alone(strikes, monkeypatch):
    weeks = read_strikes()
    rows = np.array([row[:2] for day, row in weeks.items() if date(1990, 4, 30) <= day < date(1996, 1, 1)], float)
    np.testing.assert_allclose(strikes.scaler.mean[:2], rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(strikes.scaler.std[:2], rows.std(0), rtol=1e-6)
    later = {day: row if day.year < 1996 else (row[0] * 9, row[1], row[2]) for day, row in weeks.items()}
    monkeypatch.setattr(module, "read_strikes", lambda: later)
    data = Strikes()
    data.setup("validate")
    assert all((data.scaler.state_dict()[k] == v).all() for k, v in strikes.scaler.state_dict().items())


def test_the_season_goes_round_once_a_year():
    days = [date(1990, 1, 1) + timedelta(n) for n in range(3 * 365)]
    sin, cos = np.array([season(day) for day in days]).T
    np.testing.assert_allclose(sin**2 + cos**2, 1, rtol=1e-12)
    steps = np.hypot(np.diff(sin), np.diff(cos))
    assert steps.max() < 1.4 * steps.min() < 0.03  # no jump at a new year
    assert cos[:365].argmax() == 0 and days[sin[:365].argmax()].month == 4


def test_goals_tell_what_happened_in_words_that_training_left_out(strikes):
    writer = GoalWriter.read(GOALS_FILE)
    trained = {form_core(form) for form in [*writer.numbers, *writer.classes]}
    assert len(trained) >= 70
    assert not trained & {form_core(form) for form in [*writer.held_out_numbers, *writer.held_out_classes]}
    seen = 0
    for epoch in range(3):
        for record in [strikes.train_records[epoch, i] for i in range(0, len(strikes.train_records), 3)]:
            low, high = record.goal_low[0], record.goal_high[0]
            number = re.search(r"(?<!in )(?<!next )(?<!after )\b(\d+)\b(?! weeks?| days?)", record.goal)
            if low == high:
                assert int(number[1]) == low and int(low) not in HELD_OUT and abs(low - record.value[-1, 0]) <= 2
                seen += 1
            else:
                (bounds,) = {b for words, b in CLASSES.items() if re.search(words, record.goal.lower())}
                assert bounds == (low, high) and low <= record.value[-1, 0] <= high
            assert np.isnan(record.goal_low[1:]).all()
    assert seen > 100
    for kind in ("combinations", "numbers", "forms"):
        records = strikes.windows_evaluation("val", kind)
        assert len(records) >= 10
        if kind == "numbers":
            assert all(int(r.goal_low[0]) in HELD_OUT for r in records)


def test_predict_takes_the_last_window_and_the_typed_goal():
    data = Strikes(goal="Be at 30 strikes in eight weeks")
    data.setup("predict")
    (record,) = data.predict_records
    assert record.goal == "Be at 30 strikes in eight weeks" and monday(record.time[-1]) == date(1997, 12, 22)
    with pytest.raises(ValueError, match="no series of the val part has 50 \\+ 8 steps in a row"):
        Strikes(context=50).setup("fit")


@pytest.mark.parametrize(
    ("remark", "short"),
    [
        ("NO DAMAGE", ""),
        ("NO DAMAGE.  FLT 3010", ""),
        ("NO DAMAGE/INJURY. TIME = 1310Z", ""),
        ("DENT IN  WINGTIP.", "dent in wingtip"),
        ("SMALL GRAY BIRD. NO DAMAGE.", "small gray bird"),
        ("HIT A FLOCK, ASSUME 2-10", "hit a flock"),
        ("NO APPARENT DAMAGE", "no apparent damage"),
    ],
)
def test_remarks_lose_what_most_of_them_say(remark, short):
    assert shorten(remark) == short


def test_long_remarks_are_cut_at_words_and_weeks_at_remarks():
    pd = pytest.importorskip("pandas")
    words = "gull " * 60
    assert shorten(words) == " ".join(["gull"] * (REMARK // 5))
    many = pd.Series([f"BIRD NUMBER {chr(97 + i % 26)}{chr(97 + i // 26)} HIT THE LEFT WING" for i in range(60)])
    week = remarks_of_week(many)
    assert 500 < len(week) <= WEEK and week.endswith(".") and "bird number" in week
    kept = week.split(". ")
    assert len(set(kept)) == len(kept) and kept == sorted(
        kept, key=lambda text: many.str.lower().tolist().index(text.strip("."))
    )
    assert remarks_of_week(pd.Series([None, "NO DAMAGE"])) == ""


def test_build_counts_weeks_from_monday_to_sunday():
    pd = pytest.importorskip("pandas")
    dates = ["1/7/1990 0:00:00", "1/8/1990 0:00:00", "1/14/1990 23:59:00", "12/28/1997 0:00:00", "12/29/1997 0:00:00"]
    source = pd.DataFrame(
        {
            "rownames": range(5),
            "date": dates,
            "effect": ["Other", None, "Other", None, None],
            "remarks": ["A DEER", None, "A GULL", "A BAT", "A"],
        }
    )
    table = build(source).set_index("week")
    assert len(table) == 417
    assert table.loc["1990-01-01", ["strikes", "affected", "remarks"]].tolist() == [1, 1, "a deer."]
    assert table.loc["1990-01-08", ["strikes", "affected", "remarks"]].tolist() == [2, 1, "a gull."]
    assert table.loc["1997-12-22", "strikes"] == 1 and table["strikes"].sum() == 4
    assert pd.isna(table.loc["1990-01-15", "remarks"])


def test_training_counts_are_jittered_and_nothing_else():
    data = Strikes(level_jitter=0.3)
    data.setup()
    for i in (0, 100, 272):
        own, seen = data.train_records.records[i].value, data.train_records[3, i].value
        factor = seen[0, 0] / own[0, 0]
        assert factor != 1 and data.train_records[4, i].value[0, 0] != seen[0, 0]
        np.testing.assert_allclose(seen[:, :2], own[:, :2] * factor, rtol=1e-6)
        np.testing.assert_array_equal(seen[:, 2:], own[:, 2:])
    plain = Strikes()
    plain.setup()
    for name in ("val_records", "test_records"):
        for a, b in zip(getattr(data, name), getattr(plain, name), strict=True):
            np.testing.assert_array_equal(a.value, b.value)
    assert data.scaler.std.tolist() == plain.scaler.std.tolist()
    with pytest.raises(ValueError, match="level_jitter"):
        Strikes(level_jitter=-1)
