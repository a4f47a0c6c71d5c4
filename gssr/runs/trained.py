"""Load a trained network from a run's checkpoint."""

from __future__ import annotations

from typing import Any

from gssr.checkpoint import read
from gssr.network import GoalNetwork
from gssr.network.pretrained import build_network
from gssr.runs.folders import find_checkpoint


def load_trained(which: str, run: str | None = None) -> tuple[GoalNetwork, dict[str, Any]]:
    """A trained network in eval mode on the CPU, and the options of the data module of its training.

    The option `step` among them is that of training even where the data module found it by itself.

    Args:
        which: ``best``, ``last`` or the path of a checkpoint.
        run: the run of ``best`` and ``last``; the newest by default.

    Raises:
        ValueError: there is no such checkpoint, it cannot be read, or it holds no goal network.
    """
    file = find_checkpoint(which, run).checkpoint
    saved = read(file)
    if "gssr" not in saved:
        raise ValueError(f"{file} is no checkpoint of a goal network; train one with: python train.py fit")
    network = build_network(GoalNetwork, saved, str(file), {}).eval()
    options = saved.get("datamodule_hyper_parameters") or {}
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise ValueError(f"{file} is damaged: datamodule_hyper_parameters are no options; take another checkpoint")
    step = network.options.values.step
    return network, options if step is None else options | {"step": step}
