"""Trained goal networks as files of numbers and plain values: safetensors and JSON, in a folder or on the hub."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import lightning
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gssr import __version__

WEIGHTS, SETTINGS, CARD = "model.safetensors", "config.json", "README.md"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_KEYS = ("hyper_parameters", "backbone", "fixed")
Network = TypeVar("Network", bound=lightning.LightningModule)


def is_hub_id(place: str | Path) -> bool:
    """Whether a text means ``owner/name`` on the hub: one that has this form, unless such a folder is here."""
    return isinstance(place, str) and bool(_HUB_ID.fullmatch(place)) and not Path(place).exists()


def write_network(checkpoint: Mapping[str, Any], folder: Path) -> None:
    """Write the trained parts of a Lightning checkpoint to ``folder`` as safetensors, and their options as JSON.

    Optimizer, callbacks and generators stay behind: training cannot go on from there.

    Raises:
        ValueError: the checkpoint is not one of a goal network that knows its values.
    """
    backbone = checkpoint.get("gssr", {}).get("backbone")
    options = dict(checkpoint.get("hyper_parameters", {}))
    if backbone is None or not options.get("values", {}).get("names"):
        raise ValueError("this is no checkpoint of a trained goal network; give one that `python train.py fit` wrote")
    settings = {
        "library": f"gssr {__version__}",
        "class": "gssr.network.GoalNetwork",
        "steps": checkpoint.get("global_step", 0),
        "epochs": checkpoint.get("epoch", 0),
        "backbone": dict(backbone),
        "hyper_parameters": options,
        "fixed": checkpoint["gssr"]["fixed"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint["state_dict"].items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def read_network(folder: Path) -> dict[str, Any]:
    """A folder of ``write_network`` as a Lightning checkpoint of the trained parts; nothing in it can run code.

    Raises:
        ValueError: files are missing, damaged, or not those of a goal network.
    """
    files = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    absent = [name for name in (SETTINGS, WEIGHTS) if name not in files]
    if absent:
        raise ValueError(
            f"{folder} holds no shared goal network: there is no {' and no '.join(absent)}; it holds "
            f"{files or 'nothing'}"
        )
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        state = load_file(folder / WEIGHTS)
    except (ValueError, OSError, SafetensorError) as error:
        raise ValueError(f"the goal network in {folder} is damaged: {error}; fetch it again") from error
    if not isinstance(settings, dict) or not all(isinstance(settings.get(key), dict) for key in _KEYS):
        raise ValueError(f"{folder / SETTINGS} does not describe a goal network: it lacks {' or '.join(_KEYS)}")
    given = settings["hyper_parameters"]
    return {
        "epoch": int(settings.get("epochs", 0)),
        "global_step": int(settings.get("steps", 0)),
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": state,
        "hyper_parameters": given,
        "gssr": {
            "backbone": settings["backbone"],
            "fixed": settings["fixed"],
            "library": settings.get("library", "an unknown version"),
        },
    }


def fetch(source: str | Path, revision: str | None = None, offline: bool = False) -> Path:
    """The folder of shared files: ``source`` itself, or where the hub cache keeps those of a hub id.

    Raises:
        ValueError: it is not there or cannot be reached.
    """
    if not is_hub_id(source):
        return Path(source)
    patterns = [WEIGHTS, SETTINGS, CARD, "config.yaml"]
    try:
        return Path(
            snapshot_download(str(source), revision=revision, local_files_only=offline, allow_patterns=patterns)
        )
    except Exception as error:  # of the hub's client, of its HTTP library or of the socket
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"the goal network {source!r} could not be fetched from the hub: {reason}\nCheck the spelling of id and "
            "revision and the network; private ones need `hf auth login`; a local folder must exist"
        ) from error


def load_network(
    kind: type[Network], source: str | Path, revision: str | None, offline: bool, changed: Mapping[str, Any]
) -> Network:
    """A network of class ``kind`` from shared files; see GoalNetwork.from_pretrained."""
    folder = fetch(source, revision, offline)
    checkpoint = read_network(folder)
    given, backbone = checkpoint["hyper_parameters"], checkpoint["gssr"]["backbone"]
    moved = changed.get("backbone", {})
    if offline:
        given["backbone"] = given["backbone"] | {"offline": True}
    if backbone.get("commit") and "name" not in moved:
        given["backbone"] = given["backbone"] | {"revision": backbone["commit"]}  # what a branch meant then
    for name, value in changed.items():
        given[name] = given[name] | value if isinstance(value, Mapping) else value
    unknown = sorted(set(given) - set(inspect.signature(kind.__init__).parameters))
    if unknown:
        written = checkpoint["gssr"]["library"]
        raise ValueError(f"{folder} was written by {written}; {', '.join(unknown)} is not known here ({__version__})")
    network = kind(**given)
    network.on_load_checkpoint(checkpoint)
    try:
        network.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"the weights in {folder} do not fit what its {SETTINGS} says: {error}") from error
    return network.eval()
