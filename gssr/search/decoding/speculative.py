"""Speculative decoding (Leviathan et al. 2023): a draft of several tokens is verified by one call of the model.

The text has exactly the model's distribution. A drafted token d, drawn from q, is kept with probability
min(1, p(d) / q(d)), p the model's; otherwise the token is drawn from max(0, p − q), normalised, and the draft ends.

Recurrent states cannot be cropped. A call that verifies begins from kept states; if all of its draft is accepted, it is
these states' successor. Otherwise the states are put back, and the accepted tokens are read once more, in front of the
next draft, in that call. One call is wasted only where they have become many.

Shapes: k drafted tokens, V vocabulary, E backbone width. One text at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from gssr.backbone import FrozenBackbone
from gssr.search.decoding.rows import Decoding
from gssr.states.cache import cache_name, empty_cache, get_part, put_part, recurrent_layers

MOST_AGAIN = 24  # accepted tokens that may wait in front of a draft


class Draft(NamedTuple):
    tokens: Tensor  # (k,), k may be 0
    probs: Tensor  # (k, V), each token's distribution, float32


class Drafter(Protocol):
    """Proposes what follows."""

    def draft(
        self, tokens: Sequence[int], hidden: Tensor, count: int, decoding: Decoding, generator: torch.Generator
    ) -> Draft:
        """At most ``count`` tokens behind a text.

        Args:
            tokens: all of the text, prompt included.
            hidden: (E,), the model's final hidden state from which the last token was drawn.
        """


@dataclass(frozen=True, eq=False)
class Speculated:
    """``tokens`` (t,) and what they cost. ``accepted`` of ``drafted`` tokens were kept, by their place in the draft."""

    tokens: Tensor
    calls: int
    drafted: Tensor
    accepted: Tensor

    @property
    def acceptance(self) -> float:
        """Share of the drafted tokens that were kept; a token behind one that was not counts as not kept."""
        return (self.accepted.sum() / self.drafted.sum().clamp(min=1)).item()


def keep_probability(p: Tensor, q: Tensor, token: Tensor) -> Tensor:
    """The probability with which a drafted token () is kept; p and q (V)."""
    return (p[token] / q[token]).clamp(max=1.0)


def residual(p: Tensor, q: Tensor) -> Tensor:
    """The distribution (V) of the token in place of one that was not kept."""
    rest = (p - q).clamp(min=0)
    total = rest.sum()
    return rest / total if total > 0 else p


@torch.no_grad()
def speculate(
    backbone: FrozenBackbone, prompt: Tensor, drafter: Drafter, decoding: Decoding, width: int = 4, seed: int = 0
) -> Speculated:
    """One text behind a prompt (1, L), as long as ``decoding`` says or up to an end-of-text.

    Args:
        width: k, tokens in a draft at most.

    Raises:
        ValueError: another shape, or a model whose states cannot be kept.
    """
    if prompt.ndim != 2 or len(prompt) != 1 or not prompt.numel():
        raise ValueError(f"the prompt is {tuple(prompt.shape)}; expected one row (1, L) with at least one token")
    cache, end = empty_cache(backbone.model), backbone.tokenizer.eos_token_id
    generator = torch.Generator(backbone.device).manual_seed(seed)
    text: list[int] = prompt[0].tolist()
    done, most = len(text), len(text) + decoding.tokens
    drafted, accepted = torch.zeros(width, dtype=torch.long), torch.zeros(width, dtype=torch.long)
    states = _read(backbone, cache, text)
    hidden = states[-1]
    text.append(int(_draw(decoding.log_probs(backbone.logits(hidden)).exp(), decoding, generator)))
    calls = 1
    while len(text) < most and text[-1] != end:
        if len(text) - done > MOST_AGAIN:
            _read(backbone, cache, text[done:-1])
            done, calls = len(text) - 1, calls + 1
        room = min(width, most - len(text) - 1)
        draft = drafter.draft(text, hidden, room, decoding, generator)
        kept, before = len(draft.tokens), len(text) - done
        snapshot = _snapshot(cache) if kept else None
        states = _read(backbone, cache, [*text[done:], *draft.tokens.tolist()])[before - 1 :]
        calls += 1
        probs = decoding.log_probs(backbone.logits(states)).exp()
        uniform = torch.rand(kept, generator=generator, device=generator.device)
        following = probs[kept]
        for place in range(kept):
            p, q, token = probs[place], draft.probs[place], draft.tokens[place]
            if uniform[place] >= keep_probability(p, q, token):
                kept, following = place, residual(p, q)
                break
        drafted[: len(draft.tokens)] += 1
        accepted[:kept] += 1
        hidden = states[kept]
        new = [*draft.tokens[:kept].tolist(), int(_draw(following, decoding, generator))]
        if end in new:
            new = new[: new.index(end) + 1]
        text += new
        if kept == len(draft.tokens):
            done = len(text) - 1
        elif snapshot is not None:
            _put_back(cache, snapshot, before + len(draft.tokens))
    tokens = torch.tensor(text[prompt.shape[1] : most], device=prompt.device)
    return Speculated(tokens, calls, drafted, accepted)


def _draw(probs: Tensor, decoding: Decoding, generator: torch.Generator) -> Tensor:
    return probs.argmax(-1) if decoding.temperature == 0 else torch.multinomial(probs, 1, generator=generator)[0]


def _read(backbone: FrozenBackbone, cache: Cache, tokens: Sequence[int]) -> Tensor:
    """Final hidden states (n, E) of tokens that the cache reads."""
    ids = torch.tensor([list(tokens)], device=backbone.device)
    out = backbone.decoder(input_ids=ids, use_cache=True, **{cache_name(backbone.model): cache})
    return out.last_hidden_state[0]


Snapshot = list[tuple[str, int, Tensor]]


def _snapshot(cache: Cache) -> Snapshot:
    """Copies of the states that a call changes in place; keys and values only grow."""
    found = []
    for layer in recurrent_layers(cache):
        for part in ("recurrent", "conv"):
            if (state := get_part(cache, part, layer)) is not None:
                found.append((part, layer, state.clone()))
    return found


def _put_back(cache: Cache, snapshot: Snapshot, tokens: int) -> None:
    """Undo the last call, which read so many tokens."""
    for part, layer, state in snapshot:
        put_part(cache, part, layer, state)
    for layer in cache.layers:
        if isinstance(layer, DynamicLayer):
            DynamicLayer.crop(layer, -tokens)
