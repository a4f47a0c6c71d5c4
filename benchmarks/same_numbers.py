"""Do two versions of the code give the same numbers? Compares two trainings, and two files of predictions.

Train, and predict from one checkpoint, with either version of the code. Then:

python -m benchmarks.same_numbers --runs before/runs/a after/runs/a
python -m benchmarks.same_numbers --predictions before/predictions.jsonl after/predictions.jsonl
python -m benchmarks.same_numbers --runs before/runs/a after/runs/a --tolerance 0

Exit code 1: a column differs by more than the tolerance, a row or a cell is in one training only, or predictions
differ. Columns grad_norm/* and moved/* are listed and decide nothing: a restructuring may move parameters from one
component to another. Exit code 2: a file is missing or cannot be compared.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

METRICS = "metrics.csv"
UNDECIDED = ("grad_norm/", "moved/")
Table = list[dict[str, str]]


def read_metrics(run: Path) -> Table:
    """The rows of a run's ``metrics.csv``. Raises ValueError where there are none."""
    rows = list(csv.DictReader(_text(run / METRICS).splitlines()))
    if not rows:
        raise ValueError(f"{run / METRICS} has no rows; let the run log at least one step")
    return rows


def differences(first: Table, second: Table) -> dict[str, float]:
    """The largest absolute difference of each column that both tables have; infinite where one cell alone is filled.

    Raises ValueError for tables without a common column.
    """
    shared = [name for name in first[0] if name in second[0]]
    if not shared:
        raise ValueError(f"the trainings share no column: {sorted(first[0])} and {sorted(second[0])}")
    pairs = list(zip_longest(first, second, fillvalue={}))
    return {name: max(_apart(a.get(name) or "", b.get(name) or "") for a, b in pairs) for name in shared}


def compare_runs(first: Path, second: Path, tolerance: float) -> bool:
    """Print the difference of every shared column of two runs; whether none decides that they differ.

    Raises ValueError for a file that is missing or empty.
    """
    tables = read_metrics(first), read_metrics(second)
    found = differences(*tables)
    width = max(map(len, found))
    for name, largest in found.items():
        note = "  (decides nothing)" if name.startswith(UNDECIDED) else ""
        print(f"{name:{width}}  {'identical' if largest == 0 else f'{largest:.3g}'}{note}")
    for run, own, other in ((first, *tables), (second, *reversed(tables))):
        if alone := [name for name in own[0] if name not in other[0]]:
            print(f"only in {run}: {', '.join(alone)}")
    rows = [len(table) for table in tables]
    print(f"rows: {rows[0]} and {rows[1]}")
    decided = [largest for name, largest in found.items() if not name.startswith(UNDECIDED)]
    same = rows[0] == rows[1] and bool(decided) and max(decided) <= tolerance
    print(f"trainings: {'the same' if same else 'DIFFERENT'} within {tolerance:g}")
    return same


def compare_predictions(first: Path, second: Path) -> bool:
    """Print the largest difference of two files of predictions, and where it is; whether there is none.

    Raises ValueError for a file that is missing or holds no prediction.
    """
    ours, theirs = _lines(first), _lines(second)
    found = [(apart, where) for where, apart in walk(ours, theirs, "") if apart > 0]
    if not found:
        print(f"predictions: identical ({len(ours)} windows)")
        return True
    largest, where = max(found)
    what = "texts, or what only one of them holds" if math.isinf(largest) else f"numbers by {largest:.3g}"
    print(f"predictions: DIFFERENT in {len(found)} places; at window{where}: {what}")
    return False


def walk(ours: Any, theirs: Any, where: str) -> Iterator[tuple[str, float]]:
    """Every place of two JSON values with their difference: 0 where equal, infinite where not both are numbers."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        for name, value in ours.items():
            yield from walk(value, theirs[name], f"{where}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from walk(*pair, f"{where}[{i}]")
    elif type(ours) is type(theirs) and isinstance(ours, (int, float)):
        yield where, abs(ours - theirs)
    else:
        yield where, 0.0 if ours == theirs else math.inf


def _apart(first: str, second: str) -> float:
    """The difference of two cells: 0 for equal words and for two NaNs, infinite where one alone is a number."""
    try:
        a, b = float(first), float(second)
    except ValueError:
        return 0.0 if first == second else math.inf
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    return abs(a - b) if math.isfinite(a) and math.isfinite(b) else math.inf


def _lines(file: Path) -> list[Any]:
    try:
        lines = [json.loads(line) for line in _text(file).splitlines()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is no JSON Lines: {error}; give the predictions.jsonl of `predict`") from error
    if not lines:
        raise ValueError(f"{file} holds no prediction")
    return lines


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 the same, 1 different, 2 not comparable."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs=2, type=Path, metavar="FOLDER", help=f"two run folders with {METRICS}")
    parser.add_argument("--predictions", nargs=2, type=Path, metavar="FILE", help="two files predictions.jsonl")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="of a column of the trainings (default: 1e-6)")
    options = parser.parse_args(arguments)
    if options.runs is None and options.predictions is None:
        parser.error("give --runs, --predictions or both")
    same = True
    try:
        if options.runs is not None:
            same &= compare_runs(*options.runs, options.tolerance)
        if options.predictions is not None:
            same &= compare_predictions(*options.predictions)
    except ValueError as error:
        print(f"same_numbers: {error}", file=sys.stderr)
        return 2
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
