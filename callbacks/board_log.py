"""Scalars for TensorBoard."""

from __future__ import annotations

from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor


class BoardLog(TensorBoardLogger):
    """Writes a figure of a step once: the figures of a step that is saved are logged before the save, and by Lightning behind it."""

    _step: int | None = None
    _told: frozenset[str] = frozenset()

    def log_metrics(self, metrics: dict[str, float | Tensor], step: int | None = None) -> None:
        if step is None or step != self._step:
            self._step, self._told = step, frozenset()
        new = {name: value for name, value in metrics.items() if name not in self._told}
        self._told |= new.keys()
        super().log_metrics(new, step)
