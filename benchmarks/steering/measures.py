"""Measures of samples: nats under the unsteered model, and repetition. Shapes: B samples, L tokens."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.backbone import FrozenBackbone


@torch.no_grad()
def nats(backbone: FrozenBackbone, prompts: Tensor, texts: Tensor) -> Tensor:
    """Mean nats a token of texts (B, L) behind prompts (B, P) under the unsteered model: (B,).

    The distribution excludes end-of-text, as sampling does.
    """
    found = []
    for prompt, text in zip(prompts.split(50), texts.split(50), strict=True):
        ids = torch.cat([prompt, text], 1)
        logits = backbone.model(ids[:, :-1], use_cache=False).logits[:, prompt.shape[1] - 1 :].float()
        logits[..., backbone.tokenizer.eos_token_id] = -torch.inf
        found.append(F.cross_entropy(logits.flatten(0, 1), text.flatten(), reduction="none").view_as(text).mean(1))
    return torch.cat(found)


def repetition(texts: Tensor, n: int = 4) -> float:
    """Share of n-grams that occur earlier in the same text, mean over texts (B, L)."""
    shares = []
    for row in texts.tolist():
        grams = [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
        shares.append(1 - len(set(grams)) / len(grams))
    return float(np.mean(shares))


def distinct(texts: Tensor, n: int = 2) -> float:
    """Number of different n-grams over number of n-grams of a text, mean over texts (B, L)."""
    return 1 - repetition(texts, n)
