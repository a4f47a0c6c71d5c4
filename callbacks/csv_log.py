"""`metrics.csv` of a run: one row a step, written at once, and continued when the run is resumed."""

from __future__ import annotations

import csv
import itertools
import math
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor

from gssr.files import atomic_write, memory, read_plain

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
        columns = self._columns or self._open()
        last = self._row.get("step", -1)
        step = last + 1 if step is None else step
        again, before = step == last, self._row
        new = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        self._row = (before if again else {"step": step}) | new
        if again and str(self._row) == str(before):  # as text, where 1 and 1.0 differ and NaN is NaN
            return
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
        """Read the file and drop the rows that are made again. Not earlier, since a resume may be refused before.

        The last row is filled further where its step is logged again: a run that was killed as it ended had no time to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = self._read()
        columns = _ordered({name for row in rows for name in row} | {"step"})
        if self.resume_step is not None:
            rows = [row for row in rows if float(row["step"]) < self.resume_step]
        self._rewrite(columns, rows[:-1], *rows[-1:])
        if rows:
            self._row = {name: cell for name, cell in rows[-1].items() if cell} | {"step": int(float(rows[-1]["step"]))}
        return columns

    def _read(self) -> list[dict[str, str]]:
        """The rows that can be read. Where some cannot, the file is kept beside, as it was, and a warning names it."""
        try:
            content = read_plain(self.file, memory())
        except FileNotFoundError:
            return []
        except (ValueError, OSError) as error:  # a link, a folder, a file of somebody else
            kept = self._free_name()
            os.replace(self.file, kept)
            rank_zero_warn(f"{self.file} could not be read and begins anew ({error}); what was there is now {kept}")
            return []
        lines = content.splitlines(keepends=True)
        if lines and not lines[-1].endswith((b"\n", b"\r")) and self._is_made_again(lines[-1], len(lines)):
            del lines[-1]  # a killed run left it unfinished
        columns, *found = [cells for line in lines if (cells := _cells(line)) != []] or [None]
        if columns is not None and ("step" not in columns or len(set(columns)) < len(columns)):
            columns = None
        rows = [
            dict(zip(columns, cells, strict=True))
            for cells in (found if columns is not None else [])
            if cells is not None and len(cells) == len(columns) and _is_number(cells[columns.index("step")])
        ]
        if len(rows) < len(found) or (columns is None and lines):
            kept = self._free_name()
            with atomic_write(kept, "wb") as file:
                file.write(content)
            lost = f"{'' if columns else 'the header and '}{len(found) - len(rows)} of {len(found)} rows"
            rank_zero_warn(
                f"{self.file}: {lost} could not be read; they are left out, and the file as it was is now {kept}"
            )
        return rows

    def _is_made_again(self, line: bytes, number: int) -> bool:
        """Whether the unfinished last line is a header without rows, or a row of a step that this run makes again."""
        cells = _cells(line)
        if not cells or number == 1:
            return cells is not None
        made_again = self.resume_step is not None and _is_number(cells[0]) and float(cells[0]) >= self.resume_step
        return len(cells) > 1 and made_again

    def _free_name(self) -> Path:
        names = (self.folder / f"metrics.damaged-{n}.csv" for n in itertools.count(1))
        return next(name for name in names if not os.path.lexists(name))

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


def _cells(line: bytes) -> list[str] | None:
    """The cells of a line, [] of an empty one, None where it cannot be read. Line by line, so that one quotation mark
    too many costs one row and not all that follow."""
    try:
        return next(csv.reader([line.decode("utf-8").rstrip("\r\n")], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return None


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
