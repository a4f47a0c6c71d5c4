"""Tables of estimates with the bars they must clear, as Markdown, JSON and scalars."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gssr.evaluation.bootstrap import Estimate

Cell = Estimate | float | str


@dataclass
class Table:
    """Rows of named cells.

    `unit` tells how numbers are written: "%" as percentages, anything else as they are, with `digits` behind the point.
    Rows with Estimates show the number of windows and series of the first one, too.
    """

    key: str
    title: str
    note: str
    rows: dict[str, dict[str, Cell]]
    unit: str = ""
    digits: int = 2
    units: Mapping[str, str] = field(default_factory=dict)  # of single columns

    def to_markdown(self) -> str:
        columns = list(dict.fromkeys(column for row in self.rows.values() for column in row))
        sizes = {name: self._size(row) for name, row in self.rows.items()}
        counted = any(sizes.values())
        head = ["", *columns, *(["windows", "series"] if counted else [])]
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for name, row in self.rows.items():
            cells = [self._write(row[column], column) if column in row else "" for column in columns]
            cells += [str(n) for n in sizes[name] or ("", "")] if counted else []
            lines.append("| " + " | ".join([name, *cells]) + " |")
        note = [self.note, ""] if self.note else []
        if not self.rows:
            lines = ["Nothing was measured."]
        return "\n".join([f"### {self.title}", "", *note, *lines, ""])

    def _write(self, cell: Cell, column: str) -> str:
        if isinstance(cell, str):
            return cell
        unit = self.units.get(column, self.unit)
        scale, digits, sign = (100, 1, " %") if unit == "%" else (1, self.digits, "")
        if not isinstance(cell, Estimate):
            return "–" if math.isnan(cell) else f"{cell * scale:.{digits}f}{sign}"
        if math.isnan(cell.value):
            return "–"
        error = "" if math.isnan(cell.error) else f" ± {cell.error * scale:.{digits}f}"
        return f"{cell.value * scale:.{digits}f}{error}{sign}"

    @staticmethod
    def _size(row: Mapping[str, Cell]) -> tuple[int, int] | None:
        for cell in row.values():
            if isinstance(cell, Estimate):
                return cell.windows, cell.series
        return None


@dataclass
class Check:
    """One thing that must hold: `value` at most or at least `bar`. `passed` is None where it could not be measured."""

    name: str
    value: float
    bar: float
    at_most: bool = False

    @property
    def passed(self) -> bool | None:
        if math.isnan(self.value) or math.isnan(self.bar):
            return None
        return self.value <= self.bar if self.at_most else self.value >= self.bar


@dataclass
class Report:
    """Tables and checks of one evaluation; `settings` says of what (plain values)."""

    name: str
    title: str
    intro: str
    settings: dict[str, Any]
    tables: list[Table]
    checks: list[Check]

    def table(self, key: str) -> Table:
        """The table of that key. Raises KeyError for another."""
        return {table.key: table for table in self.tables}[key]

    def to_markdown(self) -> str:
        """Everything as a Markdown document; `±` is one bootstrap standard error."""
        parts = [f"## {self.title}", "", self.intro, ""]
        parts += [table.to_markdown() for table in self.tables]
        if self.checks:
            verdict = {True: "yes", False: "**no**", None: "not measured"}
            rows = [
                f"| {check.name} | {check.value:.2f} | {'≤' if check.at_most else '≥'} {check.bar:.2f} "
                f"| {verdict[check.passed]} |"
                for check in self.checks
            ]
            parts += ["### What it must show", "", "| | value | bar | holds |", "|---|---|---|---|", *rows, ""]
        return "\n".join(parts).replace("| nan |", "| – |")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for strict JSON: None for what is not known."""
        return {
            "name": self.name,
            "settings": self.settings,
            "tables": {
                table.key: {row: {c: _plain(cell) for c, cell in cells.items()} for row, cells in table.rows.items()}
                for table in self.tables
            },
            "checks": [
                {
                    "name": c.name,
                    "value": _plain(c.value),
                    "bar": _plain(c.bar),
                    "at_most": c.at_most,
                    "passed": c.passed,
                }
                for c in self.checks
            ],
        }

    def scalars(self) -> dict[str, float]:
        """Every known number by a flat name ("goals/came_true_combinations/steered"), for a logger."""
        named = {}
        for table in self.tables:
            for row, cells in table.rows.items():
                for column, cell in cells.items():
                    value = cell.value if isinstance(cell, Estimate) else cell
                    if not isinstance(value, str) and math.isfinite(value):
                        named["/".join((table.key, _slug(row), _slug(column)))] = float(value)
        return named

    def write(self, folder: str | Path) -> tuple[Path, Path]:
        """Write `<name>.md` and `<name>.json` into a folder (made if need be); returns both paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text, data = folder / f"{self.name}.md", folder / f"{self.name}.json"
        text.write_text(self.to_markdown(), encoding="utf-8")
        data.write_text(
            json.dumps(self.to_dict(), indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        return text, data


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Estimate):
        return cell.to_dict()
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").lower()
