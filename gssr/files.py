"""Atomic writing, reading without following links, and full disks. Uses nothing but the standard library."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

DRAFT = ".tmp"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a draft's path beside `path`; what the block puts there, a file or a folder, becomes `path` when it ends.

    An older file or folder of that name stays as it is until then. The draft lies in the same folder because a rename
    is atomic only within one file system. After an error the draft is removed; a killed process leaves it, as
    `<name>.<process>.tmp`.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}{DRAFT}")
    _remove(draft)  # left by a killed process of the same number, or laid there to be followed
    try:
        yield draft
        if path.is_char_device() or path.is_block_device():
            raise ValueError(f"{path} is a device; choose another name")  # root's rename would put a file in its place
        if draft.is_dir() and path.is_dir():
            _exchange(draft, path)
        else:
            os.replace(draft, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed write does not name its file
        raise
    finally:
        _remove(draft)


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that becomes `path` when the block ends, synced to disk; makes missing folders. See `atomic_path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with atomic_path(path) as draft, open(draft, mode.replace("w", "x"), **text) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def read_plain(path: Path, most: int) -> bytes:
    """The bytes of a file that may come from someone else.

    Raises ValueError for a link (it could lead anywhere), for what is no file (reading it might never end) and for more
    than `most` bytes, and OSError for a file that cannot be read.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a link to {os.readlink(path)!r} and was not followed; put the file itself there")
    # Without waiting: opening a pipe waits for its other end.
    more = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | more)) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError(f"{path} is no file; put a file there")
        if about.st_size > most:
            raise ValueError(f"{path} has {about.st_size:,} bytes; expected at most {most:,}")
        return file.read()


def cache_folder() -> Path:
    """The folder of what is computed once and kept: ``$GSSR_CACHE``, or ``~/.cache/gssr`` by default."""
    return Path(os.environ.get("GSSR_CACHE", Path.home() / ".cache" / "gssr"))


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


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of writing `path` into a ValueError that says what to do."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written: {error.strerror or error}; make room, or choose another place. What was there "
            "before is unchanged"
        ) from error


def disk_full(error: BaseException | None) -> OSError | None:
    """Find the error of a full disk (or quota, or largest file) in `error` or in what caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _exchange(new: Path, old: Path) -> None:
    """Exchange two folders in one step; in two, with `old` missing in between, where the system knows no better."""
    swap = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if swap is not None and swap(here, os.fsencode(new), here, os.fsencode(old), exchange) == 0:
        return
    aside = old.with_name(f"{new.name}.old")
    os.rename(old, aside)
    try:
        os.rename(new, old)
    except OSError:
        os.rename(aside, old)
        raise
    os.rename(aside, new)
