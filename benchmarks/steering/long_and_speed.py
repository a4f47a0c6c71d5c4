"""Long steered texts, and the cost of steering in time. Shapes: B rows."""

import time
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.steering.measures import distinct, nats, repetition
from benchmarks.steering.methods import Material, state_of
from gssr.backbone import FrozenBackbone
from gssr.states.intervention import steer
from gssr.states.rules import Offset, Rule, Schedule

SCHEDULES = {"unsteered": None, "once, as learned": Schedule.once(), "again every 48 tokens": Schedule(every=48)}
EVERY = 50


@torch.no_grad()
def long_texts(
    backbone: FrozenBackbone,
    directions: dict[str, Material],
    prompts: Tensor,
    pairs: list[tuple[str, str]],
    tokens: int,
) -> dict[str, Any]:
    """Measure one text for every ordered pair under the learned state at full strength.

    Returns:
        By schedule: distinct-2, repetition, nats in the last quarter, and the largest norm of a recurrent state over
        the unsteered model's at the same place.
    """
    rows = prompts[:, 0]
    learned = state_of([directions[target] for _, target in pairs])
    found: dict[str, Any] = {}
    norms: dict[str, list[Tensor]] = {}
    for name, schedule in SCHEDULES.items():
        cache = DynamicCache(config=backbone.model.config)
        norms[name] = []

        def watch(ids: Tensor, scores: Tensor, name: str = name, cache: DynamicCache = cache) -> Tensor:
            if (ids.shape[1] - rows.shape[1]) % EVERY == 0:
                states = [
                    cache.get_recurrent_state(layer).flatten(1).norm(dim=1) for layer in learned.targets["recurrent"]
                ]
                norms[name].append(torch.stack(states))
            return scores

        options = {
            "do_sample": True,
            "top_k": 0,
            "max_new_tokens": tokens,
            "suppress_tokens": [backbone.tokenizer.eos_token_id],
            "pad_token_id": backbone.tokenizer.eos_token_id,
            "logits_processor": [watch],
            "past_key_values": cache,
        }
        torch.manual_seed(0)
        inputs = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
        if schedule is None:
            ids = backbone.model.generate(**inputs, **options)
        else:
            with steer(backbone.model, *learned.rules(schedule=schedule)):
                ids = backbone.model.generate(**inputs, **options)
        texts = ids[:, rows.shape[1] :]
        last = texts[:, -tokens // 4 :]
        before = ids[:, -tokens // 4 - rows.shape[1] : -tokens // 4]
        plain = torch.stack(norms["unsteered"])
        ratio = torch.stack(norms[name]) / plain.mean(-1, keepdim=True)
        found[name] = {
            "distinct": distinct(texts),
            "repetition": repetition(texts),
            "nats_last_quarter": nats(backbone, before, last).mean().item(),
            "largest_norm": ratio.max().item(),
            "largest_norm_at_end": ratio[-1].max().item(),
            "sample": backbone.tokenizer.decode(texts[0]),
        }
    return found


@torch.no_grad()
def cost(backbone: FrozenBackbone, material: Material, repeats: int) -> dict[str, float]:
    """Median ratio of steered to unsteered decoding time of 64 tokens, by steering and batch; the runs alternate."""
    learned = state_of([material])
    ways: dict[str, list[Rule]] = {
        "learned state": [*learned.rules()],
        "offset at every token": [Offset(learned.targets["recurrent"], strength=0.1)],
    }
    options = {"max_new_tokens": 64, "do_sample": False, "suppress_tokens": [backbone.tokenizer.eos_token_id]}
    options["pad_token_id"] = backbone.tokenizer.eos_token_id
    ratios: dict[str, float] = {}
    for batch in (1, 16):
        ids = torch.full((batch, 8), 5)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats + 1):
            start = time.perf_counter()
            backbone.model.generate(**inputs, **options)
            plain = time.perf_counter() - start
            for name, rules in ways.items():
                start = time.perf_counter()
                with steer(backbone.model, *rules):
                    backbone.model.generate(**inputs, **options)
                found[name].append((time.perf_counter() - start) / plain)
        ratios |= {f"{name}, batch {batch}": median(times[1:]) for name, times in found.items()}
    return ratios
