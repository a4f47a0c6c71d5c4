"""Any table gives sequences or a ValueError: never another exception, never a loss that is not finite."""

import json
import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.table_sequences import TableSequences
from gssr.sequences.collate import collate
from tests.conftest import SENTENCES
from tests.networks import make_network

RUNS = settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
CELLS = st.one_of(
    st.none(), st.integers(-(10**6), 10**6), st.floats(allow_subnormal=False), st.text(max_size=8), st.booleans(),
    st.sampled_from(["NA", "1,5", "2024-01-05", "inf", "-1e39", '"', "a\nb", "\x00", "\ud83d", "9" * 400]),
)  # fmt: skip
COUNT = {"sequences": 0, "refused": 0}


def plain_columns(g: np.random.Generator) -> dict[str, list[Any]]:
    """Columns of one kind each."""

    def pick(*values: Any) -> Any:
        return values[g.integers(len(values))]

    rows, scale = pick(0, 5, 20, 40, 60, 60, 60, 60), 10.0 ** pick(0, 0, 0, 1, -5, 9, -25, 25, -40, 38)
    kinds = {
        "time": pick("days", "days", "hours", "hours", "jitter", "months", "months", "numbers", "equal"),
        "value": pick("walk", "walk", "walk", "integers", "missing", "jump", "constant"),
    }
    when = {
        "days": pd.date_range("2020-01-01", periods=rows).strftime("%Y-%m-%d"),
        "hours": pd.date_range("2020-01-01", periods=rows, freq="h").strftime("%Y-%m-%dT%H:%MZ"),
        "numbers": range(rows),
        "jitter": (
            pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(rows) * 24 + g.random(rows), unit="h")
        ).astype(str),
        "months": pd.date_range("2020-01-01", periods=rows, freq="MS").strftime("%Y-%m-%d"),
        "equal": ["2020-01-01"] * rows,
    }[kinds["time"]]
    value = {
        "walk": g.normal(size=rows).cumsum(),
        "integers": g.integers(0, 4, rows),
        "constant": np.full(rows, 3.0),
        "missing": np.where(g.random(rows) < 0.7, np.nan, g.normal(size=rows)),
        "jump": np.where(np.arange(rows) > 0.8 * rows, 1e30, g.normal(size=rows)),
    }[kinds["value"]]
    return {
        "t": list(when),
        "v": [float(x) * scale for x in value],
        "s": [f"s{i}" for i in g.integers(0, pick(1, 2, 4), rows)],
        "x": [None if g.random() < 0.3 else str(g.choice(SENTENCES)) for _ in range(rows)],
        "g": [None if g.random() < 0.5 else "Be at 3" for _ in range(rows)],
    }


