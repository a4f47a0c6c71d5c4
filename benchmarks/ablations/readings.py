"""Readings that show how much a network gains from the content of texts, and from texts at all."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.backbone.readings import Reading


class ConstantReading(Reading):
    """Every text has the features 0: the network sees that there is a text, and not which one."""

    key = ("constant",)

    def read(self, backbone: FrozenBackbone, texts: Sequence[str], layers: Sequence[int]) -> Tensor:
        return torch.zeros(len(texts), len(layers) * backbone.hidden_size)


class NoReading(Reading):
    """Every text counts as missing."""

    observes = False
