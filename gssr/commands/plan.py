"""`gssr plan`: from a history and a goal in words to a plan on the terminal, as JSON and as a picture."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gssr import shown
from gssr.commands.history import HISTORY, history_options, read_records, warn_of_strange_values
from gssr.commands.options import (
    Subparsers,
    add_command,
    budget_option,
    items,
    number,
    plot_option,
    seed_option,
    steps,
)
from gssr.commands.plan_table import print_plan
from gssr.files import atomic_write, require_file, writing

if TYPE_CHECKING:
    from torch import Tensor

    from gssr.network import GoalNetwork
    from gssr.sequences.conditions import Condition
    from gssr.sequences.record import Batch, Record

CONDITION, PULL = "condition", "pull"
FEW = 1024  # rollouts by which the chance of a goal is told beside paths that are pulled


def add_commands(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "plan",
        "imagine how a history of your own goes on if a goal comes true",
        [
            'gssr plan --input ian.csv --goal "Become a category 3 hurricane in 48 hours"',
            'gssr plan --input ian.csv --goal "Weaken to 35 knots in 48 hours" --mode pull --strength 2',
            'gssr plan --input ian.csv --where "wind +30 within 24h" --likeliest',
            "gssr plan --ckpt_path runs/mine/checkpoints/best.ckpt --input mine.jsonl --plot fan.png --json plan.json",
        ],
        HISTORY,
    )
    history_options(parser)
    parser.add_argument("--goal", metavar="TEXT", help="the goal in words; default none, which gives a forecast")
    parser.add_argument(
        "--mode",
        choices=[CONDITION, PULL],
        help="paths of the network's own in which the goal holds (default), or paths that are pulled towards it",
    )
    parser.add_argument("--where", metavar="EVENT", help="paths in which an event holds; see gssr chance")
    parser.add_argument(
        "--likeliest",
        action="store_true",
        help="show the likeliest path under the goal or event, too; it is no typical one",
    )
    parser.add_argument("--goal_step", type=steps, metavar="N", help="step of the goal, from 1; default the last")
    parser.add_argument("--strength", type=number, metavar="X", help="factor of the goal's pull; default the network's")
    parser.add_argument("--samples", type=items, default=64, metavar="S", help="rollouts; default 64")
    budget_option(parser)
    seed_option(parser, "the rollouts")
    parser.add_argument(
        "--samples-in-words", type=items, default=1, metavar="K", help="different futures that are told; default 1"
    )
    parser.add_argument("--no-texts", action="store_true", help="imagine numbers only, which is faster")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write history, quantiles, rollouts and texts")
    plot_option(parser, "the fan chart with and without the goal")
    parser.add_argument("--dimension", metavar="NAME", help="value of the fan chart; default the first")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    _check(options)

    from gssr.evaluation.forecasting import forecast
    from gssr.runs.trained import load_trained
    from gssr.sequences.conditions import Condition

    network, trained = load_trained(options.ckpt_path, options.run_folder)
    dimension = _dimension(options.dimension, network.value_names)
    record, earlier = read_records(options, network.value_names, trained)
    warn_of_strange_values(record, network)
    recent = _recent(record, earlier, network)
    if options.strength is not None:
        network.forecaster.strength = options.strength
    network.forecaster.told = options.samples_in_words
    given: dict[str, Any] = {}
    if options.where is not None:
        where = Condition(options.where, network.value_names, network.value_units)
        given = _conditioned(where, record, network, options, recent)
        if not given["with_goal"]:
            raise ValueError(f"the network gives {shown.quoted(where.text)} {given['chance']}; no path satisfied it")
    elif record.goal is not None:
        record, given = _understood(record, network, options, recent)
    chance = given.pop("chance", None)
    # Paths in which a goal holds need no pull, which some networks have not learned.
    free = replace(record, goal=None) if given.get("with_goal") else record
    found = forecast(network, [free], options.samples, not options.no_texts, options.seed, recent)
    found = replace(found, batch=replace(found.batch, goal=[record.goal]))
    if options.where is not None:
        found = replace(found, batch=replace(found.batch, goal=[f"where {options.where.strip()}"]))
    found = replace(found, **{name: value for name, value in given.items() if value is not None})
    found = replace(found, chances=None if chance is None else [chance.plain()])
    print_plan(found, network, dimension)
    if options.json is not None:
        with writing(options.json), atomic_write(options.json) as file:
            file.write(found.lines()[0] + "\n")
        print(f"written: {shown.line(options.json)}")
    if options.plot is not None:
        from gssr.evaluation.fan_chart import save

        with writing(options.plot):
            save(found.chart(0, dimension), options.plot)
        print(f"written: {shown.line(options.plot)}")


def _check(options: argparse.Namespace) -> None:
    if options.goal is not None and not options.goal.strip():
        raise ValueError("the goal is empty; type a sentence, or leave --goal out for a forecast")
    if options.samples_in_words > options.samples:
        raise ValueError(
            f"--samples-in-words is {options.samples_in_words} and --samples {options.samples}; tell fewer, or imagine "
            "more"
        )
    if options.likeliest and options.goal is None and options.where is None:
        raise ValueError("--likeliest asks for the likeliest path under a goal; give one by --goal or --where")
    for name in ("goal", "goal_step", "strength", "mode"):
        if options.where is not None and getattr(options, name) is not None:
            raise ValueError(f"--where pulls towards no goal; leave out --{name}, or --where")
    if options.strength is not None and options.mode == CONDITION:
        raise ValueError("--strength is that of the pull, and --mode condition pulls nothing; leave one of them out")
    for file in (options.json, options.plot):
        if file is not None:
            require_file(file)


def _recent(record: "Record", earlier: "dict[int, Record]", network: "GoalNetwork") -> "Tensor | None":
    """By how much fans are to be widened (1, Y), as forecasts from earlier rows fell; None without such rows.

    Rows of the history may have been trained on. Their errors are too small, so fans become no narrower.
    """
    from gssr.network.recent import recent_spread
    from gssr.sequences.collate import collate

    batch = collate([record]).to(network.device)
    found = recent_spread(network.forecaster, batch, lambda series, until, before: earlier)
    if found is None or not (found > 1).any():
        return None
    print(f"fans are up to {found.max().item():.2f} times as wide as by validation: earlier forecasts erred by more")
    return found.clamp(min=1.0)


def _understood(
    record: "Record", network: "GoalNetwork", options: argparse.Namespace, recent: "Tensor | None"
) -> tuple["Record", dict[str, Any]]:
    """What a typed goal means and how paths under it are made: the record, whose goal pulls if it has one, and parts of
    a `Forecast`. What is understood, and how, is printed.
    """
    from gssr.sequences.conditions import Condition
    from gssr.understanding import plain, understand

    assert record.goal is not None
    mode = options.mode or (CONDITION if options.strength is None else PULL)
    try:
        found = understand(network, record, record.goal)
    except ValueError as error:
        print(shown.line(f"gssr: warning: goals are not understood, so they pull: {error}"), file=sys.stderr)
        _warn_of_strange_goal(record.goal, network)
        return record, {}
    print(shown.line(f"{shown.quoted(record.goal)} is {found}"))
    if found.condition is None and mode == CONDITION:
        if found.kind == "goal":
            raise ValueError(f"the goal cannot be asked for: {found.problem}; type another, or add --mode {PULL}")
        nothing = replace(record, goal=None)
        return nothing, {"understood": [plain(found, "none")]}
    given: dict[str, Any] = {}
    if found.condition is not None:
        try:
            where = Condition(found.condition, network.value_names, network.value_units)
            given = _conditioned(where, record, network, options, recent, paths=mode == CONDITION)
        except ValueError as error:
            if mode == CONDITION:
                raise
            print(shown.line(f"gssr: warning: its chance is unknown: {str(error).splitlines()[0]}"), file=sys.stderr)
    if not given.get("with_goal"):
        below = mode == CONDITION
        why = "no path of the network reaches it, so these are none of its own" if below else "by --mode pull"
        print(f"paths are pulled towards the goal ({why})")
        given = {name: given.get(name) for name in ("chance", "likeliest")}
        return record, given | {"understood": [plain(found, PULL)]}
    return record, given | {"understood": [plain(found, CONDITION)]}


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


def _conditioned(
    where: "Condition",
    record: "Record",
    network: "GoalNetwork",
    options: argparse.Namespace,
    recent: "Tensor | None",
    paths: bool = True,
) -> dict[str, Any]:
    """The plan of paths of the network's own in which a condition holds (None where there is none, or ``paths`` is
    False), and its chance.
    """
    import torch

    from gssr.runs.folders import find_checkpoint
    from gssr.runs.twists import twist_of
    from gssr.search.beliefs import chance, condition
    from gssr.sequences.collate import collate

    file, batch = find_checkpoint(options.ckpt_path, options.run_folder), collate([record])
    beside = _likeliest(where, batch, network, options)
    if not paths:
        ((only,),) = chance(network, batch, [where], budget=min(FEW, options.budget), seed=options.seed)
        print(shown.line(f"where {where.text}: chance {only}"))
        return beside | {"with_goal": None, "chance": only}
    (given,) = condition(
        network,
        batch,
        where,
        options.samples,
        options.budget,
        options.seed,
        twist=lambda: twist_of(network, file),
    )
    found = given.chance
    said = f"where {where.text}: chance {found}"
    if not found.hits:
        print(shown.line(said))
        return beside | {"with_goal": None, "chance": found}
    said += f"; {found.hits:,} of {found.rollouts:,} {found.method} satisfy it"
    if found.method == "particles":
        said += f", as good as {given.effective_samples:.0f} paths, of {given.ancestors:,} beginnings"
    print(shown.line(said))
    # A condition depends on the noise of values as well, so that paths without it need not satisfy it. The fan is as
    # wide as validation and recent errors found that forecasts must be; stretched paths need not satisfy a condition,
    # so none is written.
    rollouts = given.equally(options.samples, options.seed)
    pulled = torch.zeros(1, dtype=torch.bool, device=rollouts.sample.device)
    fan = network.forecaster.calibration(rollouts.sample, pulled, recent)
    rollouts = replace(rollouts, mean=rollouts.sample, sample=fan)
    texts = not options.no_texts and network.forecaster.calibration.tells()
    plan = network.forecaster.described(batch, rollouts, texts)
    return beside | {"with_goal": plan, "chance": found}


def _likeliest(
    where: "Condition", batch: "Batch", network: "GoalNetwork", options: argparse.Namespace
) -> dict[str, Any]:
    """The likeliest path, where it is asked for and there is one; how likely it is is printed."""
    from gssr.search.beliefs import likeliest

    if not options.likeliest:
        return {}
    (found,) = likeliest(network, batch, where, options.seed)
    if found is None:
        print("likeliest path: none was found")
        return {}
    print(
        f"likeliest path: {found.nats:.1f} nats below the network's own likeliest; a typical rollout lies "
        f"{found.typical:.0f} below it"
    )
    return {"likeliest": [found.plain()]}


def _dimension(name: str | None, names: list[str]) -> int:
    if name is not None and name not in names:
        raise ValueError(f"--dimension is {name!r}; expected one of the network's values {names}")
    return 0 if name is None else names.index(name)
