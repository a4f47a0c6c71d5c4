"""Directions to steer in: random ones and differences of mean states. Learned ones: `gssr.states.learned_state`, `gssr.states.learned`.

A direction is a tensor (M, R, N) for each recurrent layer. Any states by layer are one: those of a captured state are
targets for `gssr.states.rules.Interpolation`.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.states.cache import empty_cache, read, recurrent_layers

Direction = dict[int, Tensor]


def recurrent_states(backbone: FrozenBackbone, texts: Sequence[str]) -> Direction:
    """States behind each text, (B, M, R, N) for each recurrent layer, in float32.

    Raises:
        ValueError: no text, a text without a token, or a model without recurrent states.
    """
    ids = backbone.tokenize(texts) if texts else []
    if not ids or not all(ids):
        raise ValueError("states are read from texts of at least one token each; an empty one, or none, was given")
    longest = max(map(len, ids))
    # Left padding in front of an empty cache is exact; right padding would be read into the state.
    padded = torch.tensor([[backbone.start_id] * (longest - len(i) + 1) + i for i in ids], device=backbone.device)
    mask = torch.tensor([[False] * (longest - len(i)) + [True] * (len(i) + 1) for i in ids], device=backbone.device)
    cache = empty_cache(backbone.model)
    read(backbone, cache, padded, mask)
    return {layer: cache.get_recurrent_state(layer).float() for layer in recurrent_layers(cache)}


def mean_difference(backbone: FrozenBackbone, towards: Sequence[str], away: Sequence[str]) -> Direction:
    """Mean state behind the texts of one set minus that of the other."""
    ahead, behind = recurrent_states(backbone, towards), recurrent_states(backbone, away)
    return {layer: ahead[layer].mean(0) - behind[layer].mean(0) for layer in ahead}


def random_like(direction: Mapping[int, Tensor], seed: int) -> Direction:
    """Gaussian directions of the same shape and norm in each layer: the control."""
    generator = torch.Generator().manual_seed(seed)
    noise = {layer: torch.randn(x.shape, generator=generator) for layer, x in sorted(direction.items())}
    return {layer: x * (direction[layer].norm().cpu() / x.norm()) for layer, x in noise.items()}
