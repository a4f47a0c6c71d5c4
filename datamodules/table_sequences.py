"""The data module of any table: CSV, JSON Lines, Parquet or a data set of the hub, by the names of its columns."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from datamodules.sequence_data import SequenceData
from datamodules.tables.build import Reading
from datamodules.tables.choosing import AUTO, column_of_times, led_in, said_of_times, sizes
from datamodules.tables.earlier import earlier_windows
from datamodules.tables.goals import (
    GoalNotes,
    check_typed_goal,
    goal_writer,
    numbers_of,
    own_templates,
    read_goal_file,
    words_of,
)
from datamodules.tables.grid import Grid
from datamodules.tables.opening import open_table
from datamodules.tables.options import check_options
from datamodules.tables.panels import Panel, column_of_series, not_predicted
from datamodules.tables.scaling import fit_scaler
from datamodules.tables.splits import everything, split, together
from datamodules.tables.store import Store
from datamodules.tables.times import one_time
from datamodules.tables.windows import Cutter, LastWindows, TableWindows, grid_of
from gssr import ranks
from gssr.domains import Characters, Different, InnerFraction, NonNegative, Rows, Steps
from gssr.files import cache_folder
from gssr.sequences.record import Record
from gssr.sequences.scaler import Scaler
from gssr.sequences.windows import check_window
from gssr.shown import listed, quoted

PLACE = 8  # steps that stand for those that are auto until the table is read
MOST_VALIDATED = 512  # windows, evenly spaced: they are scored again and again
MOST_TEXTS = 50_000  # that are encoded before training; of a table with more, each is encoded when it is read


class TableSequences(SequenceData):
    """Windows of the series in a table, with texts and goals where it has them.

    One row is one step of one series. Rows are put on a regular grid; a step without a row, an empty cell and infinity
    are missing values. The table is read once, chunk by chunk, into `$GSSR_CACHE/tables`, and windows are read from
    there, so that memory does not grow with it. A series longer than C but shorter than C + H gives one shorter window.

    Args:
        path: File (.csv, .tsv, .jsonl, .ndjson, each also .gz; .parquet), folder or id of a data set of the hub.
        time_column: Column of times (ISO 8601, without a zone: UTC); auto: the first column of times, if there is any.
            Without it, rows of a series are counted.
        series_column: Column that tells series apart. Without it, the table is one series.
        value_columns: Columns of numbers. Without it, all columns of numbers that are nothing else.
        text_column: Column of texts. Without it, there are none.
        goal_column: Column of goals in words; a window has the last goal of its context.
        goal_low_column: Column of lower bounds of these goals, about the value `goal_dim`.
        goal_high_column: Column of upper bounds; a goal with one bound is open on the other side.
        goals: "hindsight": sentences about the value `goal_dim`, from templates for any table, unless there is a
            goal_column; or a file with the column goal, and series, time, low, high where needed (.csv, .jsonl,
            .parquet); or a file (.yaml) or mapping of templates (`gssr.sequences.goals.GoalWriter`); or null: no goals.
        goal_dim: Index of the value that goals speak of.
        units: Unit of each value, for goals and charts.
        resolution: Rounding of each value. Without it, the coarsest that all numbers have.
        step: Time between two rows, such as 1h, 6h, 1D, 1W, 1M (month), 1Y. Without it, the most frequent one.
        time_unit: What numbers in the time column count: s, ms (since 1970), h, D, year, step.
        time_format: Form of times that are not ISO 8601, such as %d/%m/%Y.
        time_zone: Whose clock shows times without an offset, and counts days and months, such as Europe/Berlin. Without
            it, that of the column, or UTC.
        text_lag: Steps after its row at which a text is known; it is not used before.
        max_text_chars: Longer texts are cut.
        missing: Further codes of missing cells, such as -9999.
        delimiter: Of CSV; "," unless given, a tab for .tsv.
        sort_rows: Sort rows by time instead of refusing those that are not sorted.
        same_time: What becomes of rows of a series that have one time. last: of each column the last cell that is not
            empty; mean: the mean of numbers, and the last text; both with a warning. refuse: an error. A table where
            more than a tenth of the rows repeat a time is refused by last, too: it likely holds several series.
        split_by: time: the earliest steps train, the latest test; series: each series is in one part, drawn by a fixed
            seed; auto: by time where there is a time_column or only one series, else by series.
        split_shares: Shares of training, validation and test.
        split_dates: Two times instead of shares: validation begins at the first, test at the second.
        dataset_split: Part of a data set of the hub that is read (it is split anew).
        dataset_config: Its configuration. dataset_revision: its commit or tag.
        predict_from: Last time that `predict` knows. Without it, the end of the table: it forecasts beyond the table.
        lead_in: Contexts of validation and test windows may lie before their part, where the split is by time. Their
            horizons never do.
        context, horizon: As in `SequenceData`; auto: by the season of the training part.

    Raises ValueError for options that do not fit, and as `SequenceData` does; when the table is read, for a table that
    cannot be used.
    """

    most_evaluated = 2048
    predicts_future = True
    default_config = "../configs/any_table.yaml"

    def __init__(
        self,
        path: str,
        time_column: str | None = None,
        series_column: str | None = None,
        value_columns: Annotated[list[str], Different()] | None = None,
        text_column: str | None = None,
        goal_column: str | None = None,
        goal_low_column: str | None = None,
        goal_high_column: str | None = None,
        goals: str | dict[str, Any] | None = "hindsight",
        goal_dim: Rows = 0,
        units: list[str] | None = None,
        resolution: list[NonNegative] | None = None,
        step: str | None = None,
        time_unit: str | None = None,
        time_format: str | None = None,
        time_zone: str | None = None,
        text_lag: Rows = 0,
        max_text_chars: Characters = 2000,
        missing: list[str] | None = None,
        delimiter: str | None = None,
        sort_rows: bool = False,
        same_time: Literal["last", "mean", "refuse"] = "last",
        split_by: Literal["auto", "time", "series"] = "auto",
        split_shares: tuple[InnerFraction, InnerFraction, InnerFraction] = (0.7, 0.15, 0.15),
        split_dates: tuple[str, str] | None = None,
        dataset_split: str = "train",
        dataset_config: str | None = None,
        dataset_revision: str | None = None,
        predict_from: str | None = None,
        lead_in: bool = False,
        *,
        context: Steps | Literal["auto"] = 8,
        horizon: Steps | Literal["auto"] = 8,
        **windows: Any,
    ) -> None:
        given = {"context": context, "horizon": horizon}
        super().__init__(**{name: PLACE if steps == AUTO else steps for name, steps in given.items()}, **windows)
        self.sentences: list[str] = []  # about what was chosen before the table was read
        self.goal_dim = goal_dim
        # The head of the table is checked here, so that its errors come before a backbone is loaded.
        self.source = open_table(path, delimiter, dataset_split, dataset_config, dataset_revision)
        if time_column == AUTO and AUTO not in self.source.columns:
            self._choose(time_column=column_of_times(self.source, self.hparams))
            self.sentences.append(said_of_times(self.hparams.time_column))
        check_options(self.hparams)
        self.reading = Reading.of(self.source, self.hparams, value_columns)
        self.reading.times()
        self._opened: Store | None = None
        self.value_names = tuple(self.reading.columns.values)
        width = len(self.value_names)
        for name, given in (("units", units), ("resolution", resolution)):
            if given is not None and len(given) != width:
                raise ValueError(f"{name} is {given}, for {width} values {list(self.value_names)}; give one for each")
        if not 0 <= goal_dim < width:
            raise ValueError(f"goal_dim is {goal_dim}; expected the index of one of {list(self.value_names)}, from 0")
        self.value_units = tuple(units or [""] * width)
        self.templates = own_templates(goals)
        if self.templates is not None:
            goal_writer(self.templates, goal_dim, {}, self._words())  # raises ValueError before the table is read
        written = self.templates is not None or (goal_column is None and goals in (None, "hindsight"))
        if self.level_jitter and not written:
            raise ValueError(
                f"level_jitter is {self.level_jitter}, but given goals name levels in words, which are not true at "
                "another level; leave one of the two out, or have goals written from hindsight"
            )
        self.has_goals = goal_column is not None or goals is not None
        self._texts: list[str] | None = None

    def _words(self) -> dict[str, list[str]]:
        return words_of(self.value_names[self.goal_dim], self.value_units[self.goal_dim])

    def _choose(self, **options: Any) -> None:
        """Set options that were auto."""
        self.chosen |= options
        self.hparams.update(options)

    def prepare_data(self) -> None:
        """Read the table into the cache, in one process only."""
        for sentence in self.sentences:
            print(sentence, flush=True)
        if self.hparams.value_columns is None:
            counters = listed(self.reading.counters)
            left_out = f"; not {counters}, which counts rows" if counters else ""
            print(f"values, all columns of numbers: {listed(self.value_names, 20)}{left_out}", flush=True)
        self._store()

    def _store(self) -> Store:
        if self._opened is None:
            self._opened = self.reading.store(self.source, cache_folder() / "tables")
        return self._opened

    def read_windows(self) -> dict[str, Sequence[Record]]:
        store = self._store()
        self.has_text = store.facts.has_text
        grid = grid_of(store, self.hparams)
        clock = self.hparams.time_column is not None and self.hparams.time_unit != "step"
        self.step, self.season_steps = (str(grid), grid.season) if clock else (None, None)
        self.cutter = Cutter(store, grid, **self.window, text_lag=self.hparams.text_lag, notes=None)
        for note in (*store.facts.notes, *self.cutter.check(self.source.path)):
            warnings.warn(note, stacklevel=2)
        if name := column_of_series(self.source, self.reading.columns, 1):
            warnings.warn(f"all rows are one series; if {quoted(name)} names several, give series_column", stacklevel=2)
        self._by_series, parts = split(store, self.hparams, self._time)
        self._leads = self.hparams.lead_in and not self._by_series
        self.parts = {split: together(parts[part] for part in self.parts_of(split)) for split in parts}
        self._choose_sizes()
        windows = {"train": TableWindows(self.cutter, self.parts["train"])}
        for name in ("val", "test"):
            segments = led_in(self.cutter, self.parts[name]) if self._leads else self.parts[name]
            most = MOST_VALIDATED if name == "val" else self.most_evaluated
            windows[name] = TableWindows(self.cutter, segments, most)
        self.panel = Panel.of(self.cutter, windows, self._by_series)
        if note := self.panel.line(self.cutter, self.source.path):
            warnings.warn(note, stacklevel=2)
        if len(windows["train"]):  # `setup` refuses a part without windows
            self._scaler = fit_scaler(store, self.parts["train"], self.source.path)
            # A column of few levels is not uncertain by half of one.
            found = zip(store.facts.columns, self._scaler.std.tolist(), strict=True)
            self.value_resolution = tuple(
                self.hparams.resolution or [min(column.resolution, 0.2 * std) for column, std in found]
            )
            self._set_goals(store, grid)
        return windows

    def _choose_sizes(self) -> None:
        """Set a context and a horizon that are auto."""
        if AUTO not in ((p := self.hparams).context, p.horizon):
            return
        found = sizes(self.cutter, self.parts, self.goal_dim, self.season_steps, p.context, p.horizon, self._leads)
        self._choose(context=found.context, horizon=found.horizon)
        self.season_steps = self.season_steps or found.season
        self.window |= {"context": found.context, "horizon": found.horizon}
        check_window(**self.window)
        self.cutter.context, self.cutter.horizon = found.context, found.horizon
        if ranks.is_first():
            print("\n".join(found.sentences), flush=True)

    def a_season_before(self, windows: Sequence[Record]) -> Tensor:
        """The values (B, H, Y) one season before each step of the windows' horizons, NaN where there is no row."""
        return torch.stack([self.cutter.a_season_before(window, self.season_steps) for window in windows])

    def earlier(self, series: str, until: float, before: Sequence[int]) -> dict[int, Record]:
        """See `SequenceSource.earlier`; none where each series is in one part, since most are short there."""
        return {} if self._by_series else earlier_windows(self.cutter, self.parts["train"], series, until, before)

    def _time(self, text: str, option: str) -> float:
        times = self.reading.times()
        if times is None:
            raise ValueError(f"{option} is {quoted(text)}, but rows without a time_column are counted; name it")
        return one_time(text, times, self._store().facts.clock, option)

    def fit_scaler(self, windows: Sequence[Record]) -> Scaler:
        return self._scaler

    def _set_goals(self, store: Store, grid: Grid) -> None:
        p, y, column = self.hparams, self.goal_dim, store.facts.columns[self.goal_dim]
        seen = (column.low, column.high)
        if p.goal is not None:
            check_typed_goal(p.goal, seen, self.value_units[y])
        if p.goals is None or (p.goals == "hindsight" and p.goal_column is not None):
            self.goal_writer = None
        elif self.templates is None and p.goals != "hindsight":
            times = (found := self.reading.times()) and replace(found, of=store.facts.clock)
            noted = read_goal_file(p.goals, p.series_column, times, store.facts.series, seen, self.reading.missing)
            self.cutter.notes = GoalNotes(y, seen, noted)
        else:
            s = self._scaler
            moments = (float(part[y]) for part in (s.mean, s.std, s.low, s.high))
            span, count = grid.span if self.step is not None else ("step", 1)
            computed = numbers_of(*moments, column.resolution) | {"span_unit": span, "span_count": count}
            self.goal_writer = goal_writer(self.templates, y, computed, self._words())
        if self.cutter.notes is None and p.goal_column is not None:
            self.cutter.notes = GoalNotes(y, seen)

    def predict_windows(self) -> Sequence[Record]:
        p = self.hparams
        until = np.inf if p.predict_from is None else self._time(p.predict_from, "predict_from")
        segments = [part for part in everything(self.cutter.store) if part[0] not in self.panel.other_step]
        if self._by_series:
            tested = {series for series, _, _ in self.parts["test"]}
            segments = [segment for segment in segments if segment[0] in tested]
        windows = LastWindows(self.cutter, segments, until)
        if not len(windows):
            raise ValueError(f"no series has values at or before predict_from ({p.predict_from}) to predict from")
        if note := not_predicted(windows, segments):
            warnings.warn(note, stacklevel=2)
        return windows

    def texts(self) -> list[str]:
        """All distinct texts of the table; [] where they are too many to keep, then each is encoded when it is read."""
        if not self._windows or not self.has_text:
            return []
        if self._texts is None:
            self._texts = self.cutter.store.texts(MOST_TEXTS) or []
        return self._texts
