"""Finished pieces of work, one complete JSON file each: an interrupted benchmark continues where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gssr.files import atomic_write

FIGURES = 6  # significant digits of a number


class Cells:
    """The cells of one folder, by name.

    A cell keeps the settings that it was made with. Other settings make it anew.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str, settings: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """The cell of that name, or None if there is none with these settings."""
        file = self.folder / f"{name}.json"
        if not file.is_file():
            return None
        cell = json.loads(file.read_text(encoding="utf-8"))
        return cell if settings is None or cell["settings"] == plain(settings) else None

    def make(self, name: str, settings: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The cell of that name; `work` makes a missing one."""
        found = self.get(name, settings)
        if found is None:
            found = plain({"settings": settings, **work()})
            with atomic_write(self.folder / f"{name}.json") as file:
                json.dump(found, file, allow_nan=False)
        return found

    def named(self, start: str) -> dict[str, dict[str, Any]]:
        """All cells whose names begin with `start`, in order of their names."""
        files = sorted(self.folder.glob(f"{start}*.json"))
        return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def plain(value: Any) -> Any:
    """Values that strict JSON can hold: lists, rounded numbers, None for NaN."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{FIGURES}g}") if np.isfinite(value) else None
    return value


def numbers(values: Any) -> np.ndarray:
    """An array of numbers from `plain`, NaN for None."""
    return np.array(values, dtype=float)
