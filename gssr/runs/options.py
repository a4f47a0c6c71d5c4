"""What the command line names before its options are parsed: the stage, the run, the default configs; and the help.

Only the standard library is imported until a data module is named.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
from pathlib import Path
from typing import Any

from gssr.runs.folders import BEST, RunError
from gssr.shown import quoted

STAGES = {
    "fit": "train, and validate while training",
    "validate": "score a checkpoint on the validation part",
    "test": "score a checkpoint on the test part and print the table of results",
    "predict": "imagine how the last windows go on, with and without a goal",
}
DEFAULT_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "default.yaml"
LONGEST = 200  # bytes of a part of a path; file systems take 255, and files beside it have longer names
EXAMPLES = """\
examples:
  python train.py fit                                       the main job: storms around the nano backbone
  python train.py fit --config configs/debug.yaml           everything shrunk, under a minute
  python train.py fit --trainer.max_epochs 40 --model.latent_dim 32 --data.batch_size 32
  python train.py fit --plan_rollouts.windows 8             more pictures; --plan_rollouts null: none
  python train.py fit --data datamodules.Strikes            other data, with its own default config
  python train.py fit --ckpt_path last                      go on with the newest run (--run NAME: with that one)
  python train.py fit --ckpt_path last --trainer.max_epochs 40
  python train.py test --ckpt_path best                     the table of results, from the best checkpoint
  python train.py predict --ckpt_path best --data.goal "Become a category 3 hurricane in 48 hours"
  tensorboard --logdir runs

  python train.py fit --help                                all options of the trainer
  python train.py fit --model.help gssr.network.GoalNetwork all options of a model or data class (--data.help CLASS)
  python train.py fit --plan_rollouts.help                  all options of a callback
  python train.py fit --print_config                        the configuration as it would be used
"""


def general_help(description: str) -> str:
    """The help of train.py as a whole, made without the parsers of the stages, which take seconds to build."""
    stages = "\n".join(f"  {name:10}{text}" for name, text in STAGES.items())
    return f"usage: python train.py STAGE [options]\n\n{description}\nstages:\n{stages}\n\n{EXAMPLES}"


def choose(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Remove from the command line what decides about the run: it must be known before the options can be parsed.

    Lightning, given `ckpt_path` among its options, would also put the checkpoint's hyper-parameters over the user's.

    Returns:
        stage, ckpt_path, run (None where they are not given), trust (import paths) and asks (for help); and the other
        arguments.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--ckpt_path")
    parser.add_argument("--run")
    parser.add_argument("--trust", action="append", default=[])
    chosen, rest = parser.parse_known_args(args)
    if chosen.ckpt_path in ("null", "None", "none", ""):
        chosen.ckpt_path = None
    chosen.trust = [name for given in chosen.trust for name in given.split(",")]
    for option in ("ckpt_path", "run"):
        _check_path(option, getattr(chosen, option) or "")
    chosen.stage = rest[0]
    chosen.asks = any(arg in ("-h", "--help") or ".help" in arg.split("=")[0] for arg in rest)
    if chosen.run is not None and chosen.ckpt_path is None and chosen.stage != "fit":
        chosen.ckpt_path = BEST
    return chosen, rest


def paragraph(error: BaseException) -> str | None:
    """The words of an error that this project raises for what a user can mend; None for errors of others and defects.

    A library raises ValueError for its own reasons; its traceback is then of use.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    room = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0]
    if room not in ("gssr", "callbacks", "datamodules", "train"):
        return None
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


def _check_path(option: str, text: str) -> None:
    """Raises RunError for a path that no file system takes, or that a terminal cannot show."""
    if not text.isprintable() or any(len(os.fsencode(part)) > LONGEST for part in Path(text).parts):
        raise RunError(
            f"--{option} is {quoted(text)}; expected at most {LONGEST} printable characters between two slashes"
        )


def default_configs(args: list[str]) -> list[Path]:
    """The configs that a new run reads first: the main job's, then the default config of the data that `--data` names.

    The main job's epochs and windows suit its own data. A data module brings others by a class attribute
    `default_config`, a path relative to the file of the class. It is not read where the user gives a `--config`.

    Raises RunError where a class names a file that does not exist.
    """
    if any(arg in ("-c", "--config") or arg.startswith("--config=") for arg in args):
        return [DEFAULT_CONFIG]
    named = [after for arg, after in zip(args, [*args[1:], ""], strict=True) if arg == "--data"]
    named += [arg.removeprefix("--data=") for arg in args if arg.startswith("--data=")]
    data = _data_class(named[-1]) if named else None
    owner = next((c for c in getattr(data, "__mro__", ()) if "default_config" in vars(c)), None)
    if owner is None or owner.default_config is None:
        return [DEFAULT_CONFIG]
    file = (Path(inspect.getfile(owner)).parent / owner.default_config).resolve()
    if not file.is_file():
        raise RunError(
            f"{owner.__name__}.default_config is {owner.default_config!r}, but there is no file {file}; expected a "
            "path relative to the file of the class, or None"
        )
    return [DEFAULT_CONFIG, file]


def _data_class(name: str) -> type[Any] | None:
    """The class of an import path, or of a name in `datamodules`; None if there is none, which the parser reports."""
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module or "datamodules"), attribute, None)
    except ImportError:
        return None
    return found if isinstance(found, type) else None


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested options as {dotted name: value}."""
    if isinstance(tree, dict) and tree:
        return {key: value for name, part in tree.items() for key, value in flat(part, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): tree}
