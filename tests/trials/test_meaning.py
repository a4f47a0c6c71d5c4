"""What cells and columns mean, in every format: codes of missing values, names, and columns without a name."""

import csv
import json
import warnings
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datamodules import TableSequences

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
