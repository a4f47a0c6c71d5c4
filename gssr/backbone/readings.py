"""How a text becomes an observation. Shapes: N texts, F features of a text, E backbone width."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gssr.backbone.frozen import FrozenBackbone


class Reading:
    """Turns texts into features; `gssr.backbone.table.TextTable` keeps them.

    ``observes``: False lets every text count as missing. ``key`` distinguishes the reading's file of kept features.
    """

    observes: bool = True
    key: tuple[str, ...] = ()

    def read(self, backbone: FrozenBackbone, texts: Sequence[str], layers: Sequence[int]) -> Tensor:
        """Features (N, F) of texts, float32, F = len(layers) · E."""
        raise NotImplementedError


class MeanReading(Reading):
    """The mean over a text's tokens of their states at each layer."""

    @torch.no_grad()
    def read(self, backbone: FrozenBackbone, texts: Sequence[str], layers: Sequence[int]) -> Tensor:
        return backbone.mean_states(texts, layers)
