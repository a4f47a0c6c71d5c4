"""Answers from states: read contexts, mix the states of two contexts, read a question behind them, rate answers.

Shapes: B rows, K positions of a context, W tokens of an answer, C choices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from benchmarks.recall.questions import Question
from gssr.backbone import FrozenBackbone
from gssr.states.advance import advance
from gssr.states.cache import ATTENTION, LayerState, empty_cache, fill_cache, layer_states

RECURRENT, CONV, KEYS = ("recurrent",), ("conv",), ATTENTION


@dataclass(frozen=True)
class Context:
    """States behind a text, and the mask (B, K) of its keys, False at padding."""

    layers: tuple[LayerState, ...]
    mask: Tensor

    def without_keys(self) -> "Context":
        """As if attention saw nothing before the place that was reached."""
        layers = tuple(replace(layer, keys=None, values=None) for layer in self.layers)
        return Context(layers, self.mask[:, :0])

    def with_parts(self, other: "Context", parts: Sequence[str]) -> "Context":
        """These states with the named parts from another context."""
        pairs = zip(self.layers, other.layers, strict=True)
        layers = tuple(replace(mine, **{part: getattr(its, part) for part in parts}) for mine, its in pairs)
        return Context(layers, other.mask if set(KEYS) <= set(parts) else self.mask)


def padded(rows: Sequence[Sequence[int]], pad: int, side: str) -> tuple[Tensor, Tensor]:
    """Tokens and mask (B, longest row)."""
    tensors = [torch.tensor(list(row)) for row in rows]
    masks = [torch.ones_like(row, dtype=torch.bool) for row in tensors]
    tokens = pad_sequence(tensors, batch_first=True, padding_value=pad, padding_side=side)
    return tokens, pad_sequence(masks, batch_first=True, padding_value=False, padding_side=side)


@torch.no_grad()
def read(backbone: FrozenBackbone, texts: Sequence[Sequence[int]]) -> Context:
    """Read texts, each behind a start token."""
    tokens, mask = padded([[backbone.start_id, *text] for text in texts], backbone.pad_id, "left")
    tokens, mask = tokens.to(backbone.device), mask.to(backbone.device)
    _, cache = advance(backbone, empty_cache(backbone.model), backbone.embed(tokens), mask)
    return Context(layer_states(cache), mask)


@torch.no_grad()
def rate(backbone: FrozenBackbone, context: Context, asked: Sequence[Question]) -> tuple[Tensor, Tensor]:
    """Log-probabilities (B, C) of the answers behind context and question; whether the first is the greedy one, (B)."""
    tokens, mask = padded([question.question for question in asked], backbone.pad_id, "left")
    tokens, mask = tokens.to(backbone.device), torch.cat([context.mask, mask.to(backbone.device)], 1)
    cache = fill_cache(backbone.model, context.layers)
    _, cache = advance(backbone, cache, backbone.embed(tokens[:, :-1]), mask[:, :-1])
    count, choices = len(asked), len(asked[0].answers)
    words, is_word = padded([a for question in asked for a in question.answers], backbone.pad_id, "right")
    words, is_word = words.to(backbone.device), is_word.to(backbone.device)
    tokens, mask = (part.repeat_interleave(choices, 0) for part in (tokens, mask))
    layers = [layer.map(lambda part: part.repeat_interleave(choices, 0)) for layer in layer_states(cache)]
    given = torch.cat([tokens[:, -1:], words[:, :-1]], 1)
    mask = F.pad(mask, (0, words.shape[1] - 1), value=True)
    hidden, _ = advance(backbone, fill_cache(backbone.model, layers), backbone.embed(given), mask)
    log_probs = F.log_softmax(backbone.logits(hidden).double(), -1)
    own = log_probs.gather(-1, words[..., None]).squeeze(-1).masked_fill(~is_word, 0.0)
    greedy = ((log_probs.argmax(-1) == words) | ~is_word).all(1)
    return own.sum(1).view(count, choices), greedy.view(count, choices)[:, 0]
