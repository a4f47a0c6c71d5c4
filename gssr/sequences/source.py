"""The contract between a data module and the rest of the project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from gssr.sequences.dataset import WindowDataset
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Record
from gssr.sequences.scaler import Scaler


class Results(Protocol):
    """What `SequenceSource.evaluate` returns: `gssr.evaluation.report.Report`, or anything that can do the same."""

    def to_markdown(self) -> str: ...

    def write(self, folder: str | Path) -> Any: ...


class SequenceSource(Protocol):
    """What the network, the callbacks and the evaluation ask of a data module.

    `datamodules.SequenceData` implements all of it. A data module of your own subclasses it and sets what differs.
    """

    value_names: tuple[str, ...]
    """Names of the Y value dimensions."""
    value_units: tuple[str, ...]
    """Their units; "" where there is none."""
    value_resolution: tuple[float, ...]
    """What their numbers are rounded to; 0 where that is unknown."""
    step: str | None
    """Time between two steps, such as 6h, 1D or 1M; None without a clock or where it is unknown."""
    known_values: int
    """The last dimensions whose future is known, as the time of year is. They are not scored."""
    scaler: Scaler
    """Moments of the training part, (Y) each; there after `setup`."""

    goal_dim: int
    """The dimension that goals, reports and charts are about."""
    goal_writer: GoalWriter | None
    """Writes hindsight goals; None where windows bring their own goals or have none."""
    value_guides: tuple[tuple[float, str], ...]
    """Named levels of that dimension for charts, as (level, name)."""
    season_steps: int | None
    """Steps after which the values may repeat, for the seasonal baseline; None without a season. The values so many
    steps before come from the windows, or from `a_season_before(windows)`, (B, H, Y), where a data module has it.

    A data module whose series go on from training to test may also have `earlier(series, until, before)`: the windows
    of a series whose contexts end so many steps before a time in hours, by these numbers. No step of their horizons is
    trained on. How forecasts from them fell decides how wide later fans are."""

    has_text: bool
    """Whether any window has a text."""
    has_goals: bool
    """Whether any window has a goal."""
    train_through: str
    """The last part that is trained on: train, val or test."""
    num_workers: int
    """Processes that read windows."""

    def setup(self, stage: str) -> None:
        """Read the windows of a stage of Lightning: fit, validate, test or predict."""

    def windows(self, split: str) -> Sequence[Record]:
        """The windows of a split (train, val or test) as they were cut, before a goal is written."""

    def windows_evaluation(self, split: str, goals: str = "combinations") -> list[Record]:
        """The windows of a split that have a goal of a kind that training leaves out (`gssr.sequences.goals.KINDS`)."""

    @property
    def train_records(self) -> WindowDataset:
        """The training windows with the goals that training sees."""

    @property
    def val_records(self) -> WindowDataset:
        """The validation windows with their goals."""

    @property
    def test_records(self) -> WindowDataset:
        """The test windows with their goals."""

    def texts(self) -> list[str]:
        """Distinct texts that are worth encoding before they are read; [] where each is encoded when it is read."""

    def evaluate(self, network: Any, split: str = "test", samples: int = 64, quick: bool = False) -> Results:
        """The report that `test` prints and writes.

        Args:
            network: A `gssr.evaluation.network.ForecastNetwork` or more, as the report needs.
            split: The part that is scored, val or test.
            samples: Rollouts S a window.
            quick: Few windows and rollouts: a smoke test, not a result.
        """
