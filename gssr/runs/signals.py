"""What SIGTERM and Ctrl-C do before training begins and after it ends; while it runs, `callbacks.RunCheckpoints` listens."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM while there was nothing to finish first."""


@contextmanager
def signals_end_with_a_word() -> Iterator[None]:
    """SIGTERM ends the process as Ctrl-C does, with a word about how to go on, and Ctrl-C does even where a shell had it ignored."""
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