@st.composite
def columns(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Such columns with a strange cell here and there, in any order."""
    made = plain_columns(np.random.default_rng(draw(st.integers(0, 999))))
    rows = len(made["t"])
    for _ in range(draw(st.integers(0, 3))):
        if rows:
            made[draw(st.sampled_from(sorted(made)))][draw(st.integers(0, rows - 1))] = draw(CELLS)
    return {name: made[name] for name in draw(st.permutations(sorted(made)))}


def some_options(g: np.random.Generator) -> dict[str, Any]:
    """Options that mostly fit such columns."""
    chosen: dict[str, Any] = {"context": int(g.integers(1, 5)), "horizon": int(g.integers(1, 4))}
    likely = {"time_column": ["t"] * 12 + [None, "v"], "value_columns": [["v"]] * 12 + [None, ["v", "t"], ["x"]]}
    seldom = {
        "series_column": ["s", "g"], "text_column": ["x", "x", "v"], "goal_column": ["g"], "goal_low_column": ["v"],
        "step": ["1h", "1D", "1M"], "time_unit": ["step", "s", "year"], "sort_rows": [True],
        "same_time": ["mean", "refuse"],
        "stride": [2], "text_lag": [1],
        "split_by": ["time", "series"], "goals": [None], "predict_from": ["2020-01-20"],
        "split_dates": [("2020-01-10", "2020-01-15")], "missing": [["0"]],
    }  # fmt: skip
    for name, values in likely.items():
        chosen[name] = values[g.integers(len(values))]
    for name, values in seldom.items():
        if g.random() < 0.06:
            chosen[name] = values[g.integers(len(values))]
    return chosen


def save(made: dict[str, list[Any]], path: Path) -> None:
    rows = [dict(zip(made, cells, strict=True)) for cells in zip(*made.values(), strict=True)]
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif path.suffix == ".parquet":
        pd.DataFrame({
            name: pd.Series(
                cells, dtype="float64" if name == "v" and all(isinstance(c, float) for c in cells) else "str"
            )
                      for name, cells in made.items()}).to_parquet(path)  # fmt: skip
    else:
        pd.DataFrame(made).to_csv(path, index=False, encoding="utf-8", errors="surrogatepass")


def read(path: Path, chosen: dict[str, Any]) -> TableSequences | None:
    """The data module if the table can be used; any exception but ValueError is what this test is about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = TableSequences(str(path), batch_size=8, **chosen)
            data.setup()
        except ValueError as error:
            assert len(str(error)) > 20
            COUNT["refused"] += 1
            return None
    COUNT["sequences"] += 1
    return data


def check(data: TableSequences) -> None:
    for windows in (data.train_records, data.val_records, data.test_records, data.predict_records):
        for i in range(min(len(windows), 6)):
            record = windows[i]
            assert not np.isinf(record.value).any() and np.all(np.diff(record.time) > 0)
            assert record.goal is None or record.goal.strip()
            scaled = data.scaler.transform(torch.from_numpy(record.value))
            assert torch.isfinite(scaled[~torch.isnan(scaled)]).all()
    for record in data.train_records:
        assert not np.isnan(record.value[: record.goal_start + 1]).all()
        assert not np.isnan(record.value[record.goal_start + 1 :]).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
@RUNS
@given(made=columns(), seed=st.integers(0, 999), ending=st.sampled_from([".csv", ".jsonl", ".parquet"]))
def test_any_table_gives_sequences_or_a_value_error(made: dict[str, list[Any]], seed: int, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t{ending}"
        try:
            save(made, path)
        except (UnicodeEncodeError, ValueError):
            return  # the writer's own limits
        data = read(path, some_options(np.random.default_rng(seed)))
        if data is not None:
            check(data)


@RUNS
@given(
    content=st.binary(max_size=300),
    ending=st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".xls", ""]),
)
def test_any_bytes_are_refused_or_read(content: bytes, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t{ending}"
        path.write_bytes(content)
        data = read(path, {"context": 1, "horizon": 1})
        if data is not None:
            check(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tables_without_strange_cells(tmp_path: Path) -> None:
    for seed in range(60):
        g = np.random.default_rng(seed)
        path = tmp_path / f"{seed}{('.csv', '.jsonl', '.parquet')[seed % 3]}"
        save(plain_columns(g), path)
        data = read(path, some_options(g))
        if data is not None:
            check(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_loss_of_what_is_read_is_finite(tiny_folder: Path, tmp_path: Path) -> None:
    """Tables at the edges of what is accepted, through a network and back."""
    g = np.random.default_rng(0)
    days = pd.date_range("2020-01-01", periods=60).strftime("%Y-%m-%d")
    walk = g.normal(size=60).cumsum()
    edges = {
        "huge": walk * 1e25, "tiny": walk * 1e-25, "sparse": np.where(g.random(60) < 0.6, np.nan, walk),
        "spike": np.where(np.arange(60) == 50, 1e5, walk),
        "offset": walk + 3e4, "levels": g.integers(0, 2, 60), "gaps": np.where(np.arange(60) % 3 == 0, walk, np.inf),
    }  # fmt: skip
    for name, values in edges.items():
        text = [None if g.random() < 0.5 else str(g.choice(SENTENCES)) for _ in range(60)]
        frame = pd.DataFrame({"t": days, "v": values, "x": text if name != "huge" else None})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = TableSequences(
                str(tmp_path / f"{name}.csv"), "t", value_columns=["v"], text_column="x", context=4, horizon=2
            )
            data.setup()
        network = make_network(tiny_folder, latent_dim=2, hidden_dim=8, text_layers=(1,), goal_layer=1,
            text_steps=2, open_samples=4,
            names=["v"], units=[""], resolution=list(data.value_resolution),
        )  # fmt: skip
        network.world.fit_units(data.scaler, data.value_resolution)
        for records in (data.train_records, data.test_records):
            batch = collate([records[i] for i in range(min(6, len(records)))])
            terms = network.objective(batch, torch.Generator().manual_seed(0), training=True).terms
            assert all(math.isfinite(float(term)) for term in terms.values()), (name, terms)
            sum(terms.values()).backward()
            assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None), name


def test_the_fuzz_has_seen_both(capsys: pytest.CaptureFixture[str]) -> None:
    """Run with the tests above: a fuzz that refuses everything shows nothing."""
    if sum(COUNT.values()) < 100:
        pytest.skip("needs the other tests of this file")
    with capsys.disabled():
        print(f" [fuzz: {COUNT['sequences']} gave sequences, {COUNT['refused']} a ValueError]", end="")
    assert COUNT["sequences"] >= 10 and COUNT["refused"] >= 10
