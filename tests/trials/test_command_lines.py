"""Strange tables and options by the real command lines: each is used, or refused in words without a traceback."""

import gzip
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import train
from gssr.commands.main import main
from tests.fuzz.damage import PLAIN, TREES, damaged, fuzz
from tests.trials.conftest import SMALL, days

pytestmark = [pytest.mark.trial, pytest.mark.filterwarnings("ignore")]

CELLS = st.one_of(
    PLAIN,
    TREES,
    st.sampled_from(["1,5", "1.234,5", "5 kt", "1e400", "-9999.0", "2024-02-30", "2024-13-01", "31/12/2024", "24:00"]),
    st.sampled_from(["2024-01-05T00:00+02:00", "0000-00-00", "99999-01-01", "\x1b[2J", "\u202e", "a\nb", '"', "=1+1"]),
)
NAMES = st.sampled_from(["id", "when", "a", "b", "said", "", "A", "nothing", "a\x1b[2J", "--a", "[a]", "null"])
WORDS = st.one_of(
    PLAIN.map(str), NAMES, st.sampled_from(["1D", "1h", "1 month", "B", "0D", "1e9D", "%Y", "%d/%m/%Y", "%Q", "year"]),
    st.sampled_from(["north", "nørth", "3", "0", "-1", "1e3", "9" * 40, "inf", "[1, 2]", "{a: 1}", "2024-02-01", ";"]),
)  # fmt: skip
PLAN = [
    "series", "time_column", "series_column", "text_column", "step", "time_unit", "time_zone", "time_format", "missing",
    "delimiter", "same_time", "goal", "goal_step", "context", "horizon", "samples", "seed", "dimension", "strength",
]  # fmt: skip
DATA = [
    "time_column", "series_column", "text_column", "value_columns", "goal_column", "goal_low_column", "goals",
    "goal_dim", "units", "resolution", "step", "time_unit", "time_zone", "time_format", "text_lag", "missing",
    "max_text_chars", "delimiter", "sort_rows", "same_time", "split_by", "split_shares", "split_dates", "predict_from",
    "context", "horizon", "stride", "goal", "goal_step", "batch_size", "level_jitter", "train_through",
]  # fmt: skip


def given_options(names: list[str], prefix: str) -> st.SearchStrategy[list[str]]:
    return st.dictionaries(st.sampled_from(names), WORDS, max_size=3).map(
        lambda chosen: [f"--{prefix}{name}={word}" for name, word in chosen.items()]
    )


@st.composite
def strange_tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """The name and the content of a table with strange cells, columns and rows, in a format that can hold it."""
    frame, kind = days(30).astype(object), draw(st.sampled_from(["csv", "tsv", "jsonl", "parquet", "csv.gz"]))
    for _ in range(draw(st.integers(0, 4))):
        how = draw(st.sampled_from(["cell", "cell", "column", "drop", "rename", "shuffle", "repeat", "cut", "bytes"]))
        if not len(frame) or not len(frame.columns):
            break
        at = draw(st.integers(0, len(frame.columns) - 1))
        if how == "cell":
            column = frame.iloc[:, at].tolist()
            column[draw(st.integers(0, len(frame) - 1))] = draw(CELLS)
            frame.isetitem(at, pd.Series(column, frame.index, dtype=object))
        elif how == "column":
            cell = draw(CELLS)
            frame.isetitem(at, pd.Series([cell] * len(frame), frame.index, dtype=object))
        elif how == "drop":
            frame = frame.drop(columns=frame.columns[at])
        elif how == "rename":
            frame.columns = [draw(NAMES) if i == at else name for i, name in enumerate(frame.columns)]
        elif how == "shuffle":
            frame = frame.sample(frac=1, random_state=0)
        elif how == "repeat":
            frame = pd.concat([frame, frame.iloc[:1]])
        elif how == "cut":
            frame = frame.iloc[: draw(st.integers(0, 5))]
    try:
        content = encoded(frame, kind)
    except (ValueError, TypeError, UnicodeError, OverflowError, ArithmeticError):
        kind, content = "csv", encoded(frame, "csv")  # no such file can be written
    return f"t.{kind}", draw(damaged(content)) if draw(st.integers(0, 4)) == 4 else content


def encoded(frame: pd.DataFrame, kind: str) -> bytes:
    if kind == "jsonl":
        rows = frame.astype(object).where(frame.notna(), None).itertuples(index=False)
        return "\n".join(json.dumps(dict(zip(frame.columns, row, strict=True))) for row in rows).encode()
    if kind == "parquet":
        return frame.convert_dtypes().to_parquet(index=False)
    text = frame.to_csv(index=False, sep="\t" if kind == "tsv" else ",").encode("utf-8", "replace")
    return gzip.compress(text, mtime=0) if kind.endswith("gz") else text


def answered(call: Any, words: list[str], capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether a command did its work; it says what was wrong otherwise, in words that a terminal shows as they are."""
    try:
        code = call(words)
    except SystemExit as stopped:
        code = stopped.code
    out, err = capsys.readouterr()
    said = f"{err}{code if isinstance(code, str) else ''}"
    done = code in (0, None) or not isinstance(code, (str, int))
    assert done or code == 2 or isinstance(code, str), (code, words)
    assert "Traceback" not in said and "np.float64" not in said, said
    assert all(char.isprintable() or char in "\n\r" for char in said), said
    assert done or said.strip(), words
    return done


COUNT = {"done": 0, "refused": 0}


@contextmanager
def in_a_file(table: tuple[str, bytes], here: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=here) as folder:
        file = Path(folder, table[0])
        file.write_bytes(table[1])
        yield file


@fuzz(30)
@given(table=strange_tables(), options=given_options(PLAN, ""))
def test_plan(table: tuple[str, bytes], options: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with in_a_file(table, here) as file:
        words = ["plan", "--run=small", f"--input={file}", "--series=north", "--samples=2", "--no-texts", *options]
        COUNT["done" if answered(main, words, capsys) else "refused"] += 1


@fuzz(5)
@given(table=strange_tables(), options=given_options(DATA, "data."))
def test_predict(table: tuple[str, bytes], options: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with in_a_file(table, here) as file:
        words = ["predict", "--run=small", "--prediction_writer=null", f"--data.path={file}", *options]
        COUNT["done" if answered(train.main, words, capsys) else "refused"] += 1


@fuzz(4)
@given(table=strange_tables(), options=given_options(DATA, "data."))
def test_fit(
    table: tuple[str, bytes], options: list[str], here: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with in_a_file(table, here) as file:
        words = ["fit", "--run", file.parent.name, *SMALL, f"--data.path={file}", *options]
        words += [f"--model.backbone.name={tiny_folder}", "--trainer.max_steps=1", "--trainer.val_check_interval=1"]
        COUNT["done" if answered(train.main, words, capsys) else "refused"] += 1


def test_both_were_seen() -> None:
    """Run with the tests above: a fuzz that refuses everything shows nothing."""
    if sum(COUNT.values()) < 30:
        pytest.skip("needs the other tests of this file")
    assert min(COUNT.values()) >= 3, COUNT
