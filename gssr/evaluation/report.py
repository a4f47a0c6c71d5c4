"""Reports: tables of estimates, the bars that they must clear, and pictures, as Markdown, JSON and scalars."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gssr import shown
from gssr.evaluation.intervals import Estimate
from gssr.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell = Estimate | float | str


@dataclass
class Table:
    """Rows of named cells.

    Numbers are written as percentages where `unit` is "%", and else as they are with `digits` behind the point; `units`
    overrides it for single columns. Rows with Estimates also show the windows and series of the first one. `note` is
    Markdown; all other words show as they stand.
    """

    key: str
    title: str
    note: str
    rows: dict[str, dict[str, Cell]]
    unit: str = ""
    digits: int = 2
    units: Mapping[str, str] = field(default_factory=dict)

    def to_markdown(self) -> str:
        columns = list(dict.fromkeys(column for row in self.rows.values() for column in row))
        estimates = {name: [c for c in row.values() if isinstance(c, Estimate)] for name, row in self.rows.items()}
        sizes = {name: (found[0].windows, found[0].series) if found else None for name, found in estimates.items()}
        counted = any(sizes.values())
        head = ["", *map(shown.markdown, columns), *(["windows", "series"] if counted else [])]
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for name, row in self.rows.items():
            cells = [self._write(row[column], column) if column in row else "" for column in columns]
            cells += [str(n) for n in sizes[name] or ("", "")] if counted else []
            lines.append("| " + " | ".join([shown.markdown(name), *cells]) + " |")
        note = [self.note, ""] if self.note else []
        if not self.rows:
            lines = ["Nothing was measured."]
        return "\n".join([f"### {shown.markdown(self.title)}", "", *note, *lines, ""])

    def _write(self, cell: Cell, column: str) -> str:
        if isinstance(cell, str):
            return shown.markdown(cell)
        unit = self.units.get(column, self.unit)
        scale, digits, sign = (100, 1, " %") if unit == "%" else (1, self.digits, "")
        value, error = (cell.value, cell.error) if isinstance(cell, Estimate) else (cell, math.nan)
        if math.isnan(value):
            return "–"
        spread = "" if math.isnan(error) else f" ± {error * scale:.{digits}f}"
        return f"{value * scale:.{digits}f}{spread}{sign}"


@dataclass
class Check:
    """A requirement: `value` is at least `bar`, or with `at_most` no more than it. `passed` is None if not measured."""

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
    """Tables, checks and pictures of one evaluation.

    `intro` is Markdown; `settings`: plain values that describe what was evaluated; `pictures`: matplotlib figures by
    caption.
    """

    name: str
    title: str
    intro: str
    settings: dict[str, Any]
    tables: list[Table]
    checks: list[Check]
    pictures: Mapping[str, Figure] = field(default_factory=dict)

    def table(self, key: str) -> Table:
        """The table of that key. Raises KeyError for another."""
        return {table.key: table for table in self.tables}[key]

    def to_markdown(self) -> str:
        """Everything as a Markdown document; `±` is one standard error."""
        parts = [f"## {shown.markdown(self.title)}", "", self.intro, ""]
        parts += [table.to_markdown() for table in self.tables]
        if self.checks:
            verdict = {True: "yes", False: "**no**", None: "not measured"}
            rows = [
                f"| {shown.markdown(check.name)} | {check.value:.2f} | {'≤' if check.at_most else '≥'} {check.bar:.2f} "
                f"| {verdict[check.passed]} |"
                for check in self.checks
            ]
            parts += ["### What it must show", "", "| | value | bar | holds |", "|---|---|---|---|", *rows, ""]
        for caption in self.pictures:
            parts += [f"![{shown.markdown(caption)}]({self._file(caption)})", ""]
        return "\n".join(parts).replace("| nan |", "| – |")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for strict JSON; None stands for unknown numbers."""
        return {
            "name": self.name,
            "settings": self.settings,
            "tables": {
                table.key: {row: {c: _plain(cell) for c, cell in cells.items()} for row, cells in table.rows.items()}
                for table in self.tables
            },
            "checks": [
                asdict(check) | {"value": _plain(check.value), "bar": _plain(check.bar), "passed": check.passed}
                for check in self.checks
            ],
        }

    def write(self, folder: str | Path) -> tuple[Path, Path]:
        """Write `<name>.md`, `<name>.json` and the pictures beside them into a folder, made where it is missing.

        Returns the paths of the first two.
        """
        folder = Path(folder)
        text, data = folder / f"{self.name}.md", folder / f"{self.name}.json"
        numbers = json.dumps(self.to_dict(), indent=1, allow_nan=False, ensure_ascii=False)
        for path, content in ((text, self.to_markdown()), (data, f"{numbers}\n")):
            with atomic_write(path) as file:
                file.write(content)
        for caption, picture in self.pictures.items():
            from gssr.evaluation.fan_chart import save  # matplotlib is slow to import, and data modules import this

            save(picture, folder / self._file(caption))
        return text, data

    def _file(self, caption: str) -> str:
        """The file name of a picture."""
        return f"{self.name}_{shown.file_name(caption).lower()}.png"


def digits_for(size: float, figures: int = 3, least: int = 0, most: int = 12) -> int:
    """Digits behind the point that show so many figures of a number of this size; 2 for 0 and for NaN.

    Never fewer than `least` nor more than `most`.
    """
    if not (math.isfinite(size) and size > 0):
        return 2
    return min(most, max(least, figures - 1 - math.floor(math.log10(size))))


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Estimate):
        return cell.to_dict()
    if isinstance(cell, str):
        return cell
    return float(cell) if math.isfinite(cell) else None  # float: JSON refuses numbers of numpy
