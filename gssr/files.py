"""Atomic writing, and how a full disk is recognised. Uses nothing but the standard library."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

DRAFT = ".tmp"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a draft's path beside `path`; what the block puts there, a file or a folder, becomes `path` when it ends.

    An older file of that name stays readable until then. The draft lies in the same folder because a rename is atomic
    only within one file system. After an error the draft is removed; a killed process leaves it, as
    `<name>.<process>.tmp`.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}{DRAFT}")
    if draft.is_dir():  # left by a killed process of the same number
        shutil.rmtree(draft)
    try:
        yield draft
        os.replace(draft, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed write does not name its file
        raise
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that becomes `path` when the block ends, synced to disk; makes missing folders. See `atomic_path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with atomic_path(path) as draft, open(draft, mode, **text) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def memory() -> int:
    """Bytes of memory that this machine has; where the system does not tell, more than any has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 1 << 50


def require_file(path: Path) -> None:
    """As `require_room`, for a file. Raises ValueError where a folder has its name, too."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file")
    require_room(path)


def require_room(path: Path, size: int = 1 << 20, make_folders: bool = False) -> None:
    """Refuse a place to write to before the work is done.

    Args:
        path: a file, new or to be replaced, or a folder.
        size: bytes that are to be written, roughly.
        make_folders: whether the folders above it will be made.

    Raises ValueError: its folder is missing or not writable, `path` is neither file nor folder, or the disk is full.
    """
    folder = path.absolute().parent
    while make_folders and not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise ValueError(f"the folder {folder} of {path} does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{path} cannot be written: the folder {folder} is read-only for you; choose another place")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path} is no file that can be replaced; choose another name")
    if (free := shutil.disk_usage(folder).free) < size:
        raise ValueError(
            f"{path} cannot be written: it needs about {size:,} bytes, and {free:,} are free; make room, or choose "
            "another place"
        )


def disk_full(error: BaseException | None) -> OSError | None:
    """Find the error of a full disk (or quota) in `error` or in what caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
