"""SIGTERM and Ctrl-C before and after training. While it runs, `callbacks.RunCheckpoints` handles them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM outside of training."""


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """SIGTERM raises `Terminated`, Ctrl-C `KeyboardInterrupt`, even where the parent process had these ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
