"""`gssr plan`: a history from a file and a goal in words, to a plan on the terminal, as JSON and as a picture."""

import argparse
import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gssr.commands.options import Subparsers, add_command, count
from gssr.runs.folders import find_checkpoint

if TYPE_CHECKING:
    import pandas as pd

    from gssr.network import GoalNetwork
    from gssr.network.rollout import Plan
    from gssr.sequences.record import Batch, Record

SHORTEST = 2
STEPS = 8
READERS = {".csv": "read_csv", ".jsonl": "read_json", ".parquet": "read_parquet"}


def add_commands(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "plan",
        "imagine how a history of your own would go on if a goal came true",
        [
            'gssr plan --input ian.csv --goal "Become a category 3 hurricane in 48 hours"',
            'gssr plan --input ian.csv --goal "Weaken to 35 knots in 48 hours" --strength 2',
            'gssr plan --ckpt_path runs/mine/checkpoints/best.ckpt --input mine.jsonl --goal "..." --plot fan.png --json plan.json',
        ],
        "The file is a CSV, JSON Lines or Parquet table: a row a step, in order of time, with a column of times, a column for "
        "each value that the network was trained on (empty where nothing was observed), and a column of texts if there are any.",
    )
    parser.add_argument(
        "--input", type=Path, required=True, metavar="FILE", help="the history (.csv, .jsonl, .parquet)"
    )
    parser.add_argument("--goal", metavar="TEXT", help="in words; without it, a forecast")
    parser.add_argument("--ckpt_path", default="best", metavar="FILE", help="a checkpoint, last or best (default)")
    parser.add_argument("--run", dest="run_folder", metavar="NAME", help="of last or best; default: the newest run")
    parser.add_argument("--horizon", type=count, metavar="H", help="steps to imagine; default: as in training")
    parser.add_argument(
        "--goal_step", type=count, metavar="N", help="step of the horizon, from 1, at which the goal should hold"
    )
    parser.add_argument(
        "--strength",
        type=float,
        metavar="X",
        help="pull of the goal, times that of training; default: the network's own, 1.25",
    )
    parser.add_argument("--context", type=count, metavar="C", help="last steps to read; default: as in training")
    parser.add_argument("--time_column", default="time", metavar="NAME", help="default time")
    parser.add_argument("--text_column", default="text", metavar="NAME", help="default text; need not be there")
    parser.add_argument("--samples", type=count, default=64, metavar="S", help="rollouts; default 64")
    parser.add_argument("--seed", type=int, default=0, help="of the rollouts; default 0")
    parser.add_argument("--no-texts", action="store_true", help="numbers alone, which is faster")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write history, quantiles, rollouts and texts")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the fan chart with and without the goal")
    parser.add_argument("--dimension", metavar="NAME", help="value to draw; default the first")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    if options.goal is not None and not options.goal.strip():
        raise ValueError("the goal is empty; type a sentence, or leave --goal out for a forecast")
    for file in (options.json, options.plot):
        if file is not None and not file.parent.is_dir():
            raise ValueError(f"the folder {file.parent} of {file} does not exist")
    if options.strength is not None and not options.strength >= 0:
        raise ValueError(f"--strength is {options.strength}; expected 0 (the goal has no effect) or more")
    table = read_table(options.input)

    import torch

    from gssr.backbone.cpu import prepare_cpu
    from gssr.sequences.collate import collate

    prepare_cpu()
    network, trained = load_network(options.ckpt_path, options.run_folder)
    if options.strength is not None:
        network.hparams.strength = options.strength
    record = future_record(
        table,
        options.input,
        network.value_names,
        horizon=options.horizon or trained.get("horizon", STEPS),
        context=options.context or trained.get("context"),
        goal=options.goal,
        goal_step=options.goal_step,
        time_column=options.time_column,
        text_column=options.text_column,
    )
    dimension = _dimension(options.dimension, network.value_names)
    batch = collate([record])
    _warn_of_strange_values(batch, network)

    def plan(goal: str | None) -> "Plan":
        generator = torch.Generator().manual_seed(options.seed)
        return network.plan(batch, [goal], options.samples, texts=not options.no_texts, generator=generator)

    without_goal = plan(None)
    with_goal = None if options.goal is None else plan(options.goal)
    _print(batch, with_goal, without_goal, network)
    if options.json is not None:
        from gssr.evaluation.predictions import prediction_lines

        (line,) = prediction_lines(with_goal, without_goal, batch, network.value_names, network.value_units)
        options.json.write_text(line + "\n", encoding="utf-8")
        print(f"wrote {options.json}")
    if options.plot is not None:
        from gssr.evaluation.fan_chart import fan_chart_of, save

        save(
            fan_chart_of(batch, 0, with_goal, without_goal, dimension, network.value_names, network.value_units),
            options.plot,
        )
        print(f"wrote {options.plot}")


