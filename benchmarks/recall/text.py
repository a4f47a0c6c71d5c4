"""Bits per byte of held-out text, by source and on average over the natural sources."""

import math
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.compression import row_nats
from datamodules.text.rows import Packing
from gssr.backbone import FrozenBackbone

NATURAL = ("addresses", "postgresql", "python", "strikes")
MEAN = "mean of the natural ones"


@torch.no_grad()
def bits_per_byte(
    backbone: FrozenBackbone, heldout: dict[str, list[str]], length: int, tick: Callable[[], Any]
) -> dict[str, float]:
    """Bits of held-out documents over their bytes, as validation measures them, in rows of ``length`` tokens."""
    found, packing = {}, Packing(backbone.tokenizer, length, seed=0)
    for source, documents in heldout.items():
        nats = 0.0
        for rows in packing.heldout(documents).split(4):
            nats += row_nats(backbone.model, rows, backbone.tokenizer.pad_token_id)
            tick()
        found[source] = nats / math.log(2) / sum(len(text.encode()) for text in documents)
    return with_mean(found)


def with_mean(found: dict[str, float]) -> dict[str, float]:
    """The sources and the mean of the natural ones among them."""
    natural = [found[name] for name in NATURAL if name in found]
    return found | ({MEAN: sum(natural) / len(natural)} if natural else {})
