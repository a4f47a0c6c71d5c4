"""A critic of unfinished texts: how well it orders two texts of one kind, by tokens written.

Two critics are trained on the same texts: one reads every layer, one the last alone. Beside them stands what needs no
critic: the score of the text so far.

Shapes: B rows, n places of a text.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.short_training import train
from benchmarks.steering.__main__ import Benchmark as Steering
from benchmarks.steering.domains import DOMAINS, PROMPT_TOKENS
from gssr.backbone.config import BackboneConfig
from gssr.search.decoding.critic import Critic
from gssr.search.decoding.critic_training import CriticTraining, concordance
from gssr.search.decoding.rows import Decoding, Rows
from gssr.search.decoding.scoring import of_texts
from gssr.states.cache import LayerState

BATCH = 32
SCORER = "benchmarks.search.critics:figures"
PLACES = (8, 16, 24, 32, 40)
WAYS = ("every layer", "last layer alone", "score so far")


def figures(text: str) -> float:
    """Share of a text's characters that are digits."""
    return sum(letter.isdigit() for letter in text) / max(1, len(text))


class Both(CriticTraining):
    """A critic of every layer, and one of the last alone, trained on the same texts."""

    def __init__(self, backbone: BackboneConfig, kept: list[Critic]) -> None:
        super().__init__(backbone, SCORER, PROMPT_TOKENS, export="")
        self.last = Critic(self.backbone, [max(self.critic.layers)])
        self.kept = kept

    def _values(self, states: Sequence[LayerState]) -> Tensor:
        return torch.stack([self.critic(states), self.last(states)])

    def on_train_end(self) -> None:
        self.kept += [self.critic, self.last]


def prompts(steering: Steering, steps: int, seed: int) -> DataLoader:
    """Batches of prompts, of training text of all kinds."""
    rng = np.random.default_rng([5, seed])
    rows = np.concatenate(
        [steering.corpus[name, "train"].prompts(-(-steps * BATCH // 5), PROMPT_TOKENS, rng) for name in DOMAINS]
    )
    rng.shuffle(rows)
    return DataLoader([{"tokens": torch.from_numpy(row)} for row in rows[: steps * BATCH]], batch_size=BATCH)


def trained(steering: Steering, steps: int, seed: int) -> list[Critic]:
    """The critic of every layer and that of the last."""
    kept: list[Critic] = []
    module = partial(Both, BackboneConfig(steering.backbone.name), kept)
    train(module, prompts(steering, steps, seed), steps, seed)
    return [critic.eval().requires_grad_(False) for critic in kept]


def measure(steering: Steering, steps: int, texts: int, seed: int) -> dict[str, Any]:
    """By way and place, the share of pairs of texts in the right order: by kind, and of all kinds together."""
    critics, rng, backbone = trained(steering, steps, seed), np.random.default_rng([6, seed]), steering.backbone
    decoding = Decoding(48, suppressed=(backbone.tokenizer.eos_token_id,))
    values: dict[str, list[Tensor]] = {}
    scores = []
    for name in DOMAINS:
        prompts = torch.from_numpy(steering.corpus[name, "heldout"].prompts(texts, PROMPT_TOKENS, rng))
        rows = Rows(backbone, prompts, 1, decoding, seed=seed)
        for place in PLACES:
            rows.write(place - rows.length)
            own = [critics[0].value(rows), critics[1].value(rows), of_texts(figures)(rows)]
            for way, value in zip(WAYS, own, strict=True):
                values.setdefault(f"{way}|{place}", []).append(value)
        rows.write(decoding.tokens)
        scores.append(of_texts(figures)(rows))
    found: dict[str, Any] = {}
    for key, by_kind in values.items():
        within = [concordance(own, score).item() for own, score in zip(by_kind, scores, strict=True)]
        together = concordance(torch.cat(by_kind), torch.cat(scores)).item()
        found[key] = {"kinds": dict(zip(DOMAINS, within, strict=True)), "together": together}
    return found


def summary(results: list[dict[str, Any]], way: str, place: int) -> tuple[float, float, float]:
    """Within kinds, its standard error over kinds and seeds, and all kinds together."""
    cells = [found[f"{way}|{place}"] for found in results]
    within = np.array([x for cell in cells for x in cell["kinds"].values() if np.isfinite(x)])
    error = float(within.std(ddof=1) / len(within) ** 0.5)
    return float(within.mean()), error, float(np.mean([cell["together"] for cell in cells]))
