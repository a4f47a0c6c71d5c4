"""A planner beside a text: what its plans bring in one row, and what it costs the text that goes on without them."""

import os
import signal
import time
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from torch import Tensor

from benchmarks.search.selecting import Towards
from benchmarks.steering.__main__ import PAIRS
from benchmarks.steering.__main__ import Benchmark as Steering
from benchmarks.steering.measures import distinct, nats
from benchmarks.steering.methods import state_of
from gssr.backbone.config import BackboneConfig
from gssr.backbone.precision import name_of
from gssr.search.decoding import scoring
from gssr.search.decoding.lookahead import Lookahead, Request, Search
from gssr.search.decoding.planned import write_planned
from gssr.search.decoding.planners import Job, Planner, SeededPlanner, WorkerPlanner, packed
from gssr.search.decoding.rows import Decoding, Rows

# A plan begins where the last one ends, and is made in time.
WAYS = {
    "off": None,
    "4 blocks": Lookahead(ahead=8, candidates=4, block=8, simulations=1),
    "PUCT, 4 places": Lookahead(ahead=8, candidates=4, block=8, simulations=4),
}


def measure(
    steering: Steering, scorer: Pipeline, states: dict[str, dict[str, Tensor]] | None, way: str, texts: int, seed: int
) -> dict[str, Any]:
    """One row a prompt, ``texts`` prompts of each ordered pair: by text, on target or not, and nats a token."""
    backbone = steering.backbone
    decoding = Decoding(steering.size["tokens"], suppressed=(backbone.tokenizer.eos_token_id,))
    prompts, written, targets, applied = [], [], [], 0
    began = time.perf_counter()
    for i, (_, target) in enumerate(PAIRS):
        towards = Towards(scorer, [target])
        rules = () if states is None else tuple(state_of([states[target]]).rules())
        for k in range(texts):
            prompt = steering.prompts[i, k : k + 1]
            rows = Rows(backbone, prompt, 1, decoding, rules, seed=1000 * seed + 10 * i + k)
            looks, planner = WAYS[way], None
            if looks is not None:
                planner = SeededPlanner(Search(backbone, looks, decoding, towards.log_chance, rules), looks.ahead)
            applied += write_planned(rows, planner).counts.applied
            prompts.append(prompt)
            written.append(rows.tokens)
            targets.append(target)
    seconds, tokens = time.perf_counter() - began, torch.cat(written)
    found = steering.classifier.predict(backbone.tokenizer.batch_decode(tokens))
    return {
        "target": (found == np.array(targets)).astype(float).tolist(),
        "nats": nats(backbone, torch.cat(prompts), tokens).tolist(),
        "distinct": distinct(tokens),
        "applied": applied / len(written),
        "seconds": seconds / len(written),
    }


def cost(steering: Steering, texts: int, tokens: int) -> dict[str, Any]:
    """CPU time of the writing process over that of plain writing, text by text, and whether the bits are the same.

    CPU time, since the worker shares the machine's cores with whatever else runs on it.
    """
    backbone = steering.backbone
    decoding = Decoding(tokens, suppressed=(backbone.tokenizer.eos_token_id,))
    looks = Lookahead(ahead=8, candidates=4, block=8, simulations=4)
    model = BackboneConfig(backbone.name, backbone.revision, name_of(backbone.table.weight.dtype))  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    with WorkerPlanner(Job(model, looks, decoding, scoring.plain)) as worker:
        if not worker.wait(600):
            raise ValueError(f"the worker could not begin: {worker.failure or 'its model took too long to load'}")
        for name, act in (("late", None), ("hung", signal.SIGSTOP), ("killed", signal.SIGKILL)):
            if act is not None:
                os.kill(worker.process.pid or 0, act)
            found[name] = _ratios(steering, decoding, Late(worker), texts)
    return found


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


class Late:
    """Plans that come are held back until their position has passed: the cost of asking and receiving alone."""

    def __init__(self, planner: Planner) -> None:
        self.planner, self.held = planner, []

    def is_idle(self) -> bool:
        return self.planner.is_idle()

    def ask(self, request: Any) -> None:
        self.planner.ask(request)

    def plans(self, position: int) -> list[Any]:
        self.held += self.planner.plans(position)
        passed = [plan for plan in self.held if plan.position < position]
        self.held = [plan for plan in self.held if plan.position >= position]
        return passed


def _ratios(steering: Steering, decoding: Decoding, planner: Planner, texts: int) -> dict[str, Any]:
    ratios, same, counts = [], 0, {"asked": 0, "received": 0, "applied": 0, "late": 0}
    for i in range(texts):
        make = partial(Rows, steering.backbone, steering.prompts[i % len(PAIRS), :1], 1, decoding, seed=i)
        seconds, bits = [], []
        # The order alternates.
        for beside in (None, planner)[:: 1 if i % 2 else -1]:
            rows, began = make(), time.process_time()
            became = write_planned(rows, beside).counts
            seconds.append((beside is None, time.process_time() - began))
            bits.append(rows.tokens)
            if beside is not None:
                counts = {name: counts[name] + getattr(became, name) for name in counts}
        plain, planned = (next(s for is_plain, s in seconds if is_plain is wanted) for wanted in (True, False))
        ratios.append(planned / plain)
        same += torch.equal(*bits)
    return {"ratio": float(np.median(ratios)), "ratios": ratios, "same": same, "texts": texts, **counts}


def summary(results: list[dict[str, Any]]) -> dict[str, float]:
    """Means over all texts; ``error`` is the standard error of the target's share over the texts."""
    target = np.concatenate([found["target"] for found in results])
    means = {key: float(np.mean([found[key] for found in results])) for key in ("distinct", "applied", "seconds")}
    nats_a_token = float(np.mean(np.concatenate([found["nats"] for found in results])))
    error = float(target.std(ddof=1) / len(target) ** 0.5)
    return {"target": float(target.mean()), "error": error, "nats": nats_a_token, "texts": len(target), **means}
