"""Goals of a table: hindsight goals about one of its values, or goals in a column or in a file."""

from __future__ import annotations

import difflib
import math
import re
import warnings
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.tables import cells
from datamodules.tables.opening import open_table
from datamodules.tables.store import Store
from datamodules.tables.times import Times
from gssr.sequences.goal_numbers import MOST_READ, is_unseen
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Record
from gssr.sequences.templates import check, read_templates
from gssr.shown import quoted

FORMS_FILE = Path(__file__).parent / "goals.yaml"
STEPS_PER_STD = 25  # numbers in goals are rounded to about this part of a standard deviation
BAND = 25  # held-out numbers lie this many number steps apart ...
MARGIN = 2  # ... and are this many to each side
Note = tuple[float, str, float, float]  # hours (-inf: no time), goal, low, high


def nice(size: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is at most `size`."""
    power = math.floor(math.log10(size))
    digit = next(d for d in (5, 2, 1) if d * 10.0**power <= size * (1 + 1e-9))
    return float(f"{digit}e{power}")


def numbers_of(mean: float, std: float, low: float, high: float, resolution: float) -> dict[str, Any]:
    """Arguments of `GoalWriter` from the training values: the rounding of numbers, and which are held out."""
    step = max(nice(std / STEPS_PER_STD), resolution)
    levels = (high - low) / step
    numbers: dict[str, Any] = {"number_step": step, "jitter": 0 if step == resolution else 2, "still": 2.5 * step}
    first, last = max(low, mean - 6 * std), min(high, mean + 6 * std)
    if levels >= 2 * BAND:
        centres = (
            step * (BAND * k + 10)
            for k in range(math.floor(first / step / BAND) - 1, math.ceil(last / step / BAND) + 1)
        )
        held, margin, rounding = [c for c in centres if first <= c <= last], MARGIN * step, 5 * step
    else:  # few levels: every fifth, if there are enough to hold some out
        held = [first + step * k for k in range(2, round((last - first) / step), 5)] if levels >= 6 else []
        margin, rounding = 0.0, step
    return numbers | {"held_out_values": held, "held_out_margin": margin, "rounding": rounding}


def words_of(name: str, unit: str) -> dict[str, list[str]]:
    """The slots {name} and {unit} for a column: its name as it stands and as words."""
    return {"name": list(dict.fromkeys([name, re.sub(r"[_\s]+", " ", name).strip()])), "unit": [unit]}


def own_templates(goals: str | dict[str, Any] | None) -> dict[str, Any] | None:
    """The user's own templates, or None for other goals. Raises ValueError for a file that does not exist."""
    if isinstance(goals, str) and goals != "hindsight":
        if not Path(goals).is_file():
            raise ValueError(
                f"goals is {goals!r}, and there is no such file; expected a .csv, .jsonl or .parquet file of "
                "goals, a .yaml file of templates, 'hindsight', or null for none"
            )
        return read_templates(Path(goals)) if Path(goals).suffix in (".yaml", ".yml") else None
    return dict(goals) if isinstance(goals, dict) else None


def goal_writer(
    given: Mapping[str, Any] | None, dimension: int, computed: Mapping[str, Any], words: Mapping[str, Any]
) -> GoalWriter:
    """The writer for a value dimension, from the user's templates (None: those for any table).

    `computed` holds arguments that the templates may lack.

    Raises ValueError for templates that cannot be used.
    """
    if given is None:
        given = read_templates(FORMS_FILE)
    check(given)
    if given.get("dimension", dimension) != dimension:
        raise ValueError(
            f"the goal templates have the dimension {given['dimension']}, but goals of this table speak of the value "
            f"{dimension}; leave dimension out, and give goal_dim"
        )
    return GoalWriter.of({"dimension": dimension, **computed, **given, "words": {**words, **given.get("words", {})}})


@dataclass
class GoalNotes:
    """Goals that the user gives: in a column of the table, or in a file by series.

    The goal of a window is the last one in its context. A goal of a series without a time comes before all others.
    Bounds are of one value dimension.
    """

    dimension: int
    seen: tuple[float, float]  # range of that value, for bounds that are open on one side
    by_series: dict[str | None, list[Note]] | None = None  # None: the column

    def give(self, record: Record, store: Store, begin: int, at: np.ndarray) -> Record:
        """The record with its goal, if it has one; `at` holds the positions (n) of the rows from `begin` on."""
        if self.by_series is None:
            found = self._in_column(record, store, begin, at)
        else:
            found = _last(self.by_series.get(record.series, self.by_series.get(None, [])), record)
        if found is None:
            return record
        _, goal, low, high = found
        bounds = [np.full(record.value.shape[1], np.nan, np.float32) for _ in range(2)]
        if not math.isnan(low):
            bounds[0][self.dimension] = min(self.seen[0], high) if math.isinf(low) else low
            bounds[1][self.dimension] = max(self.seen[1], low) if math.isinf(high) else high
        return replace(record, goal=goal, goal_low=bounds[0], goal_high=bounds[1])

    def _in_column(self, record: Record, store: Store, begin: int, at: np.ndarray) -> Note | None:
        for row in (begin + np.flatnonzero((at >= 0) & (at <= record.goal_start))[::-1]).tolist():
            if (goal := store.strings("goal", row, row + 1)[0]) is not None:
                return 0.0, goal, *store.read("bound", row, row + 1)[0].tolist()
        return None


def _last(notes: Sequence[Note], record: Record) -> Note | None:
    """The last of some notes, in order of time, in the context of a window; None where there is none."""
    last = bisect_right(notes, record.time[record.goal_start], key=lambda note: note[0]) - 1
    return None if last < 0 or -math.inf < notes[last][0] < record.time[0] else notes[last]


def check_bounds(
    low: np.ndarray, high: np.ndarray, first: int, where: str, seen: tuple[float, float] | None
) -> np.ndarray:
    """Bounds (n, 2) of goals; a missing side becomes the end of the range `seen` (None: infinite).

    Raises ValueError for a row whose low is above its high.
    """
    wrong = np.flatnonzero(low > high)
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"{where}: row {first + row} has the lower bound {low[row]:g} above the upper bound {high[row]:g}; "
            "swap them"
        )
    ends = (-math.inf, math.inf) if seen is None else seen
    one = np.isnan(low) != np.isnan(high)
    low = np.where(one & np.isnan(low), np.minimum(ends[0], high), low)
    return np.stack([low, np.where(one & np.isnan(high), np.maximum(ends[1], low), high)], axis=1)


