"""The data module of Time-MMD's layout: one numeric table and dated texts for each domain."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd

from datamodules.dated_texts import TEXTS, known_texts, read_csv, read_dates, read_texts
from datamodules.sequence_data import SPLITS, SequenceData
from datamodules.tables.goals import goal_writer, numbers_of, own_templates, words_of
from datamodules.tables.grid import Grid
from datamodules.tables.repeats import merge_frame
from datamodules.tables.stamps import grid_of_stamps
from gssr.domains import Characters, Different, InnerFraction, Items, Steps
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Record
from gssr.sequences.windows import cut
from gssr.shown import quoted

TARGET = "OT"
YEAR_HOURS = 365.25 * 24
# Rows by which texts are about a later time than their dates: Energy's report of a week gives the price of next Monday.
AHEAD = {("Energy", "report"): 1}


class TimeMMD(SequenceData):
    """Windows of one domain of Time-MMD, or of any folder in its layout.

    The layout (Liu et al. 2024, "Time-MMD"): `numerical/D/D.csv` with `start_date`, `end_date` and the target `OT`, and
    `textual/D/D_report.csv` and `D_search.csv` with `start_date`, `end_date`, `fact` and `preds`.

    Values: the target, further columns, and (with `calendar`) sine and cosine of the time of year.

    A text is read from the step at which it was known. That is the first row that ends no earlier than the text's own
    end date and the last day that its facts name. Energy's reports give the price of the week after their own, so they
    are read one row later. Boilerplate ("NA", "no relevant information found") is no text.

    Rows out of order are sorted and infinities become missing values, both with a warning. The first rows train, the
    next validate, the last test. No window crosses from one part to another, or a gap.

    Args:
        path: Folder with `numerical` and `textual`.
        domain: Name of a folder in `numerical`, such as Energy.
        text: Texts to read: report, search, both or none.
        columns: Further numeric columns as values, by name.
        calendar: Sine and cosine of the time of year as two more values.
        text_chars: Most characters of a step's texts; the latest texts are kept.
        val_share: Share of the rows that validate.
        test_share: Share of the rows that test.
        same_time: What becomes of rows of one start_date, see `TableSequences`.
        goals: "hindsight": sentences about the target, from templates for any table; or a file (.yaml) or mapping of
            templates (`gssr.sequences.goals.GoalWriter`); or null: no goals.

    Raises ValueError for another layout, an unknown domain or column, dates or numbers that cannot be read, dates that
    come twice where they are refused, shares that leave no part, parts that are shorter than a window, and goals that
    are no templates; and as `SequenceData` does.
    """

    default_config = "../configs/time_mmd.yaml"

    def __init__(
        self,
        path: str,
        domain: str = "Energy",
        text: Literal["report", "search", "both", "none"] = "both",
        columns: Annotated[list[str], Different(0)] | None = None,
        calendar: bool = False,
        text_chars: Characters = 600,
        val_share: InnerFraction = 0.15,
        test_share: InnerFraction = 0.15,
        same_time: Literal["last", "mean", "refuse"] = "last",
        goals: str | dict[str, Any] | None = None,
        *,
        batch_size: Items = 32,
        context: Steps = 24,
        horizon: Steps = 12,
        **windows: Any,
    ) -> None:
        super().__init__(batch_size, context, horizon, **windows)
        if not val_share + test_share < 1:
            raise ValueError(f"val_share {val_share} and test_share {test_share} must be together below 1")
        self.folder, self.domain, self.calendar, self.text_chars = Path(path), domain, calendar, text_chars
        self.text_kinds = {"both": TEXTS, "none": ()}.get(text, (text,))
        self.templates = own_templates(goals)
        if isinstance(goals, str) and goals != "hindsight" and self.templates is None:
            raise ValueError(f"goals is {quoted(goals)}; expected hindsight, a .yaml file of templates, or null")
        self._written = goals is not None
        self.has_goals, self.has_text = self._written or self.goal is not None, text != "none"
        self.shares, self.same_time = (val_share, test_share), same_time
        self.columns = (TARGET, *(columns or ()))
        self.value_names = (*self.columns, *(("season_sin", "season_cos") if calendar else ()))
        self.known_values = 2 if calendar else 0
        self.value_units = ("",) * len(self.value_names)
        self.value_resolution = (0.0,) * len(self.value_names)

    def read_windows(self) -> dict[str, Sequence[Record]]:
        table = self.read_table()
        steps, hours, grid = step_numbers(table["start"])
        self.step, self.season_steps = str(grid), grid.season
        record = self.record(table, steps)
        val, test = (round(share * len(table)) for share in self.shares)
        edges = [0, len(table) - val - test, len(table) - test, len(table)]
        clock = dict(zip(steps.tolist(), hours.tolist(), strict=True))
        windows = {}
        for split in SPLITS:
            parts = [SPLITS.index(part) for part in self.parts_of(split)]
            rows = slice(edges[parts[0]], edges[parts[-1] + 1])
            found = cut(_part(record, rows), **self.window) if len(record.time[rows]) else []
            windows[split] = [replace(w, time=np.array([clock[step] for step in w.time.tolist()])) for w in found]
        if self._written and windows["train"]:
            self.goal_writer = self._writer(windows["train"], grid)
        return windows

    def _writer(self, windows: Sequence[Record], grid: Grid) -> GoalWriter:
        """What writes goals about the target, in the rounding of these training windows."""
        scaler, (unit, count) = self.fit_scaler(windows), grid.span
        moments = (float(part[0]) for part in (scaler.mean, scaler.std, scaler.low, scaler.high))
        computed = numbers_of(*moments, self.value_resolution[0]) | {"span_unit": unit, "span_count": count}
        return goal_writer(self.templates, 0, computed, words_of(TARGET, "") | {"name": [TARGET, "value"]})

    def record(self, table: pd.DataFrame, steps: np.ndarray) -> Record:
        """All rows as one record without a goal, its times the numbers of the rows' steps."""
        value = table[list(self.columns)].to_numpy(float)
        if self.calendar:
            angle = 2 * np.pi * _hours(table["start"]) / YEAR_HOURS
            value = np.column_stack([value, np.sin(angle), np.cos(angle)])
        texts = [
            (known, text)
            for kind in self.text_kinds
            for known, text in known_texts(
                read_texts(self._file("textual", f"{self.domain}_{kind}")),
                table["end"],
                table["start"].iloc[0],
                AHEAD.get((self.domain, kind), 0),
            )
        ]
        return Record(self.domain, steps, value, joined(texts, len(table), self.text_chars))

    def read_table(self) -> pd.DataFrame:
        """`start` and `end` of each row and the value columns, by time; infinities are NaN."""
        file = self._file("numerical", self.domain)
        table = read_csv(file)
        for name in ("start_date", "end_date", *self.columns):
            if name not in table:
                near = difflib.get_close_matches(name, table.columns, n=1, cutoff=0.4)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {quoted(list(table.columns))}"
                raise ValueError(f"{file} has no column {name!r}; {hint}")
        rows = pd.DataFrame({name: read_dates(table, f"{name}_date", file) for name in ("start", "end")})
        for name in self.columns:
            numbers = pd.to_numeric(table[name], errors="coerce").astype(float)
            overflown = np.isinf(numbers) & ~table[name].astype(str).str.lower().str.contains("inf")
            wrong = table[name][(numbers.isna() & table[name].notna()) | overflown]
            if len(wrong):
                raise ValueError(
                    f"{file}: column {name!r} holds {quoted(wrong.iloc[0])}, which is not a number that can be held"
                )
            if count := int(np.isinf(numbers).sum()):
                warnings.warn(f"{file}: {count} infinities in column {name!r} are read as missing", stacklevel=2)
            rows[name] = numbers.replace([np.inf, -np.inf], np.nan)
        if not rows["start"].is_monotonic_increasing:
            warnings.warn(f"{file}: the rows are not in order of start_date; they are sorted", stacklevel=2)
            rows = rows.sort_values("start", kind="stable", ignore_index=True)
        rows, note = merge_frame(rows, "start", self.same_time, str(file))
        if note:
            warnings.warn(note, stacklevel=2)
        if (rows["end"] < rows["start"]).any() or not rows["end"].is_monotonic_increasing:
            raise ValueError(f"{file}: each end_date must lie after its start_date and after those of earlier rows")
        return rows

    def _file(self, kind: str, name: str) -> Path:
        """`path/kind/domain/name.csv`. Raises ValueError where it is not there, with the nearest domain."""
        file = self.folder / kind / self.domain / f"{name}.csv"
        if file.is_file():
            return file
        folder = self.folder / kind
        if not folder.is_dir():
            raise ValueError(
                f"{self.folder} has no folder {kind!r}; expected Time-MMD's layout, numerical/D/D.csv and "
                "textual/D/D_report.csv"
            )
        domains = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        if self.domain not in domains:
            lower = {domain.lower(): domain for domain in domains}
            near = difflib.get_close_matches(self.domain.lower(), lower, n=1, cutoff=0.0)
            hint = f"did you mean {lower[near[0]]!r}? It has {', '.join(domains)}" if near else "it is empty"
            raise ValueError(f"no domain {self.domain!r} in {folder}; {hint}")
        raise ValueError(f"{file} is missing; read other texts with --data.text report, search or none")


