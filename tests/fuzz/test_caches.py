"""What a cache holds never changes a result: a damaged one is made again, or refused."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.table_sequences import TableSequences
from gssr.backbone import FrozenBackbone
from gssr.backbone.table import TextTable
from tests.conftest import SENTENCES
from tests.fuzz.damage import damaged, fuzz, read_or_refuse, strange_safetensors


@pytest.fixture(scope="module")
def texts(tiny: FrozenBackbone, place: Path) -> tuple[Path, bytes, torch.Tensor]:
    """The file of a text cache, its content and the features in it."""
    table = TextTable(tiny, [1])
    table.add(SENTENCES)
    return table.file, table.file.read_bytes(), table.look_up([SENTENCES])[0]


@pytest.mark.parametrize("how", [damaged, strange_safetensors], ids=["bytes", "header"])
@fuzz(40)
@given(data=st.data())
def test_the_cache_of_texts(
    how, texts: tuple[Path, bytes, torch.Tensor], tiny: FrozenBackbone, data: st.DataObject
) -> None:
    file, content, features = texts
    file.write_bytes(data.draw(how(content)))
    table = TextTable(tiny, [1])
    read_or_refuse(lambda: table.add(SENTENCES))
    assert torch.equal(table.look_up([SENTENCES])[0], features)


@pytest.fixture(scope="module")
def store(place: Path) -> Path:
    """A copy of the store of t.csv, which lies in the cache of tables."""
    g = np.random.default_rng(0)
    frame = pd.DataFrame({"time": pd.date_range("2024-01-01", periods=40).strftime("%Y-%m-%d")})
    frame["wind"] = g.normal(50, 5, 40).round(1)
    frame["text"] = [SENTENCES[i % 4] for i in range(40)]
    frame.to_csv(place / "t.csv", index=False)
    _windows(place)
    shutil.copytree(place / "cache" / "tables", place / "good")
    return place / "good"


def _windows(place: Path) -> list[tuple[bytes, tuple[str | None, ...]]]:
    data = TableSequences(
        str(place / "t.csv"), time_column="time", text_column="text", context=3, horizon=2, batch_size=4
    )
    data.setup("fit")
    return [
        (record.value.tobytes(), tuple(record.text))
        for windows in (data.train_records, data.val_records)
        for record in (windows[i] for i in range(len(windows)))
    ]


@fuzz(60)
@given(data=st.data())
def test_the_store_of_a_table(store: Path, place: Path, data: st.DataObject) -> None:
    tables = place / "cache" / "tables"
    shutil.rmtree(tables)
    shutil.copytree(store, tables)
    good = _windows(place)
    files = sorted(file for file in tables.rglob("*") if file.is_file() and file.stat().st_size)
    file = data.draw(st.sampled_from(files))
    file.write_bytes(data.draw(damaged(file.read_bytes())))
    found = read_or_refuse(lambda: _windows(place))
    assert found is None or found == good, "changed rows were used"
