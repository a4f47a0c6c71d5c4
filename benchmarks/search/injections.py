"""A thousand gated injections in one text: states are pulled a little to a target before each token.

Targets and gates are those of learned states, in all three parts; beside them random targets of the same norms under
the same gates, and no injection. One text for each ordered pair of domains.

Shapes: B rows, t tokens.
"""

from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.steering.__main__ import PAIRS
from benchmarks.steering.__main__ import Benchmark as Steering
from benchmarks.steering.measures import distinct, nats
from benchmarks.steering.methods import state_of
from gssr.search.decoding.rows import Decoding, Rows
from gssr.states.cache import get_part, recurrent_layers
from gssr.states.directions import random_like
from gssr.states.rules import Schedule

WINDOW = 48  # tokens that are judged together
LOOK = 16  # tokens between two looks at the norms
# By name: factor of the gates, and whether targets are random.
WAYS = {
    "off": (0.0, False),
    "learned targets, gates × 0.01": (0.01, False),
    "random targets, gates × 0.01": (0.01, True),
    "learned targets, gates × 0.1": (0.1, False),
    "random targets, gates × 0.1": (0.1, True),
}


def measure(
    steering: Steering, states: dict[str, dict[str, Tensor]], way: str, tokens: int, seed: int
) -> dict[str, Any]:
    """By text: distinct-2, share of windows on target, nats a token; over all, the largest norm of a layer's state."""
    backbone, (strength, is_random) = steering.backbone, WAYS[way]
    made = [_of(states[target], is_random, seed) for _, target in PAIRS]
    rules = state_of(made).rules(strength, schedule=Schedule())
    prompts = steering.prompts[:, 0]
    rows = Rows(backbone, prompts, 1, Decoding(tokens, suppressed=(backbone.tokenizer.eos_token_id,)), rules, seed)
    largest: dict[str, float] = {}
    while not rows.finished:
        rows.write(LOOK)
        for layer in recurrent_layers(rows.cache):
            state = get_part(rows.cache, "recurrent", layer)
            assert state is not None
            largest[str(layer)] = max(largest.get(str(layer), 0.0), state.float().flatten(1).norm(dim=1).max().item())
    on_target = []
    for start in range(0, tokens - WINDOW + 1, WINDOW):
        found = steering.classifier.predict(backbone.tokenizer.batch_decode(rows.tokens[:, start : start + WINDOW]))
        on_target.append(found == np.array([target for _, target in PAIRS]))
    return {
        "distinct": [distinct(row[None]) for row in rows.tokens],
        "target": np.mean(on_target, 0).tolist(),
        "nats": nats(backbone, prompts, rows.tokens).tolist(),
        "norms": largest,
        "injections": tokens if strength else 0,
    }


def _of(learned: dict[str, Tensor], is_random: bool, seed: int) -> dict[str, Tensor]:
    if not is_random:
        return learned
    return {**learned, **random_like({key: x for key, x in learned.items() if key.endswith("target")}, seed)}


def summary(results: list[dict[str, Any]], off: list[dict[str, Any]]) -> dict[str, float]:
    """Means over texts and seeds, with the distinct-2 and the largest norm over those without injection."""

    def mean(found: list[dict[str, Any]], key: str) -> float:
        return float(np.mean([x for result in found for x in result[key]]))

    share = [np.mean(result["target"]) for result in results]
    texts = np.concatenate([result["target"] for result in results])
    norms = [own["norms"][i] / plain["norms"][i] for own, plain in zip(results, off, strict=True) for i in own["norms"]]
    return {
        "target": float(np.mean(share)),
        "error": float(texts.std(ddof=1) / len(texts) ** 0.5),
        "nats": mean(results, "nats"),
        "distinct": mean(results, "distinct") / mean(off, "distinct"),
        "norm": max(norms),
        "injections": results[0]["injections"],
        "texts": len(texts),
    }
