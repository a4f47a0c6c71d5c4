"""Writes the options that were auto into the config of a run, as data and network chose them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from lightning import Callback, LightningModule, Trainer

from gssr.files import atomic_write


class ChosenOptions(Callback):
    """Replaces options of the config ``file`` by those in `chosen` of the data module and of the network.

    So a run that goes on, and a forecast from new rows, do not choose again.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:  # a run that begins anew has written the options of its call
            self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, network: LightningModule) -> None:
        chosen = {"data": getattr(trainer.datamodule, "chosen", None), "model": getattr(network, "chosen", None)}
        if not trainer.is_global_zero or not any(chosen.values()):
            return
        options = yaml.safe_load(before := self.file.read_text(encoding="utf-8"))
        for section, own in chosen.items():
            _put(options[section]["init_args"], own or {})
        text = yaml.safe_dump(options, sort_keys=False, allow_unicode=True)
        if yaml.safe_load(before) != options:
            with atomic_write(self.file) as draft:
                draft.write(text)


def _put(options: dict[str, Any], chosen: dict[str, Any]) -> None:
    for name, value in chosen.items():
        if isinstance(value, dict):
            _put(options.setdefault(name, {}), value)
        else:
            options[name] = value