def read_goal_file(
    path: str,
    series_column: str | None,
    times: Times | None,
    known: Sequence[str],
    seen: tuple[float, float],
    missing: Sequence[str] = cells.MISSING,
) -> dict[str | None, list[Note]]:
    """Goals by series (None: any series), in order of time, of a CSV, JSON Lines or Parquet file.

    The file has the column goal, and if need be series, time, low and high; series and time may have the names that
    they have in the table itself. `known`: the series of the table; `seen`: the range of the value that goals bound;
    `missing`: codes of bounds that are open.

    Raises ValueError for other columns, unknown series, reversed bounds and empty goals.
    """
    source = open_table(path)
    source.column("goal", f"the goal column of {path}")
    series, time, low, high = (
        next((name for name in names if name in source.columns), None)
        for names in (
            (series_column, "series"),
            (times and times.name, "time"),
            ("low", "goal_low"),
            ("high", "goal_high"),
        )
    )
    if time is not None and times is None:
        raise ValueError(f"{path} has the times {time!r}, but the table has no time_column; leave them out")
    notes: dict[str | None, list[Note]] = {}
    first, names = 1, set(known)
    for chunk in source.chunks(list(dict.fromkeys(["goal", *filter(None, (series, time, low, high))]))):
        goals = cells.goals(chunk["goal"], "goal")
        size = len(goals)
        if None in goals:
            raise ValueError(f"{path} has no goal in row {first + goals.index(None)}; leave such rows out")
        owners = [None] * size if series is None else cells.names(chunk[series], series)
        hours = np.full(size, -np.inf) if time is None else replace(times, name=time).parse(chunk[time], first)
        ends = [np.full(size, np.nan) if c is None else cells.numbers(chunk[c], c, first, missing) for c in (low, high)]
        bounds = check_bounds(*ends, first, path, seen)
        for row, (owner, goal) in enumerate(zip(owners, goals, strict=True)):
            if owner is not None and owner not in names:
                near = difflib.get_close_matches(owner[:MOST_READ], known[:100_000], n=1)
                others = ", ".join(map(quoted, known[:5]))
                hint = f"did you mean {quoted(near[0])}?" if near else f"it has {others}, ..."
                raise ValueError(
                    f"{path} has a goal for the series {quoted(owner)} in row {first + row}, which the table does not "
                    f"have; {hint}"
                )
            notes.setdefault(owner, []).append((float(hours[row]), str(goal), *map(float, bounds[row])))
        first += size
    if not notes:
        raise ValueError(f"{path} holds no goals")
    outside = {goal for of_one in notes.values() for _, goal, low, high in of_one if low > seen[1] or high < seen[0]}
    if outside:
        warn_outside(min(outside), seen)
    return {owner: sorted(of_one, key=lambda note: note[0]) for owner, of_one in notes.items()}


def warn_outside(goal: str, seen: tuple[float, float]) -> None:
    warnings.warn(
        f"the goal {quoted(goal)} lies outside anything seen: values go from {seen[0]:g} to {seen[1]:g}; "
        "imagined futures there are guesses",
        stacklevel=3,
    )


def check_typed_goal(goal: str, seen: tuple[float, float], unit: str = "") -> None:
    """Warn where every level that a typed goal names, in the unit of the value, lies outside the values seen."""
    if is_unseen(goal, [seen], [unit]):
        warn_outside(goal, seen)
