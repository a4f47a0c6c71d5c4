"""Reads the config of a run, which may come from someone else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gssr import yaml_files
from gssr.runs.folders import CONFIG, RunError


def read_run_config(run: Path) -> dict[str, Any]:
    """The options of a run, as plain values. Which classes they may name, the parser checks: see `class_paths`.

    Raises RunError where the file asks for objects, or cannot be read, or holds no options.
    """
    file = run / CONFIG
    try:
        options = yaml_files.read(file)
    except (ValueError, OSError) as error:
        raise RunError(f"{file} was not used: {error}; give the options with --config FILE") from error
    if not isinstance(options, dict):
        raise RunError(f"{file} holds no options; give them with --config FILE")
    return options
