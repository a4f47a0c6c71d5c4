"""Planners beside a text: none of them makes it wait.

`SeededPlanner` works in this process and answers after a fixed number of tokens, so that all is reproducible.
`WorkerPlanner` has a process and a model of its own. It is given one snapshot at a time, only while it is idle, by a
thread; whether it is slow, hung or killed, the text goes on, and only plans are missing. Where both want one core, the
text gets it.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from tqdm import tqdm

from gssr.backbone import FrozenBackbone
from gssr.backbone.config import BackboneConfig
from gssr.search.decoding.lookahead import Lookahead, Request, Search
from gssr.search.decoding.plans import Plan
from gssr.search.decoding.rows import Decoding
from gssr.search.decoding.select import Value
from gssr.states.hybrid_state import from_file, to_file
from gssr.states.rules import Rule


class Planner(Protocol):
    """Takes snapshots and gives plans, both without waiting."""

    def is_idle(self) -> bool:
        """Whether it would take a snapshot now."""

    def ask(self, request: Request) -> None:
        """Begin to plan from a snapshot."""

    def plans(self, position: int) -> list[Plan]:
        """What has come since the last call; ``position`` tokens are written."""


class SeededPlanner:
    """Answers when ``lag`` tokens more are written than the snapshot has.

    Args:
        lag: up to the ``ahead`` of the search, plans come in time; above, all come too late.
    """

    def __init__(self, search: Search, lag: int) -> None:
        if lag < 0:
            raise ValueError(f"a lag of {lag} tokens; expected none below 0")
        self.search, self.lag, self._request = search, lag, None

    def is_idle(self) -> bool:
        return self._request is None

    def ask(self, request: Request) -> None:
        self._request: Request | None = request

    def plans(self, position: int) -> list[Plan]:
        if self._request is None or position < self._request.written + self.lag:
            return []
        plan, self._request = self.search.plan(self._request), None
        return [] if plan is None else [plan]


@dataclass(frozen=True)
class Job:
    """What a worker is told once; all of it can be pickled.

    Args:
        value: makes the value of rows for the worker's own model.
    """

    backbone: BackboneConfig
    options: Lookahead
    decoding: Decoding
    value: Callable[[FrozenBackbone], Value]
    rules: tuple[Rule, ...] = ()


class WorkerPlanner:
    """A process that plans; use it as a context, or call ``close``.

    Attributes:
        failure: why the worker ended, if it did; empty otherwise.
    """

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, job), daemon=True, name="gssr planner")
        self.process.start()
        theirs.close()
        self.failure = ""
        self._is_busy, self._came = True, []  # busy until it has loaded its model
        self._is_ready = False

    def wait(self, seconds: float) -> bool:
        """Wait until the worker has loaded its model, before a text begins; False if it does not in time."""
        until = time.monotonic() + seconds
        while not self._is_ready and not self.failure and (left := until - time.monotonic()) > 0:
            if self._poll(min(left, 0.1)):
                self._receive()
        return self._is_ready

    def is_idle(self) -> bool:
        return not self._is_busy and not self.failure

    def ask(self, request: Request) -> None:
        self._is_busy = True
        # Sending blocks while the worker does not read.
        threading.Thread(target=self._send, args=(request,), daemon=True).start()

    def plans(self, position: int) -> list[Plan]:
        while self._poll(0):
            self._receive()
        came, self._came = self._came, []
        return came

    def close(self) -> None:
        """End the worker at once, whatever it does."""
        self.process.kill()
        self.process.join()
        self._connection.close()

    def __enter__(self) -> WorkerPlanner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, request: Request) -> None:
        try:
            self._connection.send(packed(request))
        except (OSError, ValueError):
            self.failure = self.failure or "the worker was ended"

    def _poll(self, seconds: float) -> bool:
        try:
            return not self.failure and self._connection.poll(seconds)
        except (OSError, EOFError):
            self.failure = self.failure or "the worker was ended"
            return False

    def _receive(self) -> None:
        try:
            kind, content = self._connection.recv()
        except (OSError, EOFError):
            self.failure = "the worker was ended"
            return
        self._is_busy = False
        if kind == "failed":
            self.failure = content
        elif kind == "ready":
            self._is_ready = True
        elif content is not None:
            self._came.append(content)


Message = tuple[bytes, dict[str, str], int, tuple[int, ...]]


def packed(request: Request) -> Message:
    """A snapshot as bytes and plain values, for the worker."""
    tensors, about = to_file(request.state)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save_bytes({**tensors, "generator": request.generator.cpu()})
    return content, about, request.written, request.coming


def _unpacked(message: Message, backbone: FrozenBackbone) -> Request:
    content, about, written, coming = message
    tensors = load_bytes(content)
    generator = tensors.pop("generator")
    return Request(from_file(tensors, about, backbone), written, generator, coming)


def give_way() -> None:
    """Let the text have the processor where there is none to spare: this process takes the lowest priority."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(19)


def _serve(connection: Connection, job: Job) -> None:
    """The worker: loads its model, and answers each snapshot with a plan or None, until the other side is gone."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    tqdm.set_lock(threading.RLock())  # its own lock is one between processes, which a killed worker would leave behind
    try:
        backbone = job.backbone.load()
        search = Search(backbone, job.options, job.decoding, job.value(backbone), job.rules)
        give_way()  # not before: a text that waits for its planner would wait for everything else on the machine
        connection.send(("ready", backbone.fingerprint))
        while True:
            connection.send(("plan", search.plan(_unpacked(connection.recv(), backbone))))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except Exception as error:  # whatever the user's own scorer raises, too
        _tell(connection, ("failed", f"{type(error).__name__}: {error}"))


def _tell(connection: Connection, message: tuple[str, Any]) -> None:
    try:
        connection.send(message)
    except OSError:
        return
