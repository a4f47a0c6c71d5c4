"""Speculative decoding: what is kept of drafts, what it saves, and whether texts stay the model's own."""

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.short_training import train
from benchmarks.states import SHAPE_350M, load
from benchmarks.steering.__main__ import Benchmark as Steering
from benchmarks.steering.domains import DOMAINS
from gssr.backbone import FrozenBackbone
from gssr.backbone.config import BackboneConfig
from gssr.search.decoding.draft_training import DraftTraining
from gssr.search.decoding.drafting import HiddenDrafter, NGramDrafter
from gssr.search.decoding.rows import Decoding, Rows
from gssr.search.decoding.speculative import Draft, Drafter, speculate
from gssr.states.cache import cache_name, empty_cache

WIDTHS = (2, 4)
TEMPERATURES = (1.0, 0.0)
FORCED = (("n-grams", 0.89, 2), ("n-grams", 0.82, 4), ("trained", 0.32, 2), ("trained", 0.65, 2), ("trained", 0.65, 4))


def trained(steering: Steering, file: Path, steps: int, seed: int) -> HiddenDrafter:
    """A drafter for the backbone, from its training text; kept in ``file``."""
    if not file.exists():
        rng = np.random.default_rng(seed)
        rows = np.concatenate(
            [steering.corpus[name, "train"].prompts(steps * 16 // 5 + 16, 129, rng) for name in DOMAINS]
        )
        rng.shuffle(rows)
        data = DataLoader([{"tokens": torch.from_numpy(row)} for row in rows[: steps * 16]], batch_size=16)
        module = partial(DraftTraining, BackboneConfig(steering.backbone.name), export=str(file))
        train(module, data, steps, seed)
    return HiddenDrafter.load(file, steering.backbone)


class Timed:
    """A drafter, and the CPU seconds that it takes."""

    def __init__(self, drafter: Drafter) -> None:
        self.drafter, self.seconds = drafter, 0.0

    def draft(
        self, tokens: Sequence[int], hidden: Tensor, count: int, decoding: Decoding, generator: torch.Generator
    ) -> Draft:
        began = time.process_time()
        try:
            return self.drafter.draft(tokens, hidden, count, decoding, generator)
        finally:
            self.seconds += time.process_time() - began


def speed(steering: Steering, drafter: HiddenDrafter, count: int, tokens: int) -> dict[str, Any]:
    """By drafter, width and temperature: share kept by place, tokens a call, plain CPU time over that with a draft, and
    the share of the latter that drafting takes.

    The ways alternate on each prompt, so that other work on the machine slows all of them.
    """
    backbone, rng = steering.backbone, np.random.default_rng(3)
    prompts = torch.from_numpy(
        np.concatenate([steering.corpus[name, "heldout"].prompts(-(-count // 5), 48, rng) for name in DOMAINS])
    )
    drafters: dict[str, Drafter] = {"n-grams": NGramDrafter(backbone.table.num_embeddings), "trained": drafter}
    found = {}
    for temperature in TEMPERATURES:
        decoding = Decoding(tokens, temperature, suppressed=(backbone.tokenizer.eos_token_id,))
        cells: dict[tuple[str, int], list[Any]] = {key: [] for key in itertools.product(drafters, WIDTHS)}
        plain = []
        for i, prompt in enumerate(prompts):
            began = time.process_time()
            Rows(backbone, prompt[None], 1, decoding, seed=i).write(tokens)
            plain.append(time.process_time() - began)
            for (name, width), cell in cells.items():
                timed, began = Timed(drafters[name]), time.process_time()
                result = speculate(backbone, prompt[None], timed, decoding, width, seed=i)
                cell.append((result, time.process_time() - began, timed.seconds))
        for (name, width), cell in cells.items():
            drafted, accepted = (
                torch.stack([getattr(r, key) for r, *_ in cell]).sum(0) for key in ("drafted", "accepted")
            )
            found[f"{name}|{width}|{temperature:g}"] = {
                "kept": (accepted / drafted.clamp(min=1)).tolist(),
                "acceptance": (accepted.sum() / drafted.sum().clamp(min=1)).item(),
                "tokens_a_call": sum(len(r.tokens) for r, *_ in cell) / sum(r.calls for r, *_ in cell),
                "speed": median(p / seconds for p, (_, seconds, _) in zip(plain, cell, strict=True)),
                "drafting": sum(own for *_, own in cell) / sum(seconds for _, seconds, _ in cell),
            }
    return found


@torch.no_grad()
def same_distribution(backbone: FrozenBackbone, drafter: Drafter, prompt: Tensor, count: int) -> dict[str, float]:
    """Texts of three tokens from the eight likeliest first ones, against enumeration by a chi-square test."""
    allowed = backbone.model(input_ids=prompt, use_cache=False).logits[0, -1].topk(8).indices.tolist()
    suppressed = tuple(i for i in range(backbone.table.num_embeddings) if i not in allowed)
    decoding = Decoding(3, suppressed=suppressed)
    texts = torch.tensor(list(itertools.product(allowed, repeat=3)))
    ids = torch.cat([prompt.expand(len(texts), -1), texts], 1)
    logits = backbone.model(input_ids=ids[:, :-1], use_cache=False).logits[:, prompt.shape[1] - 1 :]
    expected = count * decoding.log_probs(logits).gather(2, texts[..., None])[..., 0].sum(1).double().exp()
    seen = Counter(
        tuple(speculate(backbone, prompt, drafter, decoding, 2, seed=seed).tokens.tolist()) for seed in range(count)
    )
    found = torch.tensor([seen[tuple(text)] for text in texts.tolist()], dtype=torch.float64)
    often = expected >= 5
    pairs = [(found[often], expected[often]), (found[~often].sum()[None], expected[~often].sum()[None])]
    parts = [((f - e).square() / e)[e >= 5] for f, e in pairs]
    statistic, freedom = sum(p.sum().item() for p in parts), sum(len(p) for p in parts) - 1
    return {"statistic": statistic, "freedom": freedom, "p": float(chi2.sf(statistic, freedom)), "texts": count}


@torch.no_grad()
def cost_of_calls(backbone: FrozenBackbone, repeats: int) -> dict[str, float]:
    """CPU time of a call that reads n tokens behind 64, over that of a call that reads one."""
    ids = torch.randint(2, backbone.table.num_embeddings, (1, 64), generator=torch.Generator().manual_seed(0))
    times: dict[int, list[float]] = {n: [] for n in (1, 2, 3, 5, 9, 17)}
    for _ in range(repeats + 1):
        for n, cell in times.items():
            cache = empty_cache(backbone.model)
            given = {"use_cache": True, cache_name(backbone.model): cache}
            backbone.decoder(input_ids=ids, **given)
            began = time.process_time()
            backbone.logits(backbone.decoder(input_ids=ids[:, :n], **given).last_hidden_state)
            cell.append(time.process_time() - began)
    one = median(times[1][1:])
    return {str(n): median(cell[1:]) / one for n, cell in times.items()} | {"seconds": one}


class Forced:
    """Drafts of the text itself, wrong from a place on with a given chance at each place.

    Args:
        text: tokens that the model writes at temperature 0, behind the prompt.
        keep: chance that a token is right.
        beside: a drafter that drafts as many tokens, for its time alone.
    """

    def __init__(self, text: list[int], vocabulary: int, keep: float, beside: Drafter | None) -> None:
        self.text, self.vocabulary, self.keep, self.beside = text, vocabulary, keep, beside

    def draft(
        self, tokens: Sequence[int], hidden: Tensor, count: int, decoding: Decoding, generator: torch.Generator
    ) -> Draft:
        if self.beside is not None:
            self.beside.draft(tokens, hidden, count, decoding, generator)
        ahead = torch.tensor(self.text[len(tokens) : len(tokens) + count], dtype=torch.long)
        wrong = (torch.rand(len(ahead), generator=generator) >= self.keep).cumsum(0) > 0
        found = torch.where(wrong, (ahead + 1) % self.vocabulary, ahead)
        return Draft(found, F.one_hot(found, self.vocabulary).float())


def forced(name: str, tokens: int) -> dict[str, Any]:
    """By drafter, share of its tokens that is kept, and width: CPU time of plain decoding over that with the draft.

    A model of random weights has no text that could be drafted, so what is kept is forced: to what n-grams and the
    trained drafter reach at temperature 0 on nano, and to 0.65. The time of the trained drafter counts.
    """
    backbone = load(name, "float32") if name == SHAPE_350M else FrozenBackbone(name)
    vocabulary = backbone.table.num_embeddings
    prompt = torch.randint(2, vocabulary, (1, 32), generator=torch.Generator().manual_seed(0))
    decoding = Decoding(tokens, 0.0, suppressed=(backbone.tokenizer.eos_token_id,))
    hidden = HiddenDrafter(backbone.hidden_size).bind(backbone)
    times: dict[str, list[float]] = {}
    calls: dict[str, float] = {}
    for repeat in range(2):
        rows, began = Rows(backbone, prompt, 1, decoding), time.process_time()
        rows.write(tokens)
        plain, text = time.process_time() - began, [*prompt[0].tolist(), *rows.tokens[0].tolist()]
        for kind, keep, width in FORCED:
            drafter = Forced(text, vocabulary, keep, hidden if kind == "trained" else None)
            began = time.process_time()
            result = speculate(backbone, prompt, drafter, decoding, width, seed=repeat)
            key = f"{kind}|{keep}|{width}"
            times.setdefault(key, []).append(plain / (time.process_time() - began))
            calls[key] = calls.get(key, 0) + result.calls
    return {
        key: {"speed": median(found), "tokens_a_call": len(found) * tokens / calls[key]} for key, found in times.items()
    }
