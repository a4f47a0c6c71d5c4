"""Tables of stamps, and the doors by which they are read."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules import TableSequences
from datamodules.tables.history import read_history
from gssr.sequences.clock import iso_time

FORMATS = ("csv", "jsonl", "parquet", "parquet of times")
C, H = 6, 3
Table = dict[str, Any]


def written(folder: Path, kind: str, times: Any, name: str = "t") -> str:
    """A table of stamps ("when") and a wave ("y"); stamps are texts but in "parquet of times"."""
    values = [round(20 + 5 * np.sin(i / 4) + i / 100, 3) for i in range(len(times))]
    texts = [time if isinstance(time, str) else time.isoformat() for time in times]
    file = folder / f"{name}.{kind.split()[0]}"
    if kind == "csv":
        pd.DataFrame({"when": texts, "y": values}).to_csv(file, index=False)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps({"when": w, "y": y}) + "\n" for w, y in zip(texts, values, strict=True)))
    else:
        typed = pa.array(pd.DatetimeIndex(times)) if "of times" in kind else pa.array(texts)
        pq.write_table(pa.table({"when": typed, "y": values}), file)
    return str(file)


def read(path: str, **options: Any) -> tuple[TableSequences, list[str]]:
    """The data module of a table, and what was said."""
    data = TableSequences(path, time_column="when", value_columns=["y"], context=C, horizon=H, **options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data.setup(None)
    return data, [str(warning.message) for warning in said]


def plan(path: str, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_history(path, ["y"], H, C, time_column="when", **options)


def ahead(record: Any) -> list[str]:
    return [iso_time(hours) for hours in record.time[-H:]]


def stamps(first: str, freq: str, n: int = 60, zone: str | None = None, days: int = 0) -> pd.DatetimeIndex:
    return pd.date_range(first, periods=n + H, freq=freq, tz=zone) + pd.Timedelta(days=days)


def utc(time: pd.Timestamp) -> str:
    time = time if time.tz is None else time.tz_convert("UTC").tz_localize(None)
    return time.isoformat(timespec="milliseconds").replace(".000", "").removesuffix(":00") + "Z"


# source of the symptom, or of that of a sibling; stamps, of which the last three are the future
CALENDARS: dict[str, tuple[str, pd.DatetimeIndex]] = {
    "month ends": ("facebook/prophet#835", stamps("2015-01-31", "ME")),
    "month ends that begin in February": ("appsembler/figures#356", stamps("2015-02-28", "ME")),
    "month ends that end in January": ("facebook/prophet#835", stamps("2019-02-28", "ME", 60)),
    "month starts": ("facebook/prophet#1578", stamps("2015-01-01", "MS")),
    "the 15th": ("plaintextaccounting/hledger#2032", stamps("2015-01-01", "MS", days=14)),
    "quarter ends": ("appsembler/figures#356", stamps("2005-03-31", "QE")),
    "quarter ends that begin in June": ("appsembler/figures#356", stamps("2005-06-30", "QE")),
    "quarters of a fiscal year": ("facebook/prophet#1578", stamps("2005-01-31", "QE-JAN")),
    "year ends": ("facebook/prophet#835", stamps("1970-12-31", "YE")),
    "every second month": ("firefly-iii/firefly-iii#2806", stamps("2005-01-31", "2ME")),
    "first business days": ("macrosynergy/macrosynergy#1238", stamps("2015-01-01", "BMS")),
    "last business days": ("macrosynergy/macrosynergy#1238", stamps("2015-01-30", "BME")),
    "last business days of quarters": ("macrosynergy/macrosynergy#1238", stamps("2005-03-31", "BQE")),
    "business days up to a Friday": ("facebook/prophet#1830", stamps("2023-01-02", "B", 60)),
    "business days up to a Thursday": ("RJT1990/pyflux#103", stamps("2023-01-02", "B", 59)),
    "days but Saturdays": (
        "unit8co/darts#1420",
        stamps("2022-11-27", pd.offsets.CustomBusinessDay(weekmask="Mon Tue Wed Thu Fri Sun")),  # type: ignore[arg-type]
    ),
    "weeks": ("quarkfin/qf-lib#218", stamps("2015-01-05", "7D")),
    "four weeks": ("quarkfin/qf-lib#218", stamps("2015-01-05", "28D")),
    "thirteen weeks": ("quarkfin/qf-lib#218", stamps("2005-01-03", "91D")),
    "days of a clock, into summer": (
        "pandas-dev/pandas#39398",
        stamps("2024-01-31", "D", 60, "Europe/Berlin"),
    ),
    "days of a clock, into winter": (
        "davidusb-geek/emhass#601",
        stamps("2024-08-28", "D", 60, "America/New_York"),
    ),
    "hours of a clock, into summer": ("pandas-dev/pandas#39556", stamps("2024-03-28", "h", 73, "Europe/Berlin")),
    "hours of a clock, into winter": ("pandas-dev/pandas#38243", stamps("2024-10-24", "h", 74, "Europe/Berlin")),
    "weeks of a clock": ("pandas-dev/pandas#39398", stamps("2023-02-06", "W", 60, "Europe/Berlin")),
    "months of a clock": ("pandas-dev/pandas#7318", stamps("2019-01-01", "MS", 60, "Australia/Sydney")),
    "month ends of a clock": ("pandas-dev/pandas#7318", stamps("2019-01-31", "ME", 60, "Asia/Tokyo")),
    "business days of a clock": ("facebook/prophet#1830", stamps("2024-01-08", "B", 59, "Europe/Berlin")),
    "seconds": ("microsoft/qlib#288", stamps("2024-01-01 23:59:30", "s")),
    "half minutes": ("facebook/prophet#226", stamps("2024-01-01 23:50", "30s")),
    "tenths of a second": ("awslabs/gluonts#3202", stamps("2024-01-01", "100ms")),
    "milliseconds": ("microsoft/qlib#288", stamps("2024-01-01", "1ms")),
}
