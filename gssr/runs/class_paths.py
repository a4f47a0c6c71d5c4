"""Which classes a configuration may name: the project's, some of Lightning's, and those that the user names himself.

The config of a run may come from someone else. To build a class is to run code, so a list of what is forbidden could
never be complete; this is a list of what is allowed. A class that writes where its arguments say, opens a connection or
calls what it is given is not on it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
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
_DENIED = re.compile(r"Importing '([\w.]+)' is not allowed")


def allow(args: list[str], trusted: Iterable[str] = ()) -> None:
    """Set what the parser may import: the list, what `args` and the configs given in them name, and `trusted`.

    Also makes the parser read YAML by `yaml_files`, and build nothing where an option takes any value.

    Raises RunError for a trusted name that is no import path.
    """
    set_loader("yaml", yaml_files.load, exceptions=(yaml_files.YamlError,))
    paths = {*_own(), *_with_definition(_named(args))}
    for name in trusted:
        if not _PATH.fullmatch(name) and not name.isidentifier():
            raise RunError(f"--trust {name!r} is no import path; expected package.module.Class or a package")
        paths |= {name, *_with_definition([name])}
    set_parsing_settings(
        instantiate_subclass_spec_in_any=False,
        import_path_denylist=["*"],
        import_path_allowlist=sorted(path for path in paths if path.split(".")[0] != "jsonargparse"),
    )


def refused(message: str) -> str | None:
    """What to tell the user where the parser's error is about a class that may not be named; None for other errors."""
    found = _DENIED.search(message)
    if found is None:
        return None
    return (
        f"{found[1]} was not imported: the run's config names it, which can come from someone else, and it is no class "
        f"of this project. If you trust that code, add --trust {found[1]}"
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


def _with_definition(paths: Iterable[str]) -> Iterator[str]:
    """Import paths and, for classes, where these are defined, which the parser compares, too."""
    for path in paths:
        yield path
        module, _, name = path.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name, None) if module else None
        except ImportError:
            continue  # the parser reports it
        if isinstance(found, type):
            yield f"{found.__module__}.{found.__qualname__}"


def _named(args: list[str]) -> set[str]:
    """Class paths that the user names in arguments, and in the files that these name."""
    paths: set[str] = set()
    for arg in args:
        paths |= _in_text(arg.split("=", 1)[1] if arg.startswith("-") and "=" in arg else arg)
    return paths


def _in_text(text: str, folder: Path = Path(), depth: int = 0) -> set[str]:
    file = folder / text if len(text) < 1000 else None
    try:
        if file is not None and file.suffix in (".yaml", ".yml", ".json") and file.is_file() and depth < 4:
            return _in_tree(yaml_files.read(file), file.parent, depth + 1)
    except (ValueError, OSError):
        return set()  # the parser reports it
    if _PATH.fullmatch(text) and text.rpartition(".")[2][0].isupper():
        return {text}
    if "class_path" not in text:
        return set()
    try:
        return _in_tree(yaml_files.load(text), folder, depth + 1)
    except yaml_files.YamlError:
        return set()


def _in_tree(tree: Any, folder: Path, depth: int) -> set[str]:
    paths = set(_class_paths(tree))
    for text in _texts(tree):
        paths |= _in_text(text, folder, depth)
    return paths


def _class_paths(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for name, part in tree.items():
            if name == "class_path" and isinstance(part, str) and _PATH.fullmatch(part):
                yield part
            yield from _class_paths(part)
    elif isinstance(tree, list):
        for part in tree:
            yield from _class_paths(part)


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from _texts(part)
    elif isinstance(tree, str):
        yield tree


def _lies_under(path: str, entry: str) -> bool:
    return path == entry or path.startswith(f"{entry}.")
