"""Train a goal network, test it, let it plan: `python train.py fit | validate | test | predict`.

Options come from configs/default.yaml and the default config of the data module that `--data` names, or from the run of
`--ckpt_path`. A `--config` wins over these, and an option on the command line wins over everything. `python train.py
--help` shows examples. The parts: gssr/runs/command_line.py (the command line), gssr/network (the network),
datamodules/ (the data), callbacks/ (what accompanies training). The training loop is Lightning's.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from gssr import shown
from gssr.runs.folders import RunError
from gssr.runs.options import STAGES, general_help, paragraph
from gssr.runs.signals import Terminated, signals_as_exceptions
from gssr.threads import wait_briefly

if TYPE_CHECKING:
    from gssr.runs.command_line import RunCLI


def main(args: list[str] | None = None) -> RunCLI:
    """Run one stage. Ends the process with a message where an option cannot be used."""
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help"):
        print(general_help(str(__doc__)))
        sys.exit(0)
    if args[0] not in STAGES:
        sys.exit(f"train.py: {args[0]!r} is no stage; expected {', '.join(STAGES)}, such as python train.py fit --help")
    wait_briefly()
    try:
        with signals_as_exceptions():
            from gssr.runs.command_line import RunCLI, prepare  # imports torch and Lightning, which help does not need

            prepare()
            return RunCLI(args)
    except RunError as error:
        sys.exit(f"train.py: {shown.lines(error)}")
    except ValueError as error:
        if (words := paragraph(error)) is None:
            raise
        sys.exit(f"train.py: {shown.lines(words)}")
    except KeyboardInterrupt as stop:
        sys.exit(128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT))


if __name__ == "__main__":
    main()
