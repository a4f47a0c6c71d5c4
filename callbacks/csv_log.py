"""`metrics.csv` of a run: one row a step, written as it comes, continued (never erased) when the run is resumed."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

_FIRST = ("step", "epoch")


class CsvLog(Logger):
    """Scalars in `folder/metrics.csv`, hyper-parameters in `folder/hparams.yaml`.

    Everything logged at one step shares a row; what was not logged there is empty. A new name becomes a new column of the whole
    file. Lightning's own CSV logger deletes the file of a run that is resumed; this one keeps it.

    Args:
        folder: where the files go.
        resume_step: number of optimizer steps already done in this folder. Rows from here on are of steps that are about
            to be made again, and give way to the new ones. None keeps every row.
    """

    def __init__(self, folder: str | os.PathLike[str], resume_step: int | None = None) -> None:
        super().__init__()
        self.folder, self.resume_step = Path(folder), resume_step
        self._row: dict[str, Any] = {}
        self._columns: list[str] | None = None

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
        step = self._row.get("step", -1) + 1 if step is None else step
        if self._row.get("step", step) != step:
            self.flush()
        self._row["step"] = step
        self._row.update(
            {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        )

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace | None = None, *args: Any, **kwargs: Any) -> None:
        params = vars(params) if isinstance(params, Namespace) else dict(params or {})
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "hparams.yaml", "w", encoding="utf-8") as file:
            yaml.safe_dump({name: _plain(value) for name, value in params.items()}, file, sort_keys=True)

    def save(self) -> None:
        """Nothing: Lightning calls this after every single log, and a row is whole when the next step begins."""

    @rank_zero_only
    def flush(self) -> None:
        """Write the row that is being filled; what comes for the same step later makes a row of its own."""
        if not self._row:
            return
        columns = self._known_columns()
        if set(self._row) - set(columns):
            self._rewrite(_ordered({*columns, *self._row}), self._read())
        with open(self.file, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._known_columns()).writerow(self._row)
        self._row = {}

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """What a checkpoint has seen is on disk when the checkpoint is."""
        self.flush()

    def _known_columns(self) -> list[str]:
        if self._columns is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            rows = self._read()
            if self.resume_step is not None:
                kept = [row for row in rows if int(float(row["step"])) < self.resume_step]
            else:
                kept = rows
            self._rewrite(_ordered({name for row in rows for name in row} | {"step"}), kept)
        assert self._columns is not None
        return self._columns

    def _read(self) -> list[dict[str, str]]:
        if not self.file.exists():
            return []
        with open(self.file, newline="", encoding="utf-8") as file:
            # A row without a step is the torn last line of a run that was killed while it wrote.
            return [row for row in csv.DictReader(file) if None not in row and None not in row.values() and row["step"]]

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        draft = self.file.with_suffix(".tmp")
        with open(draft, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(draft, self.file)
        self._columns = columns


def _ordered(names: set[str]) -> list[str]:
    return [name for name in _FIRST if name in names] + sorted(names - set(_FIRST))


def _plain(value: Any) -> Any:
    """What YAML can hold; everything else as text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
