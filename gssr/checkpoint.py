"""The one door to checkpoint files: written whole with a checksum, read without running anything in them."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from gssr.files import atomic_write, memory

# A zip file ends with a record of 22 bytes and a comment. Ours is the checksum of all bytes before its digits.
_END, _MARK = 22, b"gssr-sha256:"
_COMMENT = len(_MARK) + 64
_SIGNATURE = b"PK\x05\x06"


class DamagedCheckpoint(ValueError):
    """A file that is missing, cut short or altered, or no checkpoint of a training."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file} cannot be read as a checkpoint: {reason}")


def write(checkpoint: Mapping[str, Any], file: Path) -> None:
    """Write the file in one step. Raises OSError when the disk is full; an older file is still there then."""
    # In memory first: the error of torch's zip writer does not show that a disk is full.
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getbuffer()
    assert content[-_END : -_END + 4] == _SIGNATURE
    head = b"".join((content[:-2], struct.pack("<H", _COMMENT), _MARK))
    with atomic_write(file, "wb") as out:
        out.write(head)
        out.write(hashlib.sha256(head).hexdigest().encode())


def read(file: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The contents of the file: tensors and plain values. A file of torch's own writer has weaker checksums.

    Raises:
        DamagedCheckpoint: the file is missing, cut short or altered.
        ValueError: it asks for code.
    """
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):  # opening a pipe would wait for ever
            raise DamagedCheckpoint(file, "it is no file")
        with open(file, "rb") as opened:
            _verify(file, opened)
            opened.seek(0)
            content = torch.load(opened, map_location=map_location, weights_only=True)
    except DamagedCheckpoint:
        raise
    except OSError as error:
        raise DamagedCheckpoint(file, error.strerror or str(error)) from error
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global:?|class|type) (?:GLOBAL )?([\w.]+\.\w+)", str(error))
        raise ValueError(
            f"{file} was not loaded: it asks for {found[1] if found else 'something'}, which is no tensor or plain "
            "value and could run code. Take a checkpoint that this program wrote, from a source that you trust"
        ) from error
    except Exception as error:  # a file that is made up may raise anything
        reason = "" if "weights_only" in str(error) else str(error).split("\n")[0]  # torch's advice is to run it
        raise DamagedCheckpoint(file, f"it is damaged ({reason or type(error).__name__})") from error
    if not isinstance(content, dict):
        raise DamagedCheckpoint(file, f"it holds a {type(content).__name__}")
    return content


def _verify(file: Path, opened: IO[bytes]) -> None:
    """Raises DamagedCheckpoint unless each byte that matters is as it was written."""
    size = os.fstat(opened.fileno()).st_size
    if size > memory():
        raise DamagedCheckpoint(file, f"it has {size:,} bytes, and this machine's memory {memory():,}")
    opened.seek(max(0, size - _END - _COMMENT))
    tail = opened.read()
    if tail[:4] == _SIGNATURE and tail[_END:].startswith(_MARK):
        opened.seek(0)
        digest, left = hashlib.sha256(), size - 64
        while left > 0 and (part := opened.read(min(left, 1 << 20))):
            digest.update(part)
            left -= len(part)
        if digest.hexdigest().encode() != tail[-64:]:
            raise DamagedCheckpoint(file, "it is damaged (its checksum is wrong)")
    elif tail[-_END : -_END + 4] != _SIGNATURE or tail[-2:] != b"\0\0":
        raise DamagedCheckpoint(file, f"it is cut short, or was never one ({size} bytes)")
    with zipfile.ZipFile(opened) as parts:
        entries = parts.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > size:
            raise DamagedCheckpoint(file, "it is no file of torch (its parts are packed or overlap)")
        if parts.testzip() is not None:  # torch itself does not compare the checksums that it writes
            raise DamagedCheckpoint(file, "it is damaged (a checksum is wrong)")
