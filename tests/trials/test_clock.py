"""Outputs and goals write times with what they have, and lengths of time in the unit that fits."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gssr.sequences.clock import count_of, iso_time, unit_of
from gssr.sequences.phrases import time_spans
from tests.trials.stamps import read, stamps, written

pytestmark = pytest.mark.trial


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
        ("D", "day"), ("7D", "week"), ("28D", "week"), ("BME", "month"), ("QE", "month"), ("YE", "year"),
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
        (473_352 - 1e-10, "2024-01-01T00:00Z"),
        (2_458_059.1197233335, "2250-06-01T03:07:11.004Z"), (-1 / 3.6e6, "1969-12-31T23:59:59.999Z"),
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
