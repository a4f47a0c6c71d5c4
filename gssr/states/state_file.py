"""Tensors and a few strings in a safetensors file with a checksum of its content. Reading executes no code."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gssr.files import atomic_path


def write(path: str | Path, form: str, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write a file in one step: an interruption leaves no partial file. ``form`` names the kind of file.

    Raises ValueError if the file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {**about, "format": form}
    try:
        # Makes no folder: the user names it, and a mistyped one should be an error.
        with atomic_path(Path(path)) as draft:
            save_file(tensors, draft, metadata={**about, "digest": _digest(tensors, about)})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be written: {error}") from error


def read(path: str | Path, form: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and strings of a file that ``write`` wrote as ``form``.

    Raises ValueError for a missing file, another kind of file, or changed contents.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            # Copies, since the file may be replaced while a mapping of it is in use.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {path}; give one that gssr wrote") from error
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    if about.get("format") != form:
        raise ValueError(f"{path} holds {about.get('format', 'other tensors')!r}, expected {form!r}; write it again")
    if about.pop("digest", None) != _digest(tensors, about):
        raise ValueError(f"{path} is damaged: its contents are not what was written; write it again")
    return tensors, about


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """SHA-256 over strings, names, types, shapes and bytes."""
    digest = hashlib.sha256(repr(sorted(about.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
