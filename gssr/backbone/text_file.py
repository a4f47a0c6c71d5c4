"""The file of a text table: hashes and features with a checksum. What is not exactly that is refused.

Shapes: N texts, F features of a text.
"""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gssr.files import atomic_write


def write(file: Path, identity: str, hashes: Tensor, states: Tensor) -> None:
    """Replace the file in one step by hashes (N, 2) int64 and states (N, F) float32; ``identity`` names what they are.

    Raises OSError where it cannot be written.
    """
    # One entry, since the order of several is not fixed.
    about = {"digest": _digest(identity, hashes, states)}
    raw = save({"hashes": hashes.contiguous(), "states": states.contiguous()}, about)
    with atomic_write(file, "wb") as draft:
        draft.write(raw)


def read(file: Path, identity: str, width: int) -> tuple[Tensor, Tensor]:
    """Hashes (N, 2) and states (N, F) of a file that ``write`` wrote under this identity; ``width`` is F.

    Raises FileNotFoundError for no file, and ValueError for one that is damaged or something else.
    """
    while True:
        before = _version(file)
        try:
            return _read(file, identity, width)
        except ValueError:
            # safetensors opens a file for its header and for its tensors: another process may replace it in between.
            if _version(file) == before:
                raise


def _version(file: Path) -> tuple[int, int] | None:
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns


def _read(file: Path, identity: str, width: int) -> tuple[Tensor, Tensor]:
    try:
        if not file.is_file():
            if file.is_symlink() or file.exists():
                raise ValueError("it is no file")
            raise FileNotFoundError(file)
        with safe_open(file, framework="pt") as opened:
            about, parts = opened.metadata() or {}, {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            found = {name: (part.get_dtype(), part.get_shape()) for name, part in parts.items()}
            count = found.get("hashes", ("", [0]))[1][:1]
            if found != {"hashes": ("I64", [*count, 2]), "states": ("F32", [*count, width])}:
                raise ValueError(f"it holds {found}")
            # Copies, since the file may be replaced while a mapping of it is in use.
            hashes, states = (opened.get_tensor(name).clone() for name in ("hashes", "states"))
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError, RuntimeError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if about.get("digest") != _digest(identity, hashes, states):
        raise ValueError("its contents are not what was written for this backbone and reading")
    if not states.isfinite().all():
        raise ValueError("it holds states that are not finite")
    return hashes, states


def _digest(identity: str, hashes: Tensor, states: Tensor) -> str:
    """SHA-256 over identity, shapes and bytes."""
    digest = hashlib.sha256(f"{identity}{tuple(hashes.shape)}{tuple(states.shape)}".encode())
    for tensor in (hashes, states):
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
