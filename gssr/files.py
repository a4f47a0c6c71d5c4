"""Files that are either whole or not there, and what a full disk looks like.

Nothing but the standard library is used here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

DRAFT = ".tmp"


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """What is written in the block becomes `path` at its end; an older file of that name stays readable until then.

    The draft lies beside it, so that it takes the name at once (between two file systems that would be a copy, which can be cut
    short), and is gone after an error. A process that is killed leaves its draft, `<name>.<process>.tmp`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}{DRAFT}")
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with open(draft, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a write that fails does not say where
        raise
    finally:
        draft.unlink(missing_ok=True)


def disk_full(error: BaseException | None) -> OSError | None:
    """The error of a disk without room (or quota) for what was written, where that is what `error` is or comes from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