def load_network(which: str, run: str | None) -> "tuple[GoalNetwork, dict[str, Any]]":
    """A trained network in eval mode, and the options of the data module that it was trained with.

    Raises ValueError when there is no such checkpoint or it is not one of a goal network.
    """
    import torch

    from gssr.network import GoalNetwork

    file = find_checkpoint(which, run).checkpoint
    try:
        saved = torch.load(file, weights_only=True, map_location="cpu")
        trained = dict(saved.get("datamodule_hyper_parameters", {}))
        known = "gssr" in saved
    except Exception as error:  # whatever is wrong with a file, its reader says so in its own way
        raise ValueError(f"{file} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error
    if not known:
        raise ValueError(f"{file} is no checkpoint of a goal network; train one with: python train.py fit")
    return GoalNetwork.load_from_checkpoint(file, weights_only=True, map_location="cpu").eval(), trained


def read_table(path: Path) -> "pd.DataFrame":
    """The table in a file, as strings where it is text. Raises ValueError for a file that is none."""
    import pandas as pd

    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    name = READERS.get(path.suffix.lower())
    if name is None:
        raise ValueError(f"{path} is no table that is known here; expected one of {', '.join(READERS)}")
    more = {"lines": True, "dtype": False} if name == "read_json" else {}
    try:
        table = getattr(pd, name)(path, **more)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as {path.suffix[1:]}: {str(error).splitlines()[0]}") from error
    if table.empty:
        raise ValueError(f"{path} has no rows; a history needs at least {SHORTEST}")
    return table


def future_record(
    table: "pd.DataFrame",
    path: Path,
    names: list[str],
    *,
    horizon: int,
    context: int | None = None,
    goal: str | None = None,
    goal_step: int | None = None,
    time_column: str = "time",
    text_column: str = "text",
) -> "Record":
    """The last C rows as a record whose H further steps are unknown.

    Raises ValueError for a missing column, times that are no times or not evenly spaced, values that are no numbers, too few rows or a
    goal step outside the horizon.
    """
    import pandas as pd

    from gssr.sequences.record import Record

    for name in (time_column, *names):
        if name not in table.columns:
            near = difflib.get_close_matches(str(name), map(str, table.columns), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"{path} has no column {name!r}; {hint}it has {list(table.columns)}, the network needs {[time_column, *names]}"
            )
    if goal_step is not None and goal_step > horizon:
        raise ValueError(f"goal_step {goal_step} lies behind the horizon of {horizon} steps")
    table = table.tail(context or len(table))
    if len(table) < SHORTEST:
        raise ValueError(f"{path} has {len(table)} rows; a history needs at least {SHORTEST}")
    try:
        given = table[time_column]
        known = pd.api.types.is_datetime64_any_dtype(given)
        moments = pd.to_datetime(given, utc=True, format=None if known else "ISO8601")
        hours = (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(hours=1)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}, column {time_column!r}: {str(error).splitlines()[0]}; expected ISO 8601 times"
        ) from error
    hours = hours.to_numpy(dtype=float)
    gaps = np.diff(hours)
    if not (gaps > 0).all() or not np.allclose(gaps, gaps[0], rtol=1e-3):
        raise ValueError(
            f"{path}, column {time_column!r}: times must rise in equal steps; they go on by {sorted({round(g, 3) for g in gaps})[:5]} hours"
        )
    value = np.empty((len(table), len(names)), np.float32)
    for y, name in enumerate(names):
        try:
            value[:, y] = pd.to_numeric(table[name])
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path}, column {name!r}: {error}; expected numbers, empty where nothing was observed"
            ) from error
    said = table[text_column] if text_column in table.columns else [None] * len(table)
    text = [t if isinstance(t, str) and t.strip() else None for t in said]
    length = len(table)
    return Record(
        series=path.stem,
        time=np.concatenate([hours, hours[-1] + gaps[0] * np.arange(1, horizon + 1)]),
        value=np.concatenate([value, np.full((horizon, len(names)), np.nan, np.float32)]),
        text=text + [None] * horizon,
        goal=None if goal is None else goal.strip(),
        goal_start=length - 1,
        goal_step=length - 1 + (goal_step or horizon),
    )


def _dimension(name: str | None, names: list[str]) -> int:
    if name is None:
        return 0
    if name not in names:
        raise ValueError(f"--dimension {name!r} is none of the network's values {names}")
    return names.index(name)


def _warn_of_strange_values(batch: "Batch", network: "GoalNetwork") -> None:
    """A history in other units, or of another world, is likelier a mistake than a question."""
    low, high = network.scaler.low.cpu(), network.scaler.high.cpu()
    reach = high - low
    outside = ((batch.value < low - 0.5 * reach) | (batch.value > high + 0.5 * reach)) & batch.value_mask
    for y in outside.any(1)[0].nonzero().flatten().tolist():
        print(
            f"gssr: warning: {network.value_names[y]} lies far outside of what was trained on, {low[y]:g} to {high[y]:g} "
            f"{network.value_units[y]}; is the unit right?",
            file=sys.stderr,
        )


def _print(batch: "Batch", with_goal: "Plan | None", without_goal: "Plan", network: "GoalNetwork") -> None:
    from rich.console import Console
    from rich.table import Table

    from gssr.evaluation.predictions import iso_time

    plan, first = with_goal or without_goal, int(batch.context[0])
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    table = Table(
        title=f"{batch.series[0]}: {batch.goal[0] or 'no goal'}", caption="mean, and the central 80 % of rollouts"
    )
    table.add_column("time")
    for name, unit in zip(network.value_names, network.value_units, strict=True):
        title = f"{name} ({unit})" if unit else name
        table.add_column(title, justify="right")
        if with_goal is not None:
            table.add_column("without goal", justify="right", style="dim")
    digits = [max(0, 2 - int(np.floor(np.log10(max(float(s), 1e-9))))) for s in network.scaler.std]
    for step in range(plan.mean.shape[1]):
        cells = [iso_time(float(batch.time[0, first + step]))]
        for y, d in enumerate(digits):
            d = min(d - 1, 6) if d else 0
            for shown in (plan, without_goal) if with_goal is not None else (plan,):
                low, high = shown.quantiles[0, step, y, 0], shown.quantiles[0, step, y, -1]
                cells.append(f"{shown.mean[0, step, y]:.{d}f} [{low:.{d}f}, {high:.{d}f}]".replace("[", "\\["))
        table.add_row(*cells)
    console.print(table)
    for step, text in enumerate(plan.text[0]):
        console.print(f"[bold]{iso_time(float(batch.time[0, first + step]))}[/bold] {text}", soft_wrap=True)
