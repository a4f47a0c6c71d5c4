"""`metrics.csv` of a run: one row a step, written at once, and continued when the run is resumed."""

from __future__ import annotations

import csv
import io
import math
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor

from gssr.files import atomic_write

_FIRST = ("step", "epoch")


class CsvLog(Logger):
    """Scalars in `folder/metrics.csv`, hyper-parameters in `folder/hparams.yaml`.

    All scalars of a step share a row; a scalar that was not logged there is empty. A new name becomes a new column of
    the file. Lightning's own CSV logger deletes the file of a resumed run; this one keeps it.

    Args:
        folder: where the files go.
        resume_step: number of optimizer steps already done in this folder. Rows from this step on are dropped, since
            these steps are made again. None keeps every row.
    """

    def __init__(self, folder: str | os.PathLike[str], resume_step: int | None = None) -> None:
        super().__init__()
        self.folder, self.resume_step = Path(folder), resume_step
        self._row: dict[str, Any] = {}
        self._columns: list[str] | None = None
        self._end = 0  # where the row that is being filled begins in the file

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    @property
    def log_dir(self) -> str:
        return str(self.folder)

    @property
    def file(self) -> Path:
        return self.folder / "metrics.csv"

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float | Tensor], step: int | None = None) -> None:
        """Add to the row of a step, or begin it. A kill can tear a new row, not one that a saved state relies on."""
        last = self._row.get("step", -1)
        step = last + 1 if step is None else step
        again, before = step == last, self._row
        new = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        self._row = (before if again else {"step": step}) | new
        if again and str(self._row) == str(before):  # as text, where 1 and 1.0 differ and NaN is NaN
            return
        columns = self._columns or self._open()
        if set(self._row) - set(columns):
            rows = self._read()
            self._rewrite(_ordered({*columns, *self._row}), rows[:-1] if again else rows, self._row)
        elif again:
            rows_before = self.file.read_bytes()[: self._end].decode("utf-8")
            with atomic_write(self.file) as file:
                file.write(rows_before)
                csv.DictWriter(file, columns).writerow(self._row)
        else:
            self._end = self.file.stat().st_size
            with open(self.file, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, columns).writerow(self._row)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace | None = None, *args: Any, **kwargs: Any) -> None:
        params = vars(params) if isinstance(params, Namespace) else dict(params or {})
        with atomic_write(self.folder / "hparams.yaml") as file:
            yaml.safe_dump({name: _plain(value) for name, value in params.items()}, file, sort_keys=True)

    def _open(self) -> list[str]:
        """Read the file and drop the rows that are made again. Not earlier, since a resume may be refused before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = self._read()
        columns = _ordered({name for row in rows for name in row} | {"step"})
        if self.resume_step is not None:
            rows = [row for row in rows if float(row["step"]) < self.resume_step]
        self._rewrite(columns, rows)
        return columns

    def _read(self) -> list[dict[str, str]]:
        """The complete rows. Text behind the last line's end is a row that a killed run left unfinished."""
        if not self.file.exists():
            return []
        text = self.file.read_bytes().decode("utf-8", "replace")
        found = list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
        rows = [row for row in found if None not in row and None not in row.values() and _is_number(row.get("step"))]
        if len(rows) < len(found):
            rank_zero_warn(
                f"{self.file}: {len(found) - len(rows)} of {len(found)} rows could not be read; they are left out"
            )
        return rows

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]], last: dict[str, Any] | None = None) -> None:
        with atomic_write(self.file) as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
            self._end = file.tell()
            if last is not None:
                writer.writerow(last)
        self._columns = columns


def _ordered(names: set[str]) -> list[str]:
    return [name for name in _FIRST if name in names] + sorted(names - set(_FIRST))


def _is_number(text: str | None) -> bool:
    try:
        return text is not None and math.isfinite(float(text))
    except ValueError:
        return False


def _plain(value: Any) -> Any:
    """Plain values as they are, anything else as text, since YAML holds nothing else."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
