"""Write a text into any state without reading it there, and take it out again.

A Mamba-2 layer is linear in its state: behind a text with total decay D and own state s, any state h is D·h + s. Within
one layer this is exact. Above it, s depends on what the layers below said while the text was read, and a piece is read
behind the beginning of a text alone.

Keys and values of attention are appended. That is possible where a model has no positions.

Shapes: B rows, L tokens, M heads of dimension R, N state dimensions.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.control.functional import Layers, LogDecay, decays, read
from gssr.states.cache import LayerState


@dataclass(frozen=True, eq=False)
class Piece:
    """What a text does to a state: its own states (``layers``), and log D, (B, M) by layer."""

    layers: Layers
    log_decay: LogDecay


def beginning(backbone: FrozenBackbone, rows: int = 1) -> Layers:
    """States behind the begin-of-text token."""
    with torch.no_grad():
        return read(backbone, None, torch.full((rows, 1), backbone.start_id)).layers


@torch.no_grad()
def piece(backbone: FrozenBackbone, tokens: Tensor, behind: Layers | None = None) -> Piece:
    """Read token ids (B, L), all of one length, and keep what they alone add: s = h' − D·h.

    Args:
        behind: states that the text is read behind; by default those of a text's beginning.

    Raises ValueError for a model without Mamba-2 layers, or with keys that depend on their position.
    """
    behind = beginning(backbone, len(tokens)) if behind is None else behind
    if any(layer.keys is not None for layer in behind):
        require_no_positions(backbone)
    with decays(backbone) as log_decay:
        after = read(backbone, behind, tokens).layers
    own = (_added(old, new, log_decay.get(i)) for i, (old, new) in enumerate(zip(behind, after, strict=True)))
    return Piece(tuple(own), log_decay)


def compose(layers: Layers, written: Piece, gain: float = 1.0) -> Layers:
    """States behind ``layers`` and a piece: D·h + gain · s, and the piece's inputs of the convolution.

    Differentiable in both.
    """
    return tuple(
        _composed(before, own, written.log_decay.get(i), gain)
        for i, (before, own) in enumerate(zip(layers, written.layers, strict=True))
    )


def remove(layers: Layers, written: Piece, log_decay: LogDecay) -> Layers:
    """States without a piece, after whose end there was a total decay of ``log_decay``, (B, M) by layer.

    What the layers above made of it while other text was read stays.
    """
    return tuple(
        layer
        if layer.recurrent is None
        else replace(layer, recurrent=layer.recurrent - _spread(log_decay[i]) * written.layers[i].recurrent)
        for i, layer in enumerate(layers)
    )


def _composed(before: LayerState, own: LayerState, log_decay: Tensor | None, gain: float) -> LayerState:
    if own.keys is not None and before.keys is not None:
        own = replace(own, keys=torch.cat([before.keys, own.keys], 2), values=torch.cat([before.values, own.values], 2))
    if own.recurrent is None or log_decay is None:
        return own
    return replace(own, recurrent=_spread(log_decay) * before.recurrent + gain * own.recurrent)


def _spread(log_decay: Tensor) -> Tensor:
    """D (B, M, 1, 1) of log D (B, M)."""
    return log_decay.exp()[..., None, None]


def _added(before: LayerState, after: LayerState, log_decay: Tensor | None) -> LayerState:
    if before.keys is not None and after.keys is not None and after.values is not None:
        past = before.keys.shape[2]
        after = replace(after, keys=after.keys[:, :, past:], values=after.values[:, :, past:])
    if before.recurrent is None or after.recurrent is None or log_decay is None:
        return after
    return replace(after, recurrent=after.recurrent - _spread(log_decay) * before.recurrent)


def require_no_positions(backbone: FrozenBackbone) -> None:
    """Raises ValueError for a model whose keys depend on their position, so that none can be appended."""
    rotary = any("rotary" in name for name, _ in backbone.model.named_modules())
    if rotary and getattr(backbone.config, "position_embedding_type", "rope") is not None:
        raise ValueError(
            f"keys of {backbone.name!r} are rotated by their position and cannot be appended; compose in a model "
            "without positions, such as nano, or read the fact"
        )
