"""What cells and columns mean, in every format: codes of missing values, names, and columns without a name."""

import csv
import json
import warnings
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules import TableSequences
from datamodules.tables.history import read_history

pytestmark = pytest.mark.trial

FORMATS = ("csv", "tsv", "jsonl", "parquet")
DAYS = [str(date(2023, 1, 1) + timedelta(i)) for i in range(60)]
WAVE = [round(20 + 5 * np.sin(i / 6) + 0.3 * np.sin(i * 7.7), 2) for i in range(60)]


def written(folder: Path, kind: str, columns: list[tuple[str, list[Any]]]) -> str:
    """A table in a format; None is an empty cell or null. CSV may have columns of one name."""
    file = folder / f"t.{kind}"
    names, rows = [name for name, _ in columns], list(zip(*(cells for _, cells in columns), strict=True))
    if kind == "jsonl":
        file.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    elif kind == "parquet":
        pd.DataFrame(dict(columns)).to_parquet(file, index=False)
    else:
        with open(file, "w", newline="") as opened:
            writer = csv.writer(opened, delimiter="\t" if kind == "tsv" else ",")
            writer.writerow(names)
            writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return str(file)


def table(path: str, **options: Any) -> TableSequences:
    data = TableSequences(path, time_column="date", context=4, horizon=2, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.prepare_data()
        data.setup("fit")
    return data


# pandas-dev/pandas#59303, Unidata/siphon#213: codes of missing values that are numbers.
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("cell", "code"),
    [(-9999.0, "-9999"), (-9999, "-9999.0"), (-9999.0, "-9.999e3"), (999.9, "999.90"), (-1, "-1"), (1e20, "1e+20")],
)
def test_a_code_that_is_a_number_matches_by_value(kind: str, cell: float, code: str, tmp_path: Path) -> None:
    cells = [cell if i % 10 == 3 else value for i, value in enumerate(WAVE)]
    data = table(written(tmp_path, kind, [("date", DAYS), ("y", cells)]), value_columns=["y"], missing=[code])
    expected = [value for i, value in enumerate(WAVE[:42]) if i % 10 != 3]
    assert data.scaler.mean.item() == pytest.approx(np.mean(expected), rel=1e-4)
    assert np.isnan(data.train_records[0].value[3, 0])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_code_beside_others_leaves_near_numbers_alone(kind: str, tmp_path: Path) -> None:
    cells = [-9998.5 if i == 5 else -9999 if i == 6 else value for i, value in enumerate(WAVE)]
    data = table(written(tmp_path, kind, [("date", DAYS), ("y", cells)]), missing=["-9999", "-1"], value_columns=["y"])
    values = data.train_records[2].value[:, 0]  # rows 2 to 7
    assert values[3] == np.float32(-9998.5) and np.isnan(values[4])


# A country code of Namibia, a person called Null.
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["NA", "null", "None", "nan", "-", "n/a", "<NA>"])
def test_a_series_may_be_called_like_nothing(kind: str, name: str, tmp_path: Path) -> None:
    columns = [("id", [name] * 60 + ["other"] * 60), ("date", DAYS * 2), ("y", WAVE * 2)]
    data = table(written(tmp_path, kind, columns), series_column="id", value_columns=["y"])
    assert {data.train_records[i].series for i in range(len(data.train_records))} == {name, "other"}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("word", ["NA", "null", "None", "nan", "-", "n/a", "<NA>"])
def test_a_text_may_be_a_word_for_nothing(kind: str, word: str, tmp_path: Path) -> None:
    texts = [None if i % 3 == 1 else " " if i % 3 == 2 else word for i in range(60)]
    path = written(tmp_path, kind, [("date", DAYS), ("y", WAVE), ("said", texts)])
    data = table(path, text_column="said", value_columns=["y"])
    assert data.train_records[0].text[:3] == [word, None, None]


# A data frame keeps whole numbers with gaps as floats.
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_nan_among_numbers_is_no_name(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, kind, [("id", [7.0] * 59 + [float("nan")]), ("date", DAYS), ("y", WAVE)])
    with pytest.raises(ValueError, match="series column 'id' is empty in row 60"):
        table(path, series_column="id", value_columns=["y"])


