"""Trained goal networks as files of numbers and plain values: safetensors and JSON, in a folder or on the hub."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import lightning
from huggingface_hub import constants, snapshot_download
from safetensors import SafetensorError
from safetensors import torch as safetensors

from gssr import __version__
from gssr.files import atomic_write, memory, read_plain
from gssr.network.compatibility import CheckpointMismatch, require_network

WEIGHTS, SETTINGS, CARD, CONFIG = "model.safetensors", "config.json", "README.md", "config.yaml"
FILES = (WEIGHTS, SETTINGS, CARD, CONFIG)
LARGEST = 1 << 22  # bytes of a file of texts
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class Loadable(Protocol):
    """What a network offers to be loaded; see GoalNetwork.of_checkpoint."""

    @classmethod
    def of_checkpoint(cls, options: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> Self: ...

    def eval(self) -> Self: ...


Network = TypeVar("Network", bound=Loadable)


def is_hub_id(place: str | Path) -> bool:
    """Whether a text means ``owner/name`` on the hub: one that has this form, unless such a folder is here."""
    return isinstance(place, str) and bool(_HUB_ID.fullmatch(place)) and not Path(place).exists()


def write_network(checkpoint: Mapping[str, Any], folder: Path, config: bytes | None = None) -> None:
    """Write the trained parts of a Lightning checkpoint to ``folder`` as safetensors, and their options as JSON.

    Optimizer, callbacks and generators stay behind: training cannot go on from there. The JSON holds checksums of the
    weights, of itself and of ``config``, the options of the run.

    Raises:
        ValueError: the checkpoint is not one of a goal network that knows its values, or it is damaged.
    """
    require_network(checkpoint)
    options, own = dict(checkpoint["hyper_parameters"]), checkpoint["gssr"]
    if not options["values"].get("names"):
        raise ValueError("this is no checkpoint of a trained goal network; give one that `python train.py fit` wrote")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint["state_dict"].items()}
    files = {WEIGHTS: safetensors.save(tensors, metadata={"format": "pt"})}
    if config is not None:
        files[CONFIG] = config
    settings: dict[str, Any] = {
        "library": f"gssr {__version__}",
        "class": "gssr.network.GoalNetwork",
        "steps": checkpoint.get("global_step", 0),
        "epochs": checkpoint.get("epoch", 0),
        "backbone": dict(own["backbone"]),
        "hyper_parameters": options,
        "fixed": own["fixed"],
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    settings["sha256"][SETTINGS] = _digest(settings)
    files[SETTINGS] = (json.dumps(settings, indent=1, ensure_ascii=False) + "\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with atomic_write(folder / name, "wb") as file:
            file.write(content)


def read_files(folder: Path) -> dict[str, bytes]:
    """The files of a shared network by name, each as it was pushed. Only links of the hub cache are followed.

    Raises:
        ValueError: files are missing, or are not what was pushed.
    """
    here = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    absent = [name for name in (SETTINGS, WEIGHTS) if name not in here]
    if absent:
        raise ValueError(
            f"{folder} holds no shared goal network: there is no {' and no '.join(absent)}; it holds "
            f"{here[:20] or 'nothing'}"
        )
    try:
        found = {
            name: read_plain(_in_hub_cache(folder / name), memory() if name == WEIGHTS else LARGEST)
            for name in FILES
            if name in here
        }
    except OSError as error:
        raise ValueError(f"{error.filename or folder} cannot be read: {error.strerror or error}") from error
    settings = _settings(found[SETTINGS], folder / SETTINGS)
    sums = settings["sha256"]
    listed = {name for name in (WEIGHTS, CONFIG) if name in found}
    wrong = [name for name in listed if sums.get(name) != hashlib.sha256(found[name]).hexdigest()]
    wrong += sorted(set(sums) - listed - {SETTINGS})
    wrong += [SETTINGS] if sums.get(SETTINGS) != _digest(settings) else []
    if wrong:
        raise ValueError(
            f"the goal network in {folder} is damaged: {', '.join(sorted(wrong))} {'is' if len(wrong) == 1 else 'are'} "
            "not what was pushed; fetch it again"
        )
    return found


def read_network(files: Mapping[str, bytes], folder: Path) -> dict[str, Any]:
    """The files of a shared network as a Lightning checkpoint of the trained parts; nothing in them can run code.

    Args:
        files: from `read_files`. folder: where they lie, for messages.

    Raises:
        ValueError: they are not those of a goal network.
    """
    settings = _settings(files[SETTINGS], folder / SETTINGS)
    try:
        state = safetensors.load(files[WEIGHTS])
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{folder / WEIGHTS} is no file of weights: {error}; fetch it again") from error
    checkpoint = {
        "epoch": settings.get("epochs", 0),
        "global_step": settings.get("steps", 0),
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": state,
        "hyper_parameters": settings.get("hyper_parameters"),
        "gssr": {
            "backbone": settings.get("backbone"),
            "fixed": settings.get("fixed"),
            "library": str(settings.get("library", "an unknown version")),
        },
    }
    try:
        require_network(checkpoint)
    except ValueError as error:
        raise ValueError(f"{folder} does not describe a goal network: {error}") from error
    return checkpoint


def _settings(content: bytes, file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}; fetch it again") from error
    if not isinstance(settings, dict) or not isinstance(settings.get("sha256"), dict):
        raise ValueError(f"{file} does not describe a goal network with checksums; push it again with {__version__}")
    return settings


def _digest(settings: Mapping[str, Any]) -> str:
    """SHA-256 over the contents, with the checksums of the other files and without its own."""
    sums = {name: value for name, value in settings["sha256"].items() if name != SETTINGS}
    return hashlib.sha256(json.dumps({**settings, "sha256": sums}, sort_keys=True).encode()).hexdigest()


def _in_hub_cache(file: Path) -> Path:
    """Where a link of the hub's cache leads: it keeps the files of all revisions of a repository in `blobs`."""
    repository, target = Path(os.path.realpath(file.parent)).parent.parent, Path(os.path.realpath(file))
    is_kept = repository.parent == Path(constants.HF_HUB_CACHE).resolve() and target.parent == repository / "blobs"
    return target if file.is_symlink() and is_kept else file


