"""What a planner costs the text that goes on without its plans: the writing process's own work, and the machine's.

Each text is written twice, plainly and beside a worker, one after the other in an order that alternates; while the
plain one is written, all workers are stopped. Ratios are of a pair, so that other work on the machine cancels in their
median. The writing process has one core to itself and the workers another, as far as this process decides.

- `ASLEEP`: the worker holds each snapshot as long as a search takes and computes next to nothing. What is lost is lost
  to asking and receiving.
- `BUSY`: the worker searches.
- `OTHER`: the writing process has no planner, and another process searches for itself. What is lost is lost to the
  caches, the memory and whatever else the two cores share.
- `HUNG` and `KILLED`: as `BUSY`, but the worker is stopped or killed first.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.steering.__main__ import PAIRS
from benchmarks.steering.__main__ import Benchmark as Steering
from gssr.backbone import FrozenBackbone
from gssr.backbone.config import BackboneConfig
from gssr.backbone.precision import name_of
from gssr.search.decoding import scoring
from gssr.search.decoding.lookahead import Lookahead, Request, Search
from gssr.search.decoding.planned import write_planned
from gssr.search.decoding.planners import Job, WorkerPlanner, give_way, packed
from gssr.search.decoding.plans import Plan
from gssr.search.decoding.rows import Decoding, Rows

ASLEEP, BUSY, OTHER = "asked, and asleep", "asked, and searching", "none; another process searches"
HUNG, KILLED = "hung", "killed"
LOOKAHEAD = Lookahead(ahead=8, candidates=4, block=8, simulations=4)
LEAST = Lookahead(ahead=1, candidates=1, block=1, simulations=1)


def asleep(seconds: float, backbone: FrozenBackbone) -> Callable[[Rows], Tensor]:
    """A value that takes so long and says nothing."""

    def value(rows: Rows) -> Tensor:
        time.sleep(seconds)
        return torch.zeros(len(rows.tokens))

    return value


def search_on(model: BackboneConfig, decoding: Decoding, ids: list[int]) -> None:
    """Search from the same text again and again, at a worker's priority."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    backbone = model.load()
    rows = Rows(backbone, torch.tensor([ids]), 1, decoding)
    rows.write(8)
    search = Search(backbone, LOOKAHEAD, decoding, scoring.plain(backbone), ())
    give_way()
    while True:
        search.plan(Request(rows.snapshot(), rows.length, rows.generator.get_state()))


class Late:
    """Plans that come are held back until their position has passed."""

    def __init__(self, planner: WorkerPlanner) -> None:
        self.planner, self.held = planner, list[Plan]()

    def is_idle(self) -> bool:
        return self.planner.is_idle()

    def ask(self, request: Request) -> None:
        self.planner.ask(request)

    def plans(self, position: int) -> list[Plan]:
        self.held += self.planner.plans(position)
        passed = [plan for plan in self.held if plan.position < position]
        self.held = [plan for plan in self.held if plan.position >= position]
        return passed


