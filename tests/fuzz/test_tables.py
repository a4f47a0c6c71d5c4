"""Tables of every format, whole windows of them and histories for a plan."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.table_sequences import TableSequences
from datamodules.tables.history import read_history
from tests.conftest import SENTENCES
from tests.fuzz.damage import TREES, changed, damaged, fuzz, read_or_refuse

OPTIONS = {"time_column": "time", "text_column": "text", "context": 3, "horizon": 2, "batch_size": 4}
FORMATS = ("csv", "csv.gz", "tsv", "jsonl", "parquet")


@pytest.fixture(scope="module")
def tables(place: Path) -> dict[str, bytes]:
    frame = pd.DataFrame({"time": pd.date_range("2024-01-01", periods=40).strftime("%Y-%m-%d")})
    frame["wind"] = np.random.default_rng(0).normal(50, 5, 40).round(1)
    frame["text"] = [None if i % 3 else SENTENCES[i % 4] for i in range(40)]
    text = frame.to_csv(index=False).encode()
    frame.to_parquet(place / "good.parquet")
    return {
        "csv": text, "csv.gz": gzip.compress(text, mtime=0), "tsv": frame.to_csv(index=False, sep="\t").encode(),
        "jsonl": frame.to_json(orient="records", lines=True).encode(),
        "parquet": (place / "good.parquet").read_bytes(),
    }  # fmt: skip


def _read(file: Path) -> None:
    data = TableSequences(str(file), **OPTIONS)
    data.setup("fit")
    for windows in (data.train_records, data.val_records):
        for i in range(min(len(windows), 3)):
            assert windows[i].value.dtype == np.float32


def _try(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    shutil.rmtree(file.parent / "cache", ignore_errors=True)
    read_or_refuse(lambda: _read(file))
    read_or_refuse(lambda: read_history(file, ["wind"], 2, 3, goal=SENTENCES[0]))


@pytest.mark.parametrize("form", FORMATS)
@fuzz(25)
@given(data=st.data())
def test_damaged_bytes_of_a_table(form: str, tables: dict[str, bytes], place: Path, data: st.DataObject) -> None:
    content = tables[form]
    if form == "csv.gz" and data.draw(st.booleans()):
        _try(place / f"t.{form}", gzip.compress(data.draw(damaged(gzip.decompress(content))), mtime=0))
    else:
        _try(place / f"t.{form}", data.draw(damaged(content)))


@fuzz(25)
@given(data=st.data())
def test_strange_lines_of_json(tables: dict[str, bytes], place: Path, data: st.DataObject) -> None:
    lines = [json.loads(line) for line in tables["jsonl"].splitlines()]
    for at in data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=1, max_size=3)):
        lines[at] = data.draw(st.one_of(TREES, changed(lines[at])))
    _try(place / "t.jsonl", "\n".join(map(json.dumps, lines)).encode())
