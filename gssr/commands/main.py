"""The `gssr` command: everything after training.

    gssr --help
    gssr state capture --prompt "The storm turned north" --out storm.safetensors

A module with commands offers ``add_commands(subparsers)``: for each command it adds a parser, with an example in its help, and
names what runs with ``set_defaults(run=function)``, function(namespace) -> exit code or None. Options that several
commands share are in `gssr.commands.options`. What a user got wrong is a ``ValueError`` there, and one line and exit code 2 here.
"""

import argparse
import sys
from collections.abc import Sequence

from gssr import __version__
from gssr.commands import generate, plan, share, state

MODULES = (state, generate, plan, share)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gssr",
        description="Look at, keep, blend and steer the recurrent states of a frozen hybrid language model.",
    )
    parser.add_argument("--version", action="version", version=f"gssr {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in MODULES:
        module.add_commands(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 2 for what the user got wrong, 130 after Ctrl-C."""
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except ValueError as error:
        print(f"gssr: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
