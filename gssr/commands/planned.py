"""What `gssr generate --plan` does: one text while a planner looks ahead, and what became of its plans."""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from gssr import shown
from gssr.commands import options as shared
from gssr.domains import Count, CountOrNone, Few, argument

if TYPE_CHECKING:
    from torch import Tensor

    from gssr.backbone import FrozenBackbone
    from gssr.search.decoding.lookahead import Lookahead
    from gssr.search.decoding.planned import Planned
    from gssr.search.decoding.rows import Decoding, Rows
    from gssr.search.decoding.select import Value
    from gssr.states.rules import Rule

NAMES = ("ahead", "candidates", "block", "simulations", "depth", "lag", "pace")
LONGEST_LOAD = 300.0  # seconds in which a worker should have loaded its model


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a planner beside the text, for --plan")
    few, number = argument(Few), {"metavar": "N"}
    ahead = "tokens from a look at the text to where its plan begins; default 32"
    group.add_argument("--ahead", type=argument(Count), **number, help=ahead)
    group.add_argument("--candidates", type=few, **number, help="blocks that are tried at a place; default 4")
    group.add_argument("--block", type=few, **number, help="tokens of a block; 1 plans token by token; default 8")
    group.add_argument("--simulations", type=few, **number, help="places that are tried for a plan; default 4")
    group.add_argument("--depth", type=few, **number, help="blocks in a row, at most; default 3")
    lag = "plan in this process, each plan this many tokens late: the same text each time"
    group.add_argument("--lag", type=argument(CountOrNone), **number, help=lag)
    group.add_argument(
        "--pace", type=shared.positive, metavar="TOKENS", help="write at most so many tokens a second, as for a reader"
    )


def check(options: argparse.Namespace) -> None:
    """Raises ValueError for options that do not belong together."""
    given = [name for name in NAMES if getattr(options, name) is not None]
    if given and not options.plan:
        raise ValueError(f"--{given[0]} belongs to --plan, which is missing; add it")
    if options.plan and options.device != "cpu":
        raise ValueError(f"--plan works on the CPU, and --device is {options.device}; leave it out")
    if options.plan and options.temperature == 0:
        raise ValueError("at --temperature 0 all candidates of a plan are the same; give a temperature above 0")


def write(backbone: "FrozenBackbone", options: argparse.Namespace, prompt: "Tensor", rules: "list[Rule]") -> None:
    """Write the plain text and the planned one, and show what became of plans."""
    from gssr.search.decoding.lookahead import Lookahead
    from gssr.search.decoding.planned import write_planned
    from gssr.search.decoding.rows import Decoding, Rows

    looks = {name: getattr(options, name) for name in NAMES[:-2] if getattr(options, name) is not None}
    decoding = Decoding(options.tokens, options.temperature, options.top_p)
    texts = [Rows(backbone, prompt, 1, decoding, rules, options.seed) for _ in range(2)]
    plain = write_planned(texts[0], None, options.pace)
    found, failure = _planned(backbone, options, Lookahead(**looks), decoding, texts[1], rules)
    _show(options, [rows.texts()[0] for rows in texts], [rows.length for rows in texts], [plain, found])
    if failure:
        print(f"gssr: the planner ended ({failure}); the text went on without plans", file=sys.stderr)


def _planned(
    backbone: "FrozenBackbone",
    options: argparse.Namespace,
    looks: "Lookahead",
    decoding: "Decoding",
    rows: "Rows",
    rules: "list[Rule]",
) -> "tuple[Planned, str]":
    from gssr.backbone.config import BackboneConfig
    from gssr.backbone.precision import name_of
    from gssr.search.decoding import scoring
    from gssr.search.decoding.critic import of_file
    from gssr.search.decoding.lookahead import Search
    from gssr.search.decoding.planned import write_planned
    from gssr.search.decoding.planners import Job, SeededPlanner, WorkerPlanner

    value: Callable[[FrozenBackbone], Value] = scoring.plain
    if options.critic is not None:
        value = partial(of_file, options.critic)
    elif options.scorer is not None:
        value = partial(scoring.named, options.scorer)
    here = value(backbone)  # a wrong name is refused before a process is begun
    if options.lag is not None:
        search = Search(backbone, looks, decoding, here, tuple(rules))
        return write_planned(rows, SeededPlanner(search, options.lag), options.pace), ""
    dtype: Any = name_of(backbone.table.weight.dtype)
    model = BackboneConfig(backbone.name, backbone.revision, dtype, options.offline)
    with WorkerPlanner(Job(model, looks, decoding, value, tuple(rules))) as planner:
        planner.wait(LONGEST_LOAD)
        found = write_planned(rows, planner, options.pace)
        return found, planner.failure


def _show(options: argparse.Namespace, texts: list[str], lengths: list[int], found: "list[Planned]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    counts = found[1].counts.as_dict()
    speeds = [length / max(each.seconds, 1e-9) for length, each in zip(lengths, found, strict=True)]
    if options.json:
        about = {**counts, "tokens_by_plan": found[1].tokens, "tokens": lengths[1], "tokens_a_second": speeds}
        print(json.dumps({"prompt": options.prompt, "plain": texts[0], "planned": texts[1], "plans": about}))
        return
    table = Table("without a planner", "with a planner", title=Text(shown.lines(options.prompt)))
    table.add_row(*(Text(shown.lines(text)) for text in texts))
    Console().print(table)
    print(
        f"{counts['received']} plans: {counts['applied']} applied, {counts['late']} late, {counts['discarded']} "
        f"discarded; {found[1].tokens} of {lengths[1]} tokens by plan; {speeds[1]:.0f} tokens a second with it, "
        f"{speeds[0]:.0f} without"
    )