def cost(steering: Steering, texts: int, tokens: int) -> dict[str, Any]:
    """By what stands beside the text: CPU time and time of writing over those of its plain pair, and the bits."""
    backbone = steering.backbone
    decoding = Decoding(tokens, suppressed=(backbone.tokenizer.eos_token_id,))
    # A loaded model has one of the precisions that the option names.
    model = BackboneConfig(backbone.name, backbone.revision, name_of(backbone.table.weight.dtype))  # type: ignore[arg-type]
    context = multiprocessing.get_context("spawn")
    found: dict[str, Any] = {}
    with _two_cores() as (own, theirs), WorkerPlanner(Job(model, LOOKAHEAD, decoding, scoring.plain)) as busy:
        seconds = _search_seconds(steering, decoding, busy, theirs)
        ids = steering.prompts[0, 0].tolist()
        other = context.Process(target=search_on, args=(model, decoding, ids), daemon=True)
        other.start()
        try:
            with WorkerPlanner(Job(model, LEAST, decoding, partial(asleep, seconds))) as sleeper:
                _ready(sleeper)
                for pid in (sleeper.process.pid, other.pid):
                    _pin(pid, theirs)
                _pin(0, own)
                for planner in (sleeper, busy):
                    _signal(planner.process.pid, signal.SIGSTOP)
                _signal(other.pid, signal.SIGSTOP)
                for name, planner, pid in (
                    (ASLEEP, sleeper, sleeper.process.pid), (BUSY, busy, busy.process.pid), (OTHER, None, other.pid),
                ):  # fmt: skip
                    found[name] = _pairs(steering, decoding, planner, pid, texts)
        finally:
            other.kill()
        found[HUNG] = _pairs(steering, decoding, busy, None, -(-texts // 2))
        _signal(busy.process.pid, signal.SIGKILL)
        found[KILLED] = _pairs(steering, decoding, busy, None, -(-texts // 2))
    return {"search": seconds, "beside": found}


def snapshot_cost(steering: Steering, repeats: int) -> dict[str, float]:
    """CPU time of a token, and of a snapshot up to the bytes that are sent, in seconds: medians."""
    rows = Rows(steering.backbone, steering.prompts[0, :1], 1, Decoding(2 * repeats + 8), seed=0)
    rows.write(8)
    seconds: dict[str, list[float]] = {"token": [], "snapshot": []}
    for _ in range(repeats):
        began = time.process_time()
        rows.write(1)
        between = time.process_time()
        packed(Request(rows.snapshot(), rows.length, rows.generator.get_state()))
        seconds["token"].append(between - began)
        seconds["snapshot"].append(time.process_time() - between)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def summary(result: dict[str, Any], key: str) -> tuple[float, float, float]:
    """Median of the ratios of ``key``, and its 95 % interval from resampled pairs."""
    ratios = np.array(result[key])
    drawn = np.median(np.random.default_rng(0).choice(ratios, (2000, len(ratios))), 1)
    return float(np.median(ratios)), *(float(x) for x in np.quantile(drawn, (0.025, 0.975)))


def _pairs(
    steering: Steering, decoding: Decoding, planner: WorkerPlanner | None, pid: int | None, texts: int
) -> dict[str, Any]:
    """Pairs of texts; the process ``pid`` goes on while the one of a pair is written that is not plain."""
    found: dict[str, Any] = {"cpu": [], "wall": [], "same": 0, "texts": texts}
    counts = {"asked": 0, "received": 0, "applied": 0, "late": 0}
    for i in range(texts):
        make = partial(Rows, steering.backbone, steering.prompts[i % len(PAIRS), :1], 1, decoding, seed=i)
        times, bits = {}, []
        for plain in (True, False) if i % 2 else (False, True):
            rows = make()
            if not plain:
                _signal(pid, signal.SIGCONT)
            began = time.process_time(), time.perf_counter()
            became = write_planned(rows, None if plain or planner is None else Late(planner)).counts
            times[plain] = time.process_time() - began[0], time.perf_counter() - began[1]
            bits.append(rows.tokens)
            if not plain:
                counts = {name: counts[name] + getattr(became, name) for name in counts}
                if planner is not None and pid is not None:
                    _until_idle(planner)
                _signal(pid, signal.SIGSTOP)
        for place, key in enumerate(("cpu", "wall")):
            found[key].append(times[False][place] / times[True][place])
        found["same"] += torch.equal(*bits)
    return {**found, **counts}


def _search_seconds(steering: Steering, decoding: Decoding, planner: WorkerPlanner, cores: set[int]) -> float:
    """What a search takes, from the snapshot to the plan: the median of five."""
    _ready(planner)
    _pin(planner.process.pid, cores)
    rows, seconds = Rows(steering.backbone, steering.prompts[0, :1], 1, decoding, seed=0), []
    rows.write(8)
    for _ in range(5):
        began = time.perf_counter()
        planner.ask(Request(rows.snapshot(), rows.length, rows.generator.get_state()))
        _until_idle(planner)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def _ready(planner: WorkerPlanner) -> None:
    if not planner.wait(600):
        raise ValueError(f"the worker could not begin: {planner.failure or 'its model took too long to load'}")


def _until_idle(planner: WorkerPlanner, seconds: float = 120.0) -> None:
    """Wait for the answer to the last snapshot, so that a text gets no plans of the one before."""
    until = time.monotonic() + seconds
    while not planner.is_idle() and not planner.failure and time.monotonic() < until:
        planner.plans(0)
        time.sleep(0.005)


@contextmanager
def _two_cores() -> Iterator[tuple[set[int], set[int]]]:
    """A core for the writing process and one for the workers; the same where the machine has one or does not say."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    cores = sorted(before)
    try:
        yield (set(cores[:1]), set(cores[1:2])) if len(cores) > 1 else (set(), set())
    finally:
        _pin(0, before)


def _pin(pid: int | None, cores: set[int]) -> None:
    if cores and pid is not None:
        os.sched_setaffinity(pid, cores)


def _signal(pid: int | None, number: int) -> None:
    if pid is not None:
        os.kill(pid, number)
