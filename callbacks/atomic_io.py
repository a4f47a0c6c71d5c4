"""Checkpoint files that are complete or absent, and that hold only plain types and tensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from gssr.checkpoint import read, write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a draft beside the target, then renames it: the older file stays readable until then.

    Lightning writes to the system's temporary folder and moves the file from there. Between two file systems that is a
    copy, which a kill can cut short.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Raises OSError when the disk is full; the older file is still there then."""
        if storage_options is not None:
            raise TypeError(f"{type(self).__name__} knows no storage_options, got {storage_options!r}")
        write(checkpoint, Path(path))

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Reads only tensors and plain values, unless `weights_only` is False, so that a checkpoint cannot run code."""
        if weights_only is False:
            return super().load_checkpoint(path, map_location, weights_only=False)
        return read(Path(path), map_location)