def fetch(source: str | Path, revision: str | None = None, offline: bool = False) -> Path:
    """The folder of shared files: ``source`` itself, or where the hub cache keeps those of a hub id.

    Raises:
        ValueError: it is not there or cannot be reached.
    """
    if not is_hub_id(source):
        return Path(source)
    try:
        return Path(
            snapshot_download(str(source), revision=revision, local_files_only=offline, allow_patterns=[*FILES])
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
    checkpoint = read_network(read_files(folder), folder)
    given, backbone = checkpoint["hyper_parameters"], checkpoint["gssr"]["backbone"]
    more: dict[str, Any] = {"offline": True} if offline else {}
    if backbone.get("commit") and "name" not in changed.get("backbone", {}):
        more["revision"] = backbone["commit"]  # what a branch meant then
    if more:
        given["backbone"] = dict(given.get("backbone") or {}) | more
    return build_network(kind, checkpoint, str(folder), changed).eval()


def build_network(
    kind: type[Network], checkpoint: Mapping[str, Any], place: str, changed: Mapping[str, Any]
) -> Network:
    """A network of class ``kind`` from a checkpoint that was read from ``place``, with some options ``changed``.

    Raises:
        ValueError: its parts or the backbone cannot be used, or do not fit each other.
    """
    try:
        require_network(checkpoint)
        given = dict(checkpoint["hyper_parameters"])
        for name, value in changed.items():
            given[name] = (given.get(name) or {}) | value if isinstance(value, Mapping) else value
        unknown = sorted(set(given) - set(inspect.signature(kind.__init__).parameters))
        if unknown:
            written = checkpoint["gssr"].get("library", f"another version than {__version__}")
            raise ValueError(f"it was written by {written}; {', '.join(unknown)} is not known here ({__version__})")
        return kind.of_checkpoint(given, checkpoint)
    except CheckpointMismatch as error:
        raise CheckpointMismatch(f"{place}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    except Exception as error:  # options of others may hold anything, and each part fails at them in its own way
        raise ValueError(f"{place} cannot be used: its options do not make a goal network ({error})") from error
