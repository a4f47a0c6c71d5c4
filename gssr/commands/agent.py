"""`gssr agent`: a task for a model that may call tools."""

import argparse
import json
import sys
from pathlib import Path

from gssr import shown
from gssr.commands import options as shared
from gssr.commands.options import Subparsers


def add_commands(subparsers: Subparsers) -> None:
    parser = shared.add_command(
        subparsers, "agent", "let a model work on a task with tools from an allow-list",
        ['gssr agent "? table pear + 5" --tools tools.yaml --backbone corpus/tools',
         'gssr agent "try the list" --tools tools.yaml --script calls.txt --dry-run'],
        "The model writes lines: `call NAME ARGUMENT…` or `answer TEXT`. Commands of the list alone run, without a\n"
        "shell, with limits, and without network where the machine allows it. Every call is logged.",
    )  # fmt: skip
    parser.add_argument("task", type=shared.utf8)
    parser.add_argument("--tools", type=Path, required=True, metavar="FILE", help="YAML, the allow-list")
    parser.add_argument("--log", type=Path, metavar="FILE", help="of all calls; default NAME.log.jsonl of --tools")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="run nothing, show what would run")
    how.add_argument("--ask", action="store_true", help="ask before each call")
    parser.add_argument("--script", type=Path, metavar="FILE", help="lines of this file in place of a model")
    parser.add_argument("--tokens", type=shared.count, default=64, help="of a line at most; default 64")
    shared.backbone_options(parser)
    shared.json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from gssr.reasoning.tools import sandbox
    from gssr.reasoning.tools.agent import Policy, Script, work
    from gssr.reasoning.tools.toolbox import Call, Toolbox

    box = Toolbox.read(options.tools)
    log = options.log or options.tools.with_name(f"{options.tools.stem}.log.jsonl")
    policy: Policy
    if options.script is not None:
        policy = Script(shared.read_text(options.script).splitlines())
    else:
        from gssr.reasoning.tools.model import Model

        policy = Model(shared.load_backbone(options), options.tokens)
    if sandbox.isolation() == "none":
        print("gssr: tools can reach the network here: install bubblewrap, or allow user namespaces", file=sys.stderr)

    def approve(call: Call, command: tuple[str, ...]) -> bool:
        print(f"{shown.line(call.tool)}: {' '.join(map(shown.argument, command))}", file=sys.stderr)
        if not options.ask:
            return True
        print("run it? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    found = work(options.task, policy, box, log, approve, options.dry_run)
    if options.json:
        print(json.dumps({"answer": found.answer, "calls": found.calls, "refused": found.refused}, ensure_ascii=False))
        return
    if found.answer is None:
        raise ValueError(f"no answer after {box.limits.calls} calls; see {log}, or raise limits.calls")
    print(shown.lines(found.answer))
