"""One table is the same windows, scaler and history in each format that can hold it."""

import json
import tempfile
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules import TableSequences
from datamodules.tables.history import read_history
from gssr.sequences.record import Record
from tests.fuzz.damage import fuzz

pytestmark = pytest.mark.trial

OPTIONS: dict[str, Any] = {
    "time_column": "when", "series_column": "id", "text_column": "said", "missing": ["-9999"],
}  # fmt: skip
LENGTHS = ["min", "ms", "s", "15min", "h", "6h"]
DAYS = ["D", "7D", "28D", "B", "MS", "ME", "QS", "BMS", "YS"]  # of the zone's own clock
ZONES = ["UTC", timezone(timedelta(hours=1)), timezone(timedelta(hours=5, minutes=30)), "America/New_York"]
WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
SPECIAL = [
    "NA",
    "null",
    "nan",
    "None",
    "-",
    "7",
    "1e5",
    'a "quoted", word',
    "two\nlines",
    "",
    " ",
    "ä 漢 🌀",
    "'",
    "\\N",
]
FORMATS = ("csv", "csv of Excel", "tsv.gz", "jsonl", "jsonl of words", "parquet", "parquet of kinds")


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Rows of some series on one regular grid, with times of a zone, missing cells and texts of any kind."""
    step, zone = draw(st.sampled_from(LENGTHS + DAYS)), draw(st.sampled_from(ZONES))
    begin = draw(st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1))).replace(second=0, microsecond=0)
    names = draw(
        st.lists(st.sampled_from(["NA", "null", "7", "07", "ä b", "x,y", "1e3"]), min_size=1, max_size=3, unique=True)
    )
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    said = draw(st.lists(st.one_of(WORDS, st.sampled_from(SPECIAL)), min_size=3, max_size=8))
    parts = []
    for name in names:
        size = int(random.integers(40, 60))
        values = random.normal(size=(size, 2)).cumsum(0) * 10.0 ** draw(st.integers(-6, 6))
        values[random.random((size, 2)) < draw(st.sampled_from([0, 0.2]))] = np.nan
        values[random.random((size, 2)) < draw(st.sampled_from([0, 0.1]))] = -9999
        texts = [None if pick < 0.5 else said[int(pick * 1e6) % len(said)] for pick in random.random(size)]
        texts[0] = "words"
        clock = pd.date_range(begin, periods=size, freq=step)
        summer = {"ambiguous": np.ones(size, bool), "nonexistent": "shift_forward"}
        clock = clock.tz_localize(zone, **summer) if step in DAYS else clock.tz_localize("UTC").tz_convert(zone)
        times = [stamp.to_pydatetime() for stamp in clock]
        parts.append(pd.DataFrame({"id": name, "when": times, "a": values[:, 0], "b": values[:, 1], "said": texts}))
    return pd.concat(parts, ignore_index=True)


def cells(frame: pd.DataFrame, number: Any) -> list[dict[str, Any]]:
    """Rows with times as ISO 8601 and numbers as `number` writes them; None is an empty cell."""
    kinds = {"when": lambda time: time.isoformat(), "a": number, "b": number}
    return [
        {name: None if cell is None or cell != cell else kinds.get(name, str)(cell) for name, cell in row.items()}
        for row in frame.to_dict("records")
    ]


def write(frame: pd.DataFrame, kind: str, folder: Path) -> Path:
    file = folder / f"t{FORMATS.index(kind)}.{kind.split()[0]}"
    if kind.startswith("jsonl"):
        rows = cells(frame, repr if "words" in kind else float)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif kind == "parquet of kinds":  # times as times, texts as categories, beside the index of a data frame
        stamps = pd.to_datetime(frame["when"], utc=True).dt.tz_convert(frame["when"][0].tzinfo)
        whole = pa.Table.from_pandas(frame.assign(when=stamps), preserve_index=True)
        said = whole.schema.get_field_index("said")
        pq.write_table(whole.set_column(said, "said", whole["said"].dictionary_encode()), file)
    elif kind == "parquet":
        pd.DataFrame(cells(frame, float)).astype({"a": float, "b": float}).to_parquet(file, index=False)
    else:
        excel = "Excel" in kind  # with the mark of UTF-8, ends of lines of Windows, and columns without a name
        plain = pd.DataFrame(cells(frame, repr))
        plain = plain.assign(**{"": None, " ": None}) if excel else plain
        form = {"lineterminator": "\r\n", "encoding": "utf-8-sig"} if excel else {"encoding": "utf-8"}
        plain.to_csv(file, index=excel, sep="\t" if "tsv" in kind else ",", **form)
    return file


def options_for(frame: pd.DataFrame) -> dict[str, Any]:
    """Texts tell offsets alone; where these change, the zone has to be given."""
    changes = len({time.utcoffset() for time in frame["when"]}) > 1
    return OPTIONS | ({"time_zone": "America/New_York"} if changes else {})


def same(left: Record, right: Record) -> None:
    assert (left.series, left.text, left.goal, left.goal_start) == (
        right.series,
        right.text,
        right.goal,
        right.goal_start,
    )
    for part in ("time", "value", "goal_low", "goal_high"):
        np.testing.assert_array_equal(getattr(left, part), getattr(right, part))


@fuzz(10)
@given(frame=tables())
def test_a_table_is_the_same_in_each_format(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), monkeypatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("GSSR_CACHE", folder)
        first: TableSequences | None = None
        options = options_for(frame)
        for kind in FORMATS:
            file = write(frame, kind, Path(folder))
            data = TableSequences(str(file), context=4, horizon=2, **options)
            data.setup(None)
            assert data.value_names == ("a", "b"), kind
            ends = [read_history(file, ["a", "b"], 2, 6, series=name, trained=options) for name in frame["id"].unique()]
            if first is None:
                first, histories = data, ends
                continue
            for part in ("mean", "std", "low", "high"):
                assert torch.equal(getattr(data.scaler, part), getattr(first.scaler, part)), (kind, part)
            assert data.value_resolution == first.value_resolution and str(data.cutter.grid) == str(first.cutter.grid)
            for part in ("train", "val", "test", "predict"):
                found, expected = (getattr(of, f"{part}_records") for of in (data, first))
                assert len(found) == len(expected) > 0
                for i in range(len(found)):
                    same(found[i], expected[i])
            for end, expected_end in zip(ends, histories, strict=True):
                same(end, expected_end)
