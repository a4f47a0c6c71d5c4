"""The states of each layer, and how much a change of one layer's state changes the next tokens.

Shapes as in `gssr.states.hybrid_state`; W tokens of a continuation, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.backbone import FrozenBackbone
from gssr.states.advance import advance
from gssr.states.cache import ATTENTION, LayerState
from gssr.states.hybrid_state import HybridState, check_backbone, repeat_rows


@dataclass(frozen=True)
class PartReport:
    """One tensor of a layer. ``norm`` is the mean over rows of a row's Frobenius norm without padding."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    norm: float


@dataclass(frozen=True)
class LayerReport:
    layer: int
    kind: str
    parts: list[PartReport]


@dataclass(frozen=True)
class Leverage:
    """Effect of a random change of one layer's state, mean over rows and directions.

    ``kl_next`` is KL(unchanged ‖ changed) of the next token's distribution, in nats, with its standard error over
    directions in ``kl_next_error``. The changed model also reads the unchanged model's greedy continuation:
    ``kl_continuation`` is the mean KL of its tokens, ``agreement`` the share of places at which the most likely token
    stays the same.
    """

    layer: int
    kind: str
    kl_next: float
    kl_next_error: float
    kl_continuation: float
    agreement: float


def describe(state: HybridState) -> list[LayerReport]:
    """Kind, shapes, types, bytes and norms, layer by layer."""
    reports = []
    for i, layer in enumerate(state.layers):
        parts = []
        for name, part in layer.parts():
            dtype, norm = str(part.dtype).removeprefix("torch."), _norm(state, name, part).mean().item()
            parts.append(PartReport(name, tuple(part.shape), dtype, part.nbytes, norm))
        reports.append(LayerReport(i, layer.kind, parts))
    return reports


def nbytes(state: HybridState) -> dict[str, int]:
    """Bytes by kind: ``recurrent`` and ``conv`` have a fixed size, ``attention`` and ``tokens`` grow."""
    sizes = dict.fromkeys(("recurrent", "conv", "attention"), 0)
    for layer in state.layers:
        for name, part in layer.parts():
            sizes["attention" if name in ATTENTION else name] += part.nbytes
    return sizes | {"tokens": state.tokens.nbytes + state.mask.nbytes}


@torch.no_grad()
def leverage(
    backbone: FrozenBackbone,
    state: HybridState,
    share: float = 0.5,
    tokens: int = 32,
    directions: int = 4,
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> list[Leverage]:
    """Add a random direction to each layer's state, one layer at a time, and measure its effect.

    A direction's norm is ``share`` times the norm of what it changes: the recurrent state of a Mamba-2 layer, the
    keys and the values of an attention layer. The change happens once, before the first token of the continuation.

    Args:
        tokens: W, length of the continuation under which the effect is measured.
        directions: random directions for each layer and row. A layer's directions depend on ``seed`` and not on
            ``layers``.
        layers: counted from 0; all layers with a state by default.

    Raises:
        ValueError: a negative share, no tokens or directions, or a layer that does not exist or has no state.
    """
    having = [i for i, layer in enumerate(state.layers) if layer.kind != "none"]
    layers = having if layers is None else list(layers)
    for i in layers:
        if i not in having:
            raise ValueError(f"layer {i} has no state; {backbone.name!r} has one in layers {having}")
    if not 0 <= share < math.inf or tokens < 1 or directions < 1:
        raise ValueError(
            f"share {share:g}, {tokens} tokens and {directions} directions; expected a finite share of at least 0 "
            "and at least one of the others"
        )
    # All rows must have equally many words: an end-of-text token would end some rows early.
    words = state.generate(backbone, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens)
    copies, words = repeat_rows(state, directions), words.repeat_interleave(directions, 0)
    # Of as many rows as with a change, since products of matrices round otherwise for another number.
    expected = continuation_log_probs(backbone, copies, words)
    found = []
    for i in layers:
        changed = copies.with_layers({i: _changed(copies, i, share, seed)})
        got = continuation_log_probs(backbone, changed, words)
        kl = (expected.exp() * (expected - got)).sum(-1).view(state.rows, directions, tokens)
        means = kl[..., 0].mean(0)
        error = means.std().item() / directions**0.5 if directions > 1 else float("nan")
        agreement = (expected.argmax(-1) == got.argmax(-1)).double().mean().item()
        found.append(Leverage(i, state.layers[i].kind, means.mean().item(), error, kl.mean().item(), agreement))
    return found


@torch.no_grad()
def continuation_log_probs(backbone: FrozenBackbone, state: HybridState, words: Tensor) -> Tensor:
    """Log-probabilities (B, W, V), float64, at each place of a continuation ``words`` (B, W) of the state."""
    check_backbone(state, backbone)
    words = words.to(backbone.device)
    tokens = torch.cat([state.tokens[:, -1:].to(backbone.device), words[:, :-1]], 1)
    mask = F.pad(state.mask.to(backbone.device), (0, words.shape[1] - 1), value=True)
    hidden, _ = advance(backbone, state.to_cache(backbone.model), backbone.embed(tokens), mask)
    # In float64, since the KL of a small change is a difference of nearly equal numbers.
    return F.log_softmax(backbone.logits(hidden).double(), -1)


def _changed(state: HybridState, layer: int, share: float, seed: int) -> LayerState:
    # A generator for each layer, so that its directions do not depend on which other layers are measured.
    generator = torch.Generator().manual_seed(1_000_003 * seed + layer)
    changed = {}
    for name, part in state.layers[layer].parts():
        if name == "conv":
            continue
        noise = torch.randn(part.shape, generator=generator).to(part.device)
        norms = [_norm(state, name, x).view(-1, *[1] * (part.ndim - 1)) for x in (part, noise)]
        changed[name] = (part.float() + noise * (share * norms[0] / norms[1])).to(part.dtype)
    return replace(state.layers[layer], **changed)


def _norm(state: HybridState, name: str, part: Tensor) -> Tensor:
    """(B,): norm of each row without its padding."""
    part = part.float()
    if name in ATTENTION:
        part = part * state.mask[:, None, :-1, None].to(part.device)
    return part.flatten(1).norm(dim=1)
