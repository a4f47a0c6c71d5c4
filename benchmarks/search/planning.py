"""A planner beside a text: what its plans bring in one row."""

import time
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
from gssr.search.decoding.lookahead import Lookahead, Search
from gssr.search.decoding.planned import write_planned
from gssr.search.decoding.planners import SeededPlanner
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


def summary(results: list[dict[str, Any]]) -> dict[str, float]:
    """Means over all texts; ``error`` is the standard error of the target's share over the texts."""
    target = np.concatenate([found["target"] for found in results])
    means = {key: float(np.mean([found[key] for found in results])) for key in ("distinct", "applied", "seconds")}
    nats_a_token = float(np.mean(np.concatenate([found["nats"] for found in results])))
    error = float(target.std(ddof=1) / len(target) ** 0.5)
    return {"target": float(target.mean()), "error": error, "nats": nats_a_token, "texts": len(target), **means}
