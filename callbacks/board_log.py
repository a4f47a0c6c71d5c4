"""Scalars for TensorBoard."""

from __future__ import annotations

from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor


class BoardLog(TensorBoardLogger):
    """Writes each figure of a step once.

    A step that is saved is logged before the save, and by Lightning once more after it.
    """

    _step: int | None = None
    _written: frozenset[str] = frozenset()

    def log_metrics(self, metrics: dict[str, float | Tensor], step: int | None = None) -> None:
        if step is None or step != self._step:
            self._step, self._written = step, frozenset()
        new = {name: value for name, value in metrics.items() if name not in self._written}
        self._written |= new.keys()
        super().log_metrics(new, step)
