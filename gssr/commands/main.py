"""The `gssr` command: everything after training.

    gssr --help
    gssr state capture --prompt "The storm turned north" --out storm.safetensors

Each module of `MODULES` has a function ``add_commands(subparsers)``. It adds a parser for each command with
`gssr.commands.options.add_command` and sets the function that runs with ``set_defaults(run=function)``. The function
takes the namespace and returns an exit code or None. Its ``ValueError`` is a user error, and so is an error of the
system, such as a full disk: one paragraph and exit code 2.

Modules here import neither torch nor any other large library at their top: help must answer at once.
"""

import argparse
import sys
from collections.abc import Sequence

from gssr import __version__, shown
from gssr.commands import agent, chance, control, generate, plan, score, session, share, state, think
from gssr.threads import wait_briefly

MODULES = (state, generate, plan, chance, think, score, session, agent, control, share)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gssr",
        description="Inspect, save, blend and steer the states of a frozen hybrid language model; plan with and share "
        "goal networks.",
    )
    parser.add_argument("--version", action="version", version=f"gssr {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in MODULES:
        module.add_commands(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. The exit code is 0, 2 after a user error, 130 after Ctrl-C."""
    options = build_parser().parse_args(arguments)
    wait_briefly()
    shown.clean_warnings()
    try:
        return options.run(options) or 0
    except (ValueError, OSError) as error:
        print(f"gssr: {shown.lines(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