@pytest.mark.parametrize("code", ["-999.9", "-999.90", "-9.999e2"])
@pytest.mark.parametrize(
    "kind",
    [
        pa.float16(),
        pa.float32(),
        pa.float64(),
        pa.decimal128(12, 4),
        pa.string(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
    ids=str,
)
def test_a_code_matches_in_each_type_of_parquet(kind: pa.DataType, code: str, tmp_path: Path) -> None:
    cells = [-999.9 if i % 10 == 3 else value for i, value in enumerate(WAVE)]
    if pa.types.is_decimal(kind):
        column = pa.array([Decimal(str(cell)) for cell in cells], kind)
    elif pa.types.is_floating(kind):
        column = pa.array(np.array(cells, kind.to_pandas_dtype()))
    else:
        column = pa.array(list(map(str, cells)), pa.string()).cast(kind)
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({"date": DAYS, "y": column}), file)
    values = table(str(file), value_columns=["y"], missing=[code]).train_records[0].value[:, 0]
    assert np.isnan(values).nonzero()[0].tolist() == [3]


@pytest.mark.parametrize("written_as", ['"-9999"', '" -9999.0 "', "-9999", "-9999.00", "-9.999E3", "NaN", "null", '""'])
def test_a_code_matches_as_number_and_as_text_of_json(written_as: str, tmp_path: Path) -> None:
    rows = zip(DAYS, [written_as if i == 3 else str(value) for i, value in enumerate(WAVE)], strict=True)
    (tmp_path / "t.jsonl").write_text("".join(f'{{"date": "{day}", "y": {cell}}}\n' for day, cell in rows))
    values = table(str(tmp_path / "t.jsonl"), value_columns=["y"], missing=["-9999"]).train_records[0].value[:, 0]
    assert np.isnan(values).nonzero()[0].tolist() == [3]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("code", ["-9,999", "missing", "−9999"])
def test_a_code_that_is_no_number_matches_as_it_stands(kind: str, code: str, tmp_path: Path) -> None:
    cells = [code if i == 3 else str(value) for i, value in enumerate(WAVE)]
    path = written(tmp_path, kind, [("date", DAYS), ("y", cells)])
    values = table(path, value_columns=["y"], missing=[code]).train_records[0].value[:, 0]
    assert np.isnan(values).nonzero()[0].tolist() == [3]
    with pytest.raises(ValueError, match="value column 'y' holds .* in row 4; expected a number"):
        table(path, value_columns=["y"], missing=["-9999"])


@pytest.mark.parametrize("kind", FORMATS)
def test_codes_mean_the_same_in_a_file_of_goals(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, "csv", [("date", DAYS), ("y", WAVE)])
    goals = tmp_path / "goals"
    goals.mkdir()
    file = written(goals, kind, [("goal", ["Reach 22"]), ("low", [22.0]), ("high", [-9999.0])])
    record = table(path, value_columns=["y"], missing=["-9999"], goals=file).train_records[0]
    assert record.goal_low[0] == 22 and record.goal_high[0] == np.float32(max(WAVE))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_code_means_the_same_in_a_history(kind: str, tmp_path: Path) -> None:
    cells = [-9999.0 if i == 57 else value for i, value in enumerate(WAVE)]
    path = written(tmp_path, kind, [("date", DAYS), ("y", cells)])
    record = read_history(path, ["y"], 2, 4, time_column="date", missing=["-9999"])
    assert np.isnan(record.value[:4, 0]).nonzero()[0].tolist() == [1]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_series_without_a_name_is_refused(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, kind, [("id", ["a"] * 59 + [None]), ("date", DAYS), ("y", WAVE)])
    with pytest.raises(ValueError, match="series column 'id' is empty in row 60"):
        table(path, series_column="id", value_columns=["y"])


# wireservice/csvkit#426, thephpleague/csv#543, mindsdb/mindsdb_python_sdk#86, huggingface/datasets#5490.
COUNT = list(range(60))
NOTHING = [None] * 60
UNNAMED: dict[str, list[tuple[str, list[Any]]]] = {
    "a row counter": [("", COUNT), ("date", DAYS), ("y", WAVE)],
    "a row counter of pandas": [("Unnamed: 0", COUNT), ("date", DAYS), ("y", WAVE)],
    "an index of Parquet": [("__index_level_0__", COUNT), ("date", DAYS), ("y", WAVE)],
    "a row counter that was written twice": [
        ("Unnamed: 0.1", COUNT),
        ("Unnamed: 0", COUNT),
        ("date", DAYS),
        ("y", WAVE),
    ],
    "a blank name": [("  ", COUNT), ("date", DAYS), ("y", WAVE)],
    "one trailing comma": [("date", DAYS), ("y", WAVE), ("", NOTHING)],
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("what", UNNAMED)
def test_columns_without_a_name_are_no_values(
    what: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = table(written(tmp_path, kind, UNNAMED[what]))
    assert data.value_names == ("y",)
    assert "values, all columns of numbers: 'y'" in capsys.readouterr().out


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["index", "level_0", "Index", "row_id", "#"])
@pytest.mark.parametrize("begin", [0, 1])
def test_a_row_counter_is_no_value_and_is_told(
    kind: str, name: str, begin: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = [begin + i % 30 for i in range(60)]  # of two tables, one behind the other
    data = table(written(tmp_path, kind, [(name, count), ("date", DAYS), ("y", WAVE)]))
    assert data.value_names == ("y",)
    assert f"values, all columns of numbers: 'y'; not '{name}', which counts rows" in capsys.readouterr().out


@pytest.mark.parametrize("kind", FORMATS)
def test_an_index_of_prices_is_a_value(kind: str, tmp_path: Path) -> None:
    assert table(written(tmp_path, kind, [("date", DAYS), ("index", WAVE)])).value_names == ("index",)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_row_counter_that_is_named_is_a_value(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, kind, [("index", COUNT), ("date", DAYS), ("y", WAVE)])
    assert table(path, value_columns=["index"]).value_names == ("index",)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_index_of_times_without_a_name_can_be_the_time(kind: str, tmp_path: Path) -> None:
    name = "__index_level_0__" if kind == "parquet" else ""
    data = TableSequences(written(tmp_path, kind, [(name, DAYS), ("y", WAVE)]), time_column=name, context=4, horizon=2)
    data.setup("fit")
    assert data.value_names == ("y",) and str(data.cutter.grid) == "1D"


@pytest.mark.parametrize("content", ["date,y\n2024-01-01,1,\n2024-01-02,2,\n", "date,y,,\n2024-01-01,1\n"])
def test_a_comma_at_the_end_of_some_lines_is_told(content: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=r"has \d cells, the first line names \d columns; .* end no line with ','"):
        TableSequences(str(tmp_path / "t.csv"), time_column="date")


def test_two_columns_of_one_name_are_refused_in_parquet(tmp_path: Path) -> None:
    columns = pa.Table.from_arrays([pa.array(DAYS), pa.array(WAVE), pa.array(COUNT)], names=["date", "z", "z"])
    pq.write_table(columns, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="has 2 columns 'z'; give each a name of its own"):
        TableSequences(str(tmp_path / "t.parquet"), time_column="date")


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize("many", [2, 5])
def test_trailing_commas_are_left_out(kind: str, many: int, tmp_path: Path) -> None:
    columns = [("date", DAYS), ("y", WAVE), *[("", NOTHING)] * many]
    assert table(written(tmp_path, kind, columns)).value_names == ("y",)


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize("named", [None, ["y", "z"]])
def test_two_columns_of_one_name_are_refused(kind: str, named: list[str] | None, tmp_path: Path) -> None:
    path = written(tmp_path, kind, [("date", DAYS), ("y", WAVE), ("z", WAVE), ("z", COUNT)])
    with pytest.raises(ValueError, match="has 2 columns 'z'; give each a name of its own"):
        TableSequences(path, time_column="date", value_columns=named)