def step_numbers(start: pd.Series) -> tuple[np.ndarray, np.ndarray, Grid]:
    """The number of each row's step, counted through gaps, its time in hours, and the grid of the steps.

    Months are steps of one length although their days differ.

    Raises ValueError where the rows lie on no grid, and for two rows in one step.
    """
    hours = _hours(start)
    grid = grid_of_stamps([hours])
    origin = grid.origin(hours)
    at = grid.position(hours, origin)
    if len(same := np.flatnonzero(np.diff(at) < 1)):
        first, second = start.iloc[same[0] : same[0] + 2].dt.date
        raise ValueError(f"start_date has two rows in one step of {grid}: {first} and {second}; keep one row a step")
    return (at - at[0]).astype(float), grid.time(at, origin), grid


def joined(texts: Sequence[tuple[int, str]], rows: int, most: int) -> list[str | None]:
    """One text a row: as many of its latest texts as fit in `most` characters, in order; None where it has none.

    Args:
        texts: (row, text), those of a row in order of time.
    """
    of_row: list[list[str]] = [[] for _ in range(rows)]
    for row, text in texts:
        of_row[row].append(text)
    steps: list[str | None] = []
    for own in of_row:
        kept: list[str] = []
        room = most
        for text in reversed(list(dict.fromkeys(own))):
            if len(text) > room:
                if not kept:
                    kept.append(text[:most].rsplit(" ", 1)[0])
                break
            kept.append(text)
            room -= len(text) + 1
        steps.append(" ".join(reversed(kept)) or None)
    return steps


def _part(record: Record, rows: slice) -> Record:
    return Record(record.series, record.time[rows], record.value[rows], record.text[rows])


def _hours(dates: pd.Series) -> np.ndarray:
    return ((dates - pd.Timestamp(0)) / pd.Timedelta(hours=1)).to_numpy(float)
