"""Gated pulls from a critic's gradient and towards the best path of a look ahead, beside random targets and none.

One row a prompt everywhere, and what the finished text is worth is the share of its characters that are digits. A
random target is as far from the state as the one that it stands for, has the same gates, and costs the same time, since
the gradient is computed, or the look ahead made, for it, too. Behind the first tokens all ways draw from the same
generator, so that texts are compared prompt by prompt.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.search import critics
from benchmarks.search.critics import figures
from benchmarks.short_training import train
from benchmarks.steering.__main__ import Benchmark as Steering
from benchmarks.steering.domains import DOMAINS, PROMPT_TOKENS
from benchmarks.steering.measures import distinct, nats
from gssr.backbone.config import BackboneConfig
from gssr.search.decoding.critic import Critic
from gssr.search.decoding.critic_training import CriticTraining, concordance
from gssr.search.decoding.lookahead import Lookahead, Search
from gssr.search.decoding.pulls import (
    Blocks,
    Pull,
    Random,
    TowardsBest,
    TowardsBetter,
    TowardsPath,
    TowardsValue,
    write_pulled,
)
from gssr.search.decoding.rows import Decoding, Rows
from gssr.search.decoding.scoring import of_texts
from gssr.search.decoding.select import blockwise

BLOCK, CANDIDATES = 8, 4
OFF, WRITTEN, RANDOM = "off", "best of 4 blocks, written", ", random targets"
# As a planner looks ahead: four places, up to three blocks in a row.
LOOKAHEAD = Lookahead(candidates=CANDIDATES, block=BLOCK, simulations=4, depth=3)
# By name: tokens between two pulls, and the pull of some rows, a critic and a seed. Gates were chosen on training
# prompts; that of the path is that of the block.
PULLS: dict[str, tuple[int, Callable[[Rows, Critic, int], Pull]]] = {
    "critic's gradient, gate 0.1": (1, lambda rows, critic, seed: TowardsValue(critic, 0.1)),
    "state behind the best block, gate 0.3": (
        BLOCK,
        lambda rows, critic, seed: TowardsBest(_blocks(critic, seed), 0.3),
    ),
    "state behind the planner's path, gate 0.3": (
        BLOCK,
        lambda rows, critic, seed: TowardsPath(Search(rows.backbone, LOOKAHEAD, rows.decoding, critic.value, ()), 0.3),
    ),
    "gradient of better blocks, gate 0.3": (
        BLOCK,
        lambda rows, critic, seed: TowardsBetter(_blocks(critic, seed), 0.3),
    ),
}
WAYS = (OFF, *(f"{name}{random}" for name in PULLS for random in ("", RANDOM)), WRITTEN)


def _blocks(critic: Critic, seed: int) -> Blocks:
    return Blocks(critic.value, CANDIDATES, BLOCK, seed)


def trained(steering: Steering, file: Path, steps: int, seed: int) -> Critic:
    """A critic of every layer, kept in ``file``."""
    if not file.exists():
        config = BackboneConfig(steering.backbone.name)
        module = partial(CriticTraining, config, critics.SCORER, PROMPT_TOKENS, export=str(file))
        train(module, critics.prompts(steering, steps, seed), steps, seed)
    return Critic.load(file, steering.backbone)


def measure(steering: Steering, critic: Critic, way: str, texts: int, seed: int) -> dict[str, Any]:
    """By text behind ``texts`` held-out prompts of each kind: digits, nats a token, distinct-2; CPU seconds a text."""
    backbone, rng = steering.backbone, np.random.default_rng([8, seed])
    prompts = np.concatenate([steering.corpus[name, "heldout"].prompts(texts, PROMPT_TOKENS, rng) for name in DOMAINS])
    decoding = Decoding(steering.size["tokens"], suppressed=(backbone.tokenizer.eos_token_id,))
    began = time.process_time()
    rows = Rows(backbone, torch.from_numpy(prompts), CANDIDATES if way == WRITTEN else 1, decoding, seed=seed)
    if way == WRITTEN:
        found = blockwise(rows, critic.value, BLOCK)
        tokens = found.tokens[found.chosen_rows]
    elif way == OFF:
        rows.write(decoding.tokens)
        tokens = rows.tokens
    else:
        every, make = PULLS[way.removesuffix(RANDOM)]
        pull = make(rows, critic, seed)
        write_pulled(rows, pull if way in PULLS else Random(pull, seed), every)
        tokens = rows.tokens
    seconds = time.process_time() - began
    return {
        "digits": [figures(text) for text in backbone.tokenizer.batch_decode(tokens)],
        "nats": nats(backbone, torch.from_numpy(prompts), tokens).tolist(),
        "distinct": [distinct(row[None]) for row in tokens],
        "seconds": seconds / len(tokens),
    }


def order(steering: Steering, critic: Critic, texts: int, seed: int) -> float:
    """Share of pairs of one kind that the critic puts in the right order after a block."""
    backbone, rng, found = steering.backbone, np.random.default_rng([9, seed]), []
    decoding = Decoding(steering.size["tokens"], suppressed=(backbone.tokenizer.eos_token_id,))
    for name in DOMAINS:
        prompts = torch.from_numpy(steering.corpus[name, "heldout"].prompts(texts, PROMPT_TOKENS, rng))
        rows = Rows(backbone, prompts, 1, decoding, seed=seed)
        rows.write(BLOCK)
        values = critic.value(rows)
        rows.write(decoding.tokens)
        found.append(concordance(values, of_texts(figures)(rows)).item())
    return float(np.nanmean(found))


def summary(results: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, float]:
    """Means over texts and seeds; ``minus`` is the difference in digits from the other way, text by text, and
    ``half`` half of its 95 % interval."""
    joined = {key: np.concatenate([found[key] for found in results]) for key in ("digits", "nats", "distinct")}
    minus = joined["digits"] - np.concatenate([found["digits"] for found in other])
    return {
        **{key: float(values.mean()) for key, values in joined.items()},
        "minus": float(minus.mean()),
        "half": float(1.96 * minus.std(ddof=1) / len(minus) ** 0.5),
        "seconds": float(np.mean([found["seconds"] for found in results])),
        "texts": len(minus),
    }
