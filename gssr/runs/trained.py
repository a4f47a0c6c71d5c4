"""Load a trained network from a run's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gssr.network import GoalNetwork
from gssr.runs.folders import find_checkpoint


def read_checkpoint(file: Path | None) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Raises ValueError for a file that is none; no code in it runs."""
    try:
        return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged or hostile file can raise anything in the unpickler
        raise ValueError(f"{file} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error


def load_trained(which: str, run: str | None = None) -> tuple[GoalNetwork, dict[str, Any]]:
    """A trained network in eval mode on the CPU, and the options of the data module of its training.

    Args:
        which: ``best``, ``last`` or the path of a checkpoint.
        run: The run of ``best`` and ``last``; the newest by default.

    Raises:
        ValueError: There is no such checkpoint, or it is not one of a goal network.
    """
    file = find_checkpoint(which, run).checkpoint
    saved = read_checkpoint(file)
    if "gssr" not in saved:
        raise ValueError(f"{file} is no checkpoint of a goal network; train one with: python train.py fit")
    network = GoalNetwork.load_from_checkpoint(file, map_location="cpu").eval()
    return network, dict(saved.get("datamodule_hyper_parameters", {}))
