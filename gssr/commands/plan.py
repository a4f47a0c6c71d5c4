"""`gssr plan`: from a history and a goal in words to a plan on the terminal, as JSON and as a picture."""

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gssr import shown
from gssr.commands.options import Subparsers, add_command, items, number, plot_option, run_option, seed_option, steps
from gssr.files import atomic_write, require_file, writing

if TYPE_CHECKING:
    from gssr.evaluation.forecasting import Forecast
    from gssr.network import GoalNetwork
    from gssr.sequences.record import Record

STEPS = 8
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
}


def add_commands(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "plan",
        "imagine how a history of your own goes on if a goal comes true",
        [
            'gssr plan --input ian.csv --goal "Become a category 3 hurricane in 48 hours"',
            'gssr plan --input ian.csv --goal "Weaken to 35 knots in 48 hours" --strength 2',
            "gssr plan --ckpt_path runs/mine/checkpoints/best.ckpt --input mine.jsonl --plot fan.png --json plan.json",
        ],
        "The history is a table with a row a step and a column for\neach value of the network. An empty cell is a "
        "missing value. Columns of times and texts are those of training.",
    )
    parser.add_argument("--input", required=True, metavar="FILE", help="the history (.csv, .tsv, .jsonl, .parquet)")
    parser.add_argument("--goal", metavar="TEXT", help="the goal in words; default none, which gives a forecast")
    parser.add_argument("--ckpt_path", default="best", metavar="FILE", help="a checkpoint, last or best (default)")
    run_option(parser)
    parser.add_argument("--horizon", type=steps, metavar="H", help="steps to imagine; default as in training")
    parser.add_argument("--goal_step", type=steps, metavar="N", help="step of the goal, from 1; default the last")
    parser.add_argument("--strength", type=number, metavar="X", help="factor of the goal's pull; default the network's")
    parser.add_argument("--context", type=steps, metavar="C", help="last steps to observe; default as in training")
    parser.add_argument("--samples", type=items, default=64, metavar="S", help="rollouts; default 64")
    seed_option(parser, "the rollouts")
    parser.add_argument("--no-texts", action="store_true", help="imagine numbers only, which is faster")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write history, quantiles, rollouts and texts")
    plot_option(parser, "the fan chart with and without the goal")
    parser.add_argument("--dimension", metavar="NAME", help="value of the fan chart; default the first")
    group = parser.add_argument_group("the table; defaults are the options of training, else columns time and text")
    group.add_argument("--series", metavar="NAME", help="the series, where the table has several")
    for name, details in TABLE_OPTIONS.items():
        group.add_argument(f"--{name}", **details)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    _check(options)

    from gssr.evaluation.forecasting import forecast
    from gssr.runs.trained import load_trained

    network, trained = load_trained(options.ckpt_path, options.run_folder)
    dimension = _dimension(options.dimension, network.value_names)
    record = read_record(options, network.value_names, trained)
    _warn_of_strange_values(record, network)
    _warn_of_strange_goal(record.goal, network)
    if options.strength is not None:
        network.forecaster.strength = options.strength
    found = forecast(network, [record], options.samples, not options.no_texts, options.seed)
    _print(found, network)
    if options.json is not None:
        with writing(options.json), atomic_write(options.json) as file:
            file.write(found.lines()[0] + "\n")
        print(f"written: {shown.line(options.json)}")
    if options.plot is not None:
        from gssr.evaluation.fan_chart import save

        with writing(options.plot):
            save(found.chart(0, dimension), options.plot)
        print(f"written: {shown.line(options.plot)}")


def read_record(options: argparse.Namespace, value_names: list[str], trained: dict[str, Any]) -> "Record":
    """The history as a record. Options of the table that are given win over those of training."""
    from datamodules.tables.history import read_history

    given = {name: value for name in TABLE_OPTIONS if (value := getattr(options, name)) is not None}
    return read_history(
        options.input,
        value_names,
        options.horizon or trained.get("horizon", STEPS),
        options.context or trained.get("context"),
        goal=options.goal,
        goal_step=options.goal_step,
        series=options.series,
        trained=trained,
        **given,
    )


def _check(options: argparse.Namespace) -> None:
    if options.goal is not None and not options.goal.strip():
        raise ValueError("the goal is empty; type a sentence, or leave --goal out for a forecast")
    for file in (options.json, options.plot):
        if file is not None:
            require_file(file)


def _dimension(name: str | None, names: list[str]) -> int:
    if name is not None and name not in names:
        raise ValueError(f"--dimension is {name!r}; expected one of the network's values {names}")
    return 0 if name is None else names.index(name)


def _warn_of_strange_values(record: "Record", network: "GoalNetwork") -> None:
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


def _warn_of_strange_goal(goal: str | None, network: "GoalNetwork") -> None:
    from gssr.sequences.goal_numbers import is_unseen

    low, high = network.world.scaler.low.tolist(), network.world.scaler.high.tolist()
    if goal is not None and is_unseen(goal, list(zip(low, high, strict=True)), network.value_units):
        ranges = ", ".join(f"{n} {a:g} to {b:g}" for n, a, b in zip(network.value_names, low, high, strict=True))
        print(
            shown.line(
                f"gssr: warning: the goal {shown.quoted(goal)} lies outside anything seen in training ({ranges}); "
                "imagined futures there are guesses"
            ),
            file=sys.stderr,
        )


def _print(found: "Forecast", network: "GoalNetwork") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from gssr.sequences.clock import iso_time

    batch, plan = found.batch, found.with_goal or found.without_goal
    times = [iso_time(hours) for hours in batch.time[0, int(batch.context[0]) :].tolist()]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    title = shown.line(f"{batch.series[0]}: {batch.goal[0] or 'no goal'}")
    table = Table(title=Text(title), caption="mean and central 80 % of rollouts")
    table.add_column("time")
    for name, unit in zip(network.value_names, network.value_units, strict=True):
        table.add_column(Text(shown.line(f"{name} ({unit})" if unit else name)), justify="right")
        if found.with_goal is not None:
            table.add_column("without goal", justify="right", style="dim")
    # A tenth of a standard deviation is shown.
    digits = [min(6, max(0, 1 - math.floor(math.log10(max(std, 1e-9))))) for std in network.world.scaler.std.tolist()]
    plans = [plan] if found.with_goal is None else [plan, found.without_goal]
    for step, moment in enumerate(times):
        cells = [moment]
        for y, d in enumerate(digits):
            for made in plans:
                low, high = made.quantiles[0, step, y, 0], made.quantiles[0, step, y, -1]
                cells.append(f"{made.mean[0, step, y]:.{d}f} \\[{low:.{d}f}, {high:.{d}f}]")
        table.add_row(*cells)
    console.print(table)
    for moment, text in zip(times, plan.text[0], strict=False):
        console.print(Text.assemble((moment, "bold"), " ", shown.line(text)), soft_wrap=True)
