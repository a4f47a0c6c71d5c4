"""Selection among rows, with and without a learned state, towards a domain of the nano model's corpus.

One classifier scores and another measures: they see other features and other draws of the training text. A search
that is measured by its own scorer finds what that scorer gets wrong, too.

Shapes: P prompts, K rows a prompt, B = P · K rows.
"""

import math
import time
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import Pipeline, make_pipeline
from torch import Tensor

from benchmarks.steering.__main__ import PAIRS
from benchmarks.steering.__main__ import Benchmark as Steering
from benchmarks.steering.domains import DOMAINS
from benchmarks.steering.measures import distinct, nats, repetition
from benchmarks.steering.methods import state_of
from gssr.search.decoding.rows import Decoding, Rows
from gssr.search.decoding.select import Selected, best_of, blockwise, particles
from gssr.states.examples import Learning
from gssr.states.learned_state import learn_state

ROWS = 4  # K
EVERY = 12  # tokens of a block, and between two looks of particles
PROMPTS_A_CALL = 40
WAYS = (f"best of {ROWS}", "one", f"blockwise best of {ROWS}", f"{ROWS} particles")
STEERED = ("learned state", "plain")


def train_scorer(steering: Steering, count: int) -> Pipeline:
    """Naive Bayes on words of training text."""
    rng = np.random.default_rng(7)
    texts, names = [], []
    for name in DOMAINS:
        for tokens in (12, steering.size["tokens"]):
            ids = steering.corpus[name, "train"].prompts(count, tokens, rng)
            texts += steering.backbone.tokenizer.batch_decode(ids)
            names += [name] * count
    words = HashingVectorizer(token_pattern=r"\w+|[^\w\s]", n_features=2**16, alternate_sign=False, norm=None)
    return make_pipeline(words, ComplementNB(alpha=0.1)).fit(texts, names)


class Towards:
    """Values of rows whose prompts have target domains.

    Args:
        targets: of the prompts (P).
    """

    def __init__(self, scorer: Pipeline, targets: list[str]) -> None:
        self.scorer, self.targets = scorer, targets

    def log_chance(self, rows: Rows) -> Tensor:
        """log P(target | text so far), at least -10: (B,)."""
        columns = list(self.scorer.classes_)
        places = [columns.index(target) for target in self.targets for _ in range(rows.copies)]
        chances = self.scorer.predict_proba(rows.texts())[np.arange(len(places)), places]
        return torch.from_numpy(np.log(chances).clip(min=-10))

    def on_target(self, rows: Rows) -> Tensor:
        """1 where the target is the most probable domain, so that the likeliest of these is taken: (B,)."""
        columns = np.array(self.scorer.classes_)
        found = columns[self.scorer.predict_proba(rows.texts()).argmax(1)]
        wanted = np.repeat(self.targets, rows.copies)
        return torch.from_numpy((found == wanted).astype(float))


def select(way: str, rows: Rows, towards: Towards) -> Selected:
    if way.startswith("block"):
        return blockwise(rows, towards.on_target, EVERY, towards.log_chance)
    if way.endswith("particles"):
        # Towards p(text) · P(target | text); among the particles at the end, as above.
        particles(rows, towards.log_chance, EVERY, 1.0)
    return best_of(rows, towards.on_target)


def learned(steering: Steering, seed: int) -> dict[str, dict[str, Tensor]]:
    """Tensors of the learned state of each domain."""
    settings = Learning(steps=steering.size["steps"], seed=seed)
    return {target: learn_state(steering._sources(target).examples, settings)[0].tensors() for target in DOMAINS}


def measure(
    steering: Steering, scorer: Pipeline, states: dict[str, dict[str, Tensor]] | None, way: str, seed: int
) -> dict[str, Any]:
    """By ordered pair: share of the target by the other classifier, nats a token, repetition; over all, the cost."""
    backbone, tokens = steering.backbone, steering.size["tokens"]
    decoding = Decoding(tokens, suppressed=(backbone.tokenizer.eos_token_id,))
    count = steering.size["rows"]
    prompts, targets = steering.prompts.flatten(0, 1), [target for _, target in PAIRS for _ in range(count)]
    texts, calls, read, began = [], 0, 0, time.perf_counter()
    for start in range(0, len(prompts), PROMPTS_A_CALL):
        part = slice(start, start + PROMPTS_A_CALL)
        rules = [] if states is None else state_of([states[target] for target in targets[part]]).rules()
        copies = 1 if way == "one" else ROWS
        rows = Rows(backbone, prompts[part], copies, decoding, rules, seed=1000 * seed + start)
        found = select(way, rows, Towards(scorer, targets[part]))
        texts.append(found.tokens[found.chosen_rows])
        calls, read = calls + found.calls, read + found.read
    seconds, written = time.perf_counter() - began, torch.cat(texts)
    decoded = backbone.tokenizer.batch_decode(written)
    domains, surprise = steering.classifier.predict(decoded), nats(backbone, prompts, written)
    pairs = {}
    for i, (source, target) in enumerate(PAIRS):
        part = slice(i * count, (i + 1) * count)
        pairs[f"{source}>{target}"] = {
            "target": float((domains[part] == target).mean()),
            "nats": surprise[part].mean().item(),
            "repetition": repetition(written[part]),
            "distinct": distinct(written[part]),
            "sample": [backbone.tokenizer.decode(prompts[i * count]), decoded[i * count]],
        }
    return {"pairs": pairs, "calls": calls, "read": read / len(prompts), "seconds": seconds, "texts": len(prompts)}


def summary(results: list[dict[str, Any]], real: dict[str, Any]) -> dict[str, float]:
    """Means over pairs and seeds; ``error`` is the standard error of the target's share over the pairs."""
    by_pair = {name: [result["pairs"][name] for result in results] for name in results[0]["pairs"]}
    shares = np.array([np.mean([found["target"] for found in pair]) for pair in by_pair.values()])
    ratios = [
        np.mean([math.exp(found["nats"] - real["pairs"][name]["nats"]) for found in pair])
        for name, pair in by_pair.items()
    ]

    def mean(key: str) -> float:
        return float(np.mean([found[key] for pair in by_pair.values() for found in pair]))

    return {
        "target": float(shares.mean()),
        "error": float(shares.std(ddof=1) / math.sqrt(len(shares))),
        "ratio": float(np.mean(ratios)),
        "repetition": mean("repetition"),
        "distinct": mean("distinct"),
        "read": float(np.mean([result["read"] for result in results])),
        "seconds": float(np.mean([result["seconds"] / result["texts"] for result in results])),
        "texts": sum(result["texts"] for result in results),
    }
