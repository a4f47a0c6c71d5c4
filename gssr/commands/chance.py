"""`gssr chance`: how likely events are, after a history."""

import argparse
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gssr import shown
from gssr.commands.history import HISTORY, STEPS, history_options, read_record, warn_of_strange_values
from gssr.commands.options import (
    Subparsers,
    add_command,
    budget_option,
    json_option,
    plot_option,
    read_text,
    seed_option,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gssr.network import GoalNetwork
    from gssr.search.beliefs import Estimate, Recalibration
    from gssr.sequences.conditions import Condition
    from gssr.sequences.record import Record


def add_commands(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "chance",
        "how likely an event is after a history of your own",
        [
            'gssr chance --input ian.csv --event "wind +30 within 24h"',
            'gssr chance --input ian.csv --event "Strengthen to 90 knots within two days"',
            'gssr chance --input ian.csv --event "wind >= 96 at 48h and wind <= 100 until 24h"',
            'gssr chance --input ian.csv --event "wind +30 within 24h" --recalibrate',
            'gssr chance --input ian.csv --event "wind >= 96 within 48h" --over-time --plot chances.png',
            "gssr chance --ckpt_path runs/mine/checkpoints/best.ckpt --input mine.jsonl --events events.txt --json",
        ],
        HISTORY
        + "\n\nAn event is NAME >= NUMBER (or <=, >, <), NAME LOW..HIGH, or a change from the last value, such as\n"
        "NAME +30; behind it stands a time: at T, within T or until T, with T such as 48h, 2 days or 3 steps.\n"
        "A sentence is read as a goal, and what it means is told.\n"
        "Events are joined by and, or, not and parentheses; names with blanks are quoted.\n"
        "With --over-time the chance is asked behind each step of the table, and times count from there.",
    )
    history_options(parser)
    parser.add_argument("--event", action="append", default=[], metavar="TEXT", help="an event; may be repeated")
    parser.add_argument("--events", type=Path, metavar="FILE", help="a UTF-8 file with an event a line")
    parser.add_argument("--over-time", action="store_true", help="ask behind each step of the table, not the last only")
    plot_option(parser, "the chances over time")
    parser.add_argument(
        "--recalibrate", action="store_true", help="correct chances by how often events came true in validation"
    )
    budget_option(parser)
    seed_option(parser, "the rollouts")
    json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    texts = [*options.event, *_lines(options.events)]
    if not texts:
        raise ValueError('no event was given; give --event "wind +30 within 24h" or --events FILE')
    if options.plot and not options.over_time:
        raise ValueError("--plot draws chances over time; give --over-time, too")

    from gssr.runs.folders import find_checkpoint
    from gssr.runs.recalibrations import recalibrations_of
    from gssr.runs.trained import load_trained
    from gssr.runs.twists import twist_of

    network, trained = load_trained(options.ckpt_path, options.run_folder)
    record = read_record(options, network.value_names, trained, whole=options.over_time)
    events = [_event(text, network, record) for text in texts]
    warn_of_strange_values(record, network)
    found_file = find_checkpoint(options.ckpt_path, options.run_folder)
    corrections = recalibrations_of(network, found_file, events, options.seed) if options.recalibrate else None
    search = {"budget": options.budget, "seed": options.seed, "twist": lambda: twist_of(network, found_file)}
    if options.over_time:
        _over_time(
            options, network, record, events, options.context or trained.get("context", STEPS), corrections, search
        )
    else:
        _now(options, network, record, events, corrections, search)


def _now(
    options: argparse.Namespace,
    network: "GoalNetwork",
    record: "Record",
    events: "Sequence[Condition]",
    corrections: "Sequence[Recalibration] | None",
    search: dict[str, Any],
) -> None:
    """Print the chances behind the last step."""
    from gssr.search.beliefs import chance
    from gssr.sequences.collate import collate

    (counted,) = chance(network, collate([record]), events, **search)
    found = _corrected(counted, corrections)
    if options.json:
        lines = [
            {"event": event.text, **each.plain(), **_uncorrected(each)}
            for event, each in zip(events, found, strict=True)
        ]
        print(json.dumps({"series": record.series, "events": lines}, allow_nan=False, ensure_ascii=False))
        return
    rows = []
    for event, each in zip(events, found, strict=True):
        low, high = each.interval
        own = [] if corrections is None else [str(each.of)]
        numbers = (*own, str(each), f"{low:.2g} to {high:.2g}", f"{each.hits:,}", f"{each.rollouts:,} {each.method}")
        rows.append((event.text, *numbers))
    chances = ("chance",) if corrections is None else ("of the network", "recalibrated")
    _print(record.series, ("event", *chances, "interval", "hits", "of"), rows, "intervals hold 95 %")


def _over_time(
    options: argparse.Namespace,
    network: "GoalNetwork",
    record: "Record",
    events: "Sequence[Condition]",
    context: int,
    corrections: "Sequence[Recalibration] | None",
    search: dict[str, Any],
) -> None:
    """Print, and draw, the chances behind each step."""
    from tqdm import tqdm

    from gssr.search.beliefs import over_time
    from gssr.sequences.clock import iso_time

    asked = over_time(network, record, events, context, **search)
    found = [
        replace(moment, chances=_corrected(moment.chances, corrections))
        for moment in tqdm(asked, total=record.goal_start, unit="step", leave=False)
    ]
    names = [event.text for event in events]
    if options.plot:
        from gssr.evaluation.chance_chart import Line, chance_chart
        from gssr.evaluation.fan_chart import save

        lines = [
            Line(
                name,
                [moment.chances[number].probability for moment in found],
                [moment.chances[number].interval for moment in found],
                [moment.came_true[number] for moment in found],
            )
            for number, name in enumerate(names)
        ]
        save(chance_chart(record.series, [moment.time for moment in found], lines), options.plot)
    if options.json:
        steps = [
            {
                "time": iso_time(moment.time),
                "events": [
                    {"event": name, **chance.plain(), **_uncorrected(chance), "came_true": came}
                    for name, chance, came in zip(names, moment.chances, moment.came_true, strict=True)
                ],
            }
            for moment in found
        ]
        print(json.dumps({"series": record.series, "steps": steps}, allow_nan=False, ensure_ascii=False))
        return
    said = {True: " (came true)", False: " (did not)", None: ""}
    rows = [
        (iso_time(moment.time), *(f"{c}{said[t]}" for c, t in zip(moment.chances, moment.came_true, strict=True)))
        for moment in found
    ]
    _print(record.series, ("time", *names), rows, "times in events count from each time")


def _corrected(found: "Sequence[Estimate]", corrections: "Sequence[Recalibration] | None") -> "Sequence[Estimate]":
    from gssr.search.beliefs import Corrected

    return found if corrections is None else [Corrected(*pair) for pair in zip(found, corrections, strict=True)]


def _uncorrected(found: "Estimate") -> dict[str, Any]:
    """For JSON: what the network says itself, and from what the correction comes."""
    from gssr.search.beliefs import Corrected

    if not isinstance(found, Corrected):
        return {}
    by = found.by
    return {"uncorrected": found.of.plain(), "validation": {"windows": by.windows, "came_true": by.came_true}}


def _print(series: str, columns: "Sequence[str]", rows: "Sequence[Sequence[str]]", caption: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(shown.line(series)), caption=caption)
    for number, name in enumerate(columns):
        table.add_column(Text(shown.line(name)), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(Text(shown.line(cell)) for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def _event(text: str, network: "GoalNetwork", record: "Record") -> "Condition":
    """An event as it is written, or what a sentence means, which is said.

    Raises ValueError for a text that is neither: with what is wrong about it as an event, where it begins like one.
    """
    from gssr.sequences.conditions import Condition
    from gssr.understanding import understand

    try:
        return Condition(text, network.value_names, network.value_units)
    except ValueError as error:
        if re.search(r"[<>≥≤=()]|\.\.|\bchange\b", text) or text.lstrip().startswith(('"', "'", "not ")):
            raise
        found = understand(network, record, text)
        if found.condition is None:
            raise ValueError(f"{shown.quoted(text)} is {found}; as an event it is none either: {error}") from error
        print(shown.line(f"gssr: {shown.quoted(text)} is {found}"), file=sys.stderr)
        return Condition(found.condition, network.value_names, network.value_units)


def _lines(file: Path | None) -> list[str]:
    """The events of a file; empty lines are none."""
    return [] if file is None else [line.strip() for line in read_text(file).splitlines() if line.strip()]
