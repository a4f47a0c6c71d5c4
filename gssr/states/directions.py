"""Directions to steer in: random ones, and differences of mean states.

A direction is a tensor (M, R, N) for each recurrent layer. The states behind a text have the same form; they can be
targets of `gssr.states.rules.Interpolation`. `gssr.states.learned_state` learns targets by gradient.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.states.advance import advance, left_padded
from gssr.states.cache import empty_cache, layer_states

Direction = dict[int, Tensor]


@torch.no_grad()
def recurrent_states(backbone: FrozenBackbone, texts: Sequence[str]) -> Direction:
    """States behind each text, (B, M, R, N) for each recurrent layer, in float32.

    Raises ValueError for no text, a text without a token, or a model without recurrent states.
    """
    tokens, mask = left_padded(backbone, texts, backbone.pad_id)
    _, cache = advance(backbone, empty_cache(backbone.model), backbone.embed(tokens), mask)
    layers = enumerate(layer_states(cache))
    return {i: layer.recurrent.float() for i, layer in layers if layer.recurrent is not None}


def mean_difference(backbone: FrozenBackbone, towards: Sequence[str], away: Sequence[str]) -> Direction:
    """Mean state behind the texts ``towards`` minus the mean state behind the texts ``away``."""
    ahead, behind = recurrent_states(backbone, towards), recurrent_states(backbone, away)
    return {layer: ahead[layer].mean(0) - behind[layer].mean(0) for layer in ahead}


def random_like(direction: Mapping[int, Tensor], seed: int) -> Direction:
    """Gaussian directions with each layer's shape and norm, as a control."""
    generator = torch.Generator().manual_seed(seed)
    noise = {layer: torch.randn(x.shape, generator=generator) for layer, x in sorted(direction.items())}
    return {layer: x * (direction[layer].norm().cpu() / x.norm()) for layer, x in noise.items()}
