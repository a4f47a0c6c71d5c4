"""Processes that are forked from one that has only imported, and how they end."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.kills.aims import small_groups

PATIENCE = 120.0  # seconds that a process may go on after the other one of its run died


def start(function: Callable[[], Any], folder: Path, env: dict[str, str] | None = None) -> int:
    """The number of a new process that runs a function in a folder, with what it prints in log.txt there."""
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        os.environ |= {"GSSR_CACHE": str(folder / "cache"), **(env or {})}
        small_groups()
        function()
        code = 0
    except SystemExit as stop:
        print(stop.code)
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def ranks(processes: int) -> list[dict[str, str]]:
    """The environment of each process of a run; as a cluster gives it, where there are several."""
    if processes == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**place, "LOCAL_RANK": str(rank)} for rank in range(processes)]


def ended(number: int) -> bool:
    """Whether a process has ended, which stays to be waited for."""
    return os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def finish(numbers: list[int], folder: Path) -> bool:
    """Wait for the processes of a run; True if they ended by themselves, False if one was killed.

    The others of a killed one fail or wait for it; those that wait for long are killed, too. Raises RuntimeError where
    one failed and none was killed.
    """
    deadline: float | None = None
    codes: dict[int, int] = {}
    while len(codes) < len(numbers):
        for number in numbers:
            if number not in codes and ended(number):
                codes[number] = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        killed = -signal.SIGKILL in codes.values()
        if any(codes.values()) and deadline is None:
            deadline = time.monotonic() + PATIENCE
        if deadline is not None and time.monotonic() > deadline:
            for number in set(numbers) - set(codes):
                os.kill(number, signal.SIGKILL)
            deadline = time.monotonic() + PATIENCE
        time.sleep(0.005)
    if not killed and any(codes.values()):
        raise RuntimeError(f"training ended with {sorted(codes.values())}; see {folder / 'log.txt'}")
    return not killed
