"""Which classes a configuration may name: the project's, some of Lightning's, and those that the user names himself.

The config of a run may come from someone else. To build a class is to run code, so a list of what is forbidden could
never be complete; this is a list of what is allowed. A class that writes where its arguments say, opens a connection or
calls what it is given is not on it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import set_loader, set_parsing_settings

from callbacks import OPTIONAL, RunCheckpoints
from gssr import yaml_files
from gssr.runs.folders import RunError

LIGHTNING = {
    "callbacks": (
        "BatchSizeFinder", "DeviceStatsMonitor", "EarlyStopping", "EMAWeightAveraging", "GradientAccumulationScheduler",
        "LearningRateFinder", "LearningRateMonitor", "ModelSummary", "RichModelSummary", "RichProgressBar",
        "StochasticWeightAveraging", "ThroughputMonitor", "Timer", "TQDMProgressBar",
    ),
    "strategies": ("DDPStrategy", "FSDPStrategy", "SingleDeviceStrategy"),
}  # fmt: skip
PROJECT = ("gssr", "datamodules")
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_allowed_before: set[str] = set()  # what any call in this process allowed: the parser forgets nothing by itself
_DENIED = re.compile(r"Importing '([\w.]+)' is not allowed")


def allow(args: list[str], trusted: Iterable[str] = ()) -> None:
    """Set what the parser may import: the list, what `args` and the configs given in them name, and `trusted`.

    Also makes the parser read YAML by `yaml_files`, and build nothing where an option takes any value. What an earlier
    call in this process allowed does not count.

    Raises RunError for a trusted name that is no import path, or whose module fails as it is imported.
    """
    set_loader("yaml", yaml_files.load, exceptions=(yaml_files.YamlError,))
    paths = {*_own(), *_with_definition(_named(args))}
    for name in trusted:
        if not _PATH.fullmatch(name) and not name.isidentifier():
            raise RunError(f"--trust {name!r} is no import path; expected package.module.Class or a package")
        try:
            paths |= set(_with_definition([name], ImportError))
        except Exception as error:  # whatever the user's own module raises
            raise RunError(f"--trust {name}: importing it failed ({type(error).__name__}: {error})") from error
    _allowed_before.update(path for path in paths if path.split(".")[0] != "jsonargparse")
    allowed = {path for path in _allowed_before if any(_lies_under(path, entry) for entry in paths)}
    set_parsing_settings(
        instantiate_subclass_spec_in_any=False,
        import_path_denylist=["*", *sorted(_allowed_before - allowed)],
        import_path_allowlist=sorted(allowed),
    )


def refused(message: str) -> str | None:
    """What to tell the user where the parser's error is about a class that may not be named; None for other errors."""
    found = _DENIED.search(message)
    if found is None:
        return None
    return (
        f"{found[1]} was not imported: the run's config names it, and that can come from someone else. Never allow "
        f"what you do not know; if it is a class of your own, add --trust {found[1]}"
    )


def not_own(options: Any) -> list[str]:
    """Class paths in options that only `--trust` allows when they are read again."""
    own = _own()
    paths = {path for path in _class_paths(options) if not any(_lies_under(path, entry) for entry in own)}
    return sorted(paths)


def _own() -> set[str]:
    callbacks = [f"callbacks.{kind.__name__}" for kind in (*OPTIONAL.values(), RunCheckpoints)]
    lightning = [f"lightning.pytorch.{room}.{name}" for room, names in LIGHTNING.items() for name in names]
    return {*PROJECT, *_with_definition([*callbacks, *lightning])}


def _with_definition(paths: Iterable[str], reported: type[Exception] = Exception) -> Iterator[str]:
    """Import paths and, for classes, where these are defined, which the parser compares, too.

    Errors of the kind `reported` pass: the parser imports what it needs again and reports them.
    """
    for path in paths:
        yield path
        module, _, name = path.rpartition(".")
        with suppress(reported):
            found = getattr(importlib.import_module(module), name, None) if module else None
            if isinstance(found, type):
                yield f"{found.__module__}.{found.__qualname__}"


def _named(args: list[str]) -> set[str]:
    """Class paths that the user names in arguments, and in the configs that these name."""
    paths: set[str] = set()
    option = ""
    for arg in args:
        if arg.startswith("-"):
            option, _, arg = arg.lstrip("-").partition("=")
        paths |= _in_text(arg, option)
    return paths


def _in_text(text: str, option: str, folder: Path = Path(), depth: int = 0) -> set[str]:
    """Class paths in a word that an option (a dotted name) was given."""
    file = folder / text if len(text) < 1000 and depth < 4 and _takes_config(option) else None
    try:
        if file is not None and file.suffix in (".yaml", ".yml", ".json") and file.is_file():
            owner = "" if option in ("config", "c") else option
            return _in_tree(yaml_files.read(file), owner, file.parent, depth + 1)
    except (ValueError, OSError):
        return set()  # the parser reports it
    if _PATH.fullmatch(text) and text.rpartition(".")[2][0].isupper():
        return {text}
    if "class_path" not in text:
        return set()
    try:
        return _in_tree(yaml_files.load(text), option, folder, depth + 1)
    except yaml_files.YamlError:
        return set()


def _takes_config(option: str) -> bool:
    """Whether a file given to an option holds options. A file of goals or of a table is data, and may be of others."""
    return option != "" and ("." not in option or option.startswith("trainer."))


def _in_tree(tree: Any, option: str, folder: Path, depth: int) -> set[str]:
    if isinstance(tree, str):
        return _in_text(tree, option, folder, depth)
    parts: list[tuple[str, Any]] = []
    if isinstance(tree, dict):
        parts = [(f"{option}.{name}".lstrip("."), part) for name, part in tree.items()]
    elif isinstance(tree, list):
        parts = [(option, part) for part in tree]
    return set(_class_paths(tree)).union(*(_in_tree(part, name, folder, depth) for name, part in parts))


def _class_paths(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for name, part in tree.items():
            if name == "class_path" and isinstance(part, str) and _PATH.fullmatch(part):
                yield part
            yield from _class_paths(part)
    elif isinstance(tree, list):
        for part in tree:
            yield from _class_paths(part)


def _lies_under(path: str, entry: str) -> bool:
    return path == entry or path.startswith(f"{entry}.")
