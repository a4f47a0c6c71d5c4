"""Run one command without a shell: limits, a clean environment, and no network where the machine allows it."""

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from gssr.reasoning.tools import launch
from gssr.reasoning.tools.toolbox import PROGRAMS, Limits

Isolation = Literal["bubblewrap", "namespaces", "none"]
Ended = Literal["done", "time", "output"]
NAMESPACES = ("--user", "--map-current-user", "--net", "--ipc", "--pid", "--fork", "--kill-child")


class Result(NamedTuple):
    """What a command wrote, cut to the limit; how it ended: done, or the limit that ended it."""

    output: str
    code: int
    ended: Ended
    seconds: float


@cache
def isolation() -> Isolation:
    """How commands are kept off the network and from other processes on this machine, found by trying.

    bubblewrap: all files but the working folder are read-only, too. namespaces: no network, own processes.
    none: neither; limits and the allow-list alone hold.
    """
    true, place = shutil.which("true", path=PROGRAMS), Path(tempfile.gettempdir()).resolve()
    for kind in get_args(Isolation)[:-1]:
        if true and _prefix(kind, place) and run((true,), place, Limits(), kind).code == 0:
            return kind
    return "none"


def run(command: tuple[str, ...], folder: Path, limits: Limits, kept: Isolation | None = None) -> Result:
    """Run a command, its program's absolute path first, in a folder.

    Args:
        kept: how it is isolated; by default as well as the machine can.
    """
    kept = isolation() if kept is None else kept
    numbers = (int(limits.seconds) + 1, limits.memory_mb * 2**20, limits.file_mb * 2**20, _tasks() + limits.processes)
    words = [sys.executable, "-I", "-S", launch.__file__, ",".join(map(str, numbers)), *_prefix(kept, folder), *command]
    clean = {"PATH": PROGRAMS, "HOME": str(folder), "LANG": "C.UTF-8"}
    began = time.monotonic()
    process = subprocess.Popen(
        words, cwd=folder, env=clean, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, ended = _collect(process, began + limits.seconds, limits.output_kb * 1024)
    finally:
        _end(process)
    text = output.decode("utf-8", "replace")
    return Result(text, process.returncode, ended, time.monotonic() - began)


def _prefix(kind: Isolation, folder: Path) -> tuple[str, ...]:
    """Words in front of a command that isolate it; none where their program is missing."""
    program = shutil.which({"bubblewrap": "bwrap", "namespaces": "unshare"}.get(kind, ""), path=PROGRAMS)
    if program is None:
        return ()
    if kind == "namespaces":
        return (program, *NAMESPACES)
    files = ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", str(folder), str(folder))
    return (program, "--unshare-all", "--die-with-parent", "--new-session", *files, "--chdir", str(folder))


def _collect(process: subprocess.Popen[bytes], deadline: float, most: int) -> tuple[bytes, Ended]:
    """What a process writes until it ends, the deadline, or ``most`` bytes."""
    found = b""
    assert process.stdout is not None
    with process.stdout as pipe, selectors.DefaultSelector() as ready:
        os.set_blocking(pipe.fileno(), False)
        ready.register(pipe, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return found, "time"
            has_ended = process.poll() is not None
            # A process that it left behind may keep the pipe open for ever.
            if not ready.select(0 if has_ended else min(left, 0.05)):
                if has_ended:
                    return found, "done"
                continue
            piece = pipe.read(most + 1 - len(found))
            if not piece:
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    return found, "time"
                return found, "done"
            found += piece
            if len(found) > most:
                return found[:most], "output"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with its group; namespaces take along what left the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tasks() -> int:
    """Threads that this user runs: the system's limit counts them all."""
    own, count = os.getuid(), 0
    for place in Path("/proc").glob("[0-9]*/task"):
        try:
            count += len(os.listdir(place)) if place.stat().st_uid == own else 0
        except OSError:
            continue
    return count or 4096
