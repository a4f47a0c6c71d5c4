"""Reads the config of a run, which may come from someone else, without running code that lies beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gssr.runs.folders import CONFIG, RunError


def read_run_config(run: Path) -> dict[str, Any]:
    """The options of a run, as plain values.

    A class path is imported, so it must not lead into the run's own folder. The parser checks that it names a class of
    the right kind, and refuses modules that run commands, such as os.

    Raises RunError where the file asks for objects or names such a path, and where it cannot be read.
    """
    file = run / CONFIG
    try:
        options = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.constructor.ConstructorError as error:
        raise RunError(
            f"{file} was not read: it asks for an object ({error.problem}), which could run code; expected plain "
            "values only"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(f"{file} cannot be read: {error}; give the options with --config FILE") from error
    if not isinstance(options, dict):
        raise RunError(f"{file} holds no options; give them with --config FILE")
    for key, text in _texts(options):
        if _lies_in(run, text):
            raise RunError(
                f"{file} was not used: {key} is {text}, code that lies in the run's own folder; move code that you "
                "trust to another folder"
            )
    return options


def _texts(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict):
        for name, part in tree.items():
            yield from _texts(part, f"{key}.{name}".lstrip("."))
    elif isinstance(tree, list):
        for part in tree:
            yield from _texts(part, key)
    elif isinstance(tree, str):
        yield key, tree


def _lies_in(run: Path, text: str) -> bool:
    """Whether an import path leads into a folder, by names only: a search for a module would import its package."""
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        return False
    folder = run.resolve()
    places = [Path(entry or ".").joinpath(*parts[:-1]).resolve() for entry in sys.path]
    return any(folder == place or folder in place.parents for place in places)
