"""A disk that is full for chosen files."""

import errno
import os
from pathlib import Path

import pytest


class FullDisk:
    """Fails as a full disk does where a file is synced whose name contains `of`; None: there is room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, of: str | None = "") -> None:
        self.of, self._sync = of, os.fsync
        monkeypatch.setattr(os, "fsync", self._fail)

    def _fail(self, descriptor: int) -> None:
        if self.of is not None and self.of in Path(f"/proc/self/fd/{descriptor}").resolve().name:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._sync(descriptor)
