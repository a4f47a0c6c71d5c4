"""Tensors and a few strings in a safetensors file with a checksum of its content. Reading executes no code."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gssr.files import atomic_path, memory

T = TypeVar("T")
Tensors = dict[str, Tensor]
# The header of a state with ten thousand layers is smaller.
LARGEST_HEADER = 4 * 2**20
TYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "BOOL": torch.bool,
}


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


def read(path: str | Path, form: str, build: Callable[[Tensors, dict[str, str]], T]) -> T:
    """What ``build`` makes of the tensors and strings of a file that ``write`` wrote as ``form``.

    ``build`` is called twice: with tensors on the meta device, which have no content, before memory is spent on the
    file, and with those of the file. Its ValueError refuses the file.

    Raises ValueError for a missing file, another kind of file, or changed contents.
    """
    _require_small_header(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            if about.get("format") != form:
                found = about.get("format", "other tensors")[:40]
                raise ValueError(f"{path} holds {found!r}, expected {form!r}; write it again")
            names = list(file.keys())
            _build(path, build, {name: _outline(file.get_slice(name)) for name in names}, about)
            # Copies, since the file may be replaced while a mapping of it is in use.
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except (OSError, SafetensorError, RuntimeError, MemoryError) as error:
        reason = str(error).split("\n")[0][:200]
        raise ValueError(f"{path} is damaged or no safetensors file: {reason}; write it again") from error
    if about.pop("digest", None) != _digest(tensors, about):
        raise ValueError(f"{path} is damaged: its contents are not what was written; write it again")
    return _build(path, build, tensors, about)


def _build(
    path: str | Path, build: Callable[[Tensors, dict[str, str]], T], tensors: Tensors, about: dict[str, str]
) -> T:
    try:
        return build(tensors, about)
    except ValueError as error:
        raise ValueError(f"{path} is not a state that can be used: {error}") from error


def _require_small_header(path: Path) -> None:
    """Refuse what is no plain file and what would take more memory to read than there is."""
    if os.path.islink(path):
        raise ValueError(f"{path} is a link, which is not followed; give the file itself")
    if not os.path.exists(path):
        raise ValueError(f"there is no file {path}; give one that gssr wrote")
    if not os.path.isfile(path):
        raise ValueError(f"{path} is no file; give a file that gssr wrote")
    try:
        with open(path, "rb") as file:
            size, header = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if size > memory():
        raise ValueError(f"{path} has {size:,} bytes, more than the memory of this machine ({memory():,})")
    if header > min(LARGEST_HEADER, size):
        raise ValueError(
            f"{path} is damaged or no safetensors file: it declares a header of {header:,} bytes and has {size:,}"
        )


def _outline(entry: object) -> Tensor:
    """A tensor without content, of the type and shape that a file declares."""
    kind, shape = entry.get_dtype(), entry.get_shape()  # type: ignore[attr-defined]
    if kind not in TYPES:
        raise RuntimeError(f"it holds numbers of type {kind}, expected {', '.join(TYPES)}")
    return torch.empty(shape, dtype=TYPES[kind], device="meta")


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """SHA-256 over strings, names, types, shapes and bytes."""
    digest = hashlib.sha256(repr(sorted(about.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
