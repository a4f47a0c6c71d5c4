"""The history of `gssr plan` and `gssr chance`: its options, and how it is read."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from gssr import shown
from gssr.commands.options import run_option, steps

if TYPE_CHECKING:
    from gssr.network import GoalNetwork
    from gssr.sequences.record import Record

STEPS = 8
HISTORY = (
    "The history is a table with a row a step and a column for\neach value of the network. An empty cell is a "
    "missing value. Columns of times and texts are those of training."
)
# Options of `datamodules.tables.history.HistoryOptions`, by their names there.
TABLE_OPTIONS: dict[str, dict[str, Any]] = {
    "time_column": {"metavar": "NAME", "help": "column of times"},
    "series_column": {"metavar": "NAME", "help": "column of the series, where the table has several"},
    "text_column": {"metavar": "NAME", "help": "column of texts"},
    "step": {"metavar": "STEP", "help": "time between two rows, such as 6h or 1D"},
    "time_unit": {"metavar": "UNIT", "help": "unit of numbers in the time column: s, ms, h, D, year, step"},
    "time_format": {"metavar": "FORM", "help": "form of times that are not ISO 8601, such as %%d/%%m/%%Y"},
    "time_zone": {"metavar": "ZONE", "help": "zone of times without an offset, such as Europe/Berlin"},
    "missing": {"metavar": "CODE", "nargs": "+", "help": "further codes of missing cells, such as -9999"},
    "delimiter": {"metavar": "MARK", "help": "between the cells of a CSV file"},
    "sort_rows": {"action": "store_true", "default": None, "help": "sort rows by time"},
    "same_time": {"choices": ["last", "mean", "refuse"], "help": "what becomes of rows of one time"},
}


def history_options(parser: argparse.ArgumentParser) -> None:
    """The table, the network that imagines how it goes on, and how many steps."""
    parser.add_argument("--input", required=True, metavar="FILE", help="the history (.csv, .tsv, .jsonl, .parquet)")
    parser.add_argument("--ckpt_path", default="best", metavar="FILE", help="a checkpoint, last or best (default)")
    run_option(parser)
    parser.add_argument("--horizon", type=steps, metavar="H", help="steps to imagine; default as in training")
    parser.add_argument("--context", type=steps, metavar="C", help="last steps to observe; default as in training")
    group = parser.add_argument_group("the table; defaults are the options of training, else columns time and text")
    group.add_argument("--series", metavar="NAME", help="the series, where the table has several")
    for name, details in TABLE_OPTIONS.items():
        group.add_argument(f"--{name}", **details)


def read_record(
    options: argparse.Namespace, value_names: list[str], trained: dict[str, Any], whole: bool = False
) -> "Record":
    """The history as a record: its last steps, or the ``whole`` table.

    Options of the table that are given win over those of training.
    """
    return read_records(options, value_names, trained, whole)[0]


def read_records(
    options: argparse.Namespace, value_names: list[str], trained: dict[str, Any], whole: bool = False
) -> "tuple[Record, dict[int, Record]]":
    """The history as ``read_record`` gives it, and its windows from earlier origins, where the table has so many rows.

    They are by the number of steps before, as ``gssr.network.recent.recent_spread`` asks for them.
    """
    from datamodules.tables.history import read_histories
    from gssr.network.recent import earlier_origins

    horizon = options.horizon or trained.get("horizon", STEPS)
    given = {name: value for name in TABLE_OPTIONS if (value := getattr(options, name)) is not None}
    return read_histories(
        options.input,
        value_names,
        horizon,
        None if whole else options.context or trained.get("context"),
        () if whole else earlier_origins(horizon)[1],
        goal=getattr(options, "goal", None),
        goal_step=getattr(options, "goal_step", None),
        series=options.series,
        trained=trained,
        **given,
    )


def warn_of_strange_values(record: "Record", network: "GoalNetwork") -> None:
    """Values far outside of those of training are likelier in another unit than meant."""
    scaler = network.world.scaler
    for y, (low, high) in enumerate(zip(scaler.low.tolist(), scaler.high.tolist(), strict=True)):
        values, reach = record.value[:, y], 0.5 * (high - low)
        if ((values < low - reach) | (values > high + reach)).any():
            print(
                shown.line(
                    f"gssr: warning: {network.value_names[y]} lies far outside of its range in training, "
                    f"{low:g} to {high:g} {network.value_units[y]}; is its unit right?"
                ),
                file=sys.stderr,
            )
