"""Refinement: the words of the best text so far are read in front of the prompt, and texts are written anew.

Beside it stand as many passes without reading back, of which the best text is taken at the same number of model calls.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.search.critics import figures
from benchmarks.steering.__main__ import Benchmark as Steering
from benchmarks.steering.domains import DOMAINS, PROMPT_TOKENS
from benchmarks.steering.measures import distinct, nats
from gssr.search.decoding.rows import Decoding, Rows
from gssr.search.decoding.scoring import of_texts
from gssr.search.decoding.select import best_of

ROWS, PASSES = 4, 3
FIRST = f"best of {ROWS}, one pass"


def measure(steering: Steering, texts: int, seed: int) -> dict[str, Any]:
    """By way and pass: digits, nats a token behind the prompt alone, and distinct-2 of each text."""
    backbone, rng = steering.backbone, np.random.default_rng([8, seed])
    prompts = torch.from_numpy(
        np.concatenate([steering.corpus[name, "heldout"].prompts(texts, PROMPT_TOKENS, rng) for name in DOMAINS])
    )
    decoding = Decoding(steering.size["tokens"], suppressed=(backbone.tokenizer.eos_token_id,))

    def written(read: Tensor, number: int) -> Tensor:
        found = best_of(Rows(backbone, read, ROWS, decoding, seed=10 * seed + number), of_texts(figures))
        return found.tokens[found.chosen_rows]

    def digits(tokens: Tensor) -> Tensor:
        return torch.tensor([figures(text) for text in backbone.tokenizer.batch_decode(tokens)])

    def row(tokens: Tensor) -> dict[str, Any]:
        return {
            "digits": digits(tokens).tolist(),
            "nats": nats(backbone, prompts, tokens).tolist(),
            "distinct": [distinct(text[None]) for text in tokens],
            "seconds": 0.0,
        }

    def better(one: Tensor, other: Tensor) -> Tensor:
        return torch.where((digits(other) > digits(one))[:, None], other, one)

    first = apart = back = written(prompts, 0)
    found = {FIRST: row(first)}
    for number in range(1, PASSES):
        apart = better(apart, written(prompts, number))
        again = written(torch.cat([back, prompts], 1), number)
        back = better(back, again)
        passes = f"{number + 1} passes"
        found[f"best of {ROWS}, {passes}, nothing read back"] = row(apart)
        found[f"best of {ROWS}, {passes}, the best read back"] = row(back)
        found[f"the texts of pass {number + 1} behind what was read back"] = row(again)
    return found
