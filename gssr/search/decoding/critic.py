"""A critic: what the finished text will be worth, read from the states of every layer while the text is unfinished.

A layer's head sees k numbers uᵀ S v of each head's recurrent state S, or the values that its attention keeps; a small
network makes one value of them, and learned weights, positive and of sum 1, fuse the layers. The value estimates the
mean of the score given the states, in the score's own unit.

Shapes: B rows, l layers, M heads of dimension R, N state dimensions, k numbers of a head, S width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from gssr.backbone import FrozenBackbone
from gssr.search.decoding.rows import Rows
from gssr.search.decoding.saved import Kind, whole
from gssr.states.cache import LayerState, layer_states
from gssr.states.hybrid_state import capture_tokens

NUMBERS = 4  # k


class LayerHead(nn.Module):
    """The value (B,) of one layer's states, from what they are and how many tokens of the text are left."""

    def __init__(self, state: LayerState, width: int) -> None:
        super().__init__()
        if state.recurrent is not None:
            heads, *size = state.recurrent.shape[1:]
            self.left = nn.Parameter(torch.randn(NUMBERS, heads, size[0]) / size[0] ** 0.5)
            self.right = nn.Parameter(torch.randn(NUMBERS, heads, size[1]) / size[1] ** 0.5)
            count = NUMBERS * heads
        else:
            assert state.values is not None
            count = 2 * state.values.shape[1] * state.values.shape[3]
        self.is_recurrent = state.recurrent is not None
        self.value = nn.Sequential(nn.LayerNorm(count), nn.Linear(count, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, state: LayerState) -> Tensor:
        if self.is_recurrent:
            assert state.recurrent is not None
            read = torch.einsum("kmr,bmrn,kmn->bkm", self.left, state.recurrent.float(), self.right)
        else:
            assert state.values is not None
            values = state.values.float()
            read = torch.stack([values.mean(2), values[:, :, -1]], 1)
        return self.value(read.flatten(1))[:, 0]


class Critic(nn.Module):
    """Heads of some layers and their fusion.

    Args:
        layers: that it reads; None is every layer with a state.
        width: S, of each head.

    Raises:
        ValueError: a layer that the model has not, or one without a state.
    """

    def __init__(self, backbone: FrozenBackbone, layers: Sequence[int] | None = None, width: int = 32) -> None:
        super().__init__()
        states = capture_tokens(backbone, torch.full((1, 2), backbone.start_id)).layers
        known = [i for i, state in enumerate(states) if state.kind != "none"]
        if wrong := sorted(set(layers or ()) - set(known)):
            raise ValueError(f"layers {wrong} have no states to read; expected some of {known}")
        self.layers, self.width = known if layers is None else sorted(set(layers)), width
        self.heads = nn.ModuleDict({str(i): LayerHead(states[i], width) for i in self.layers})
        self.fusion = nn.Parameter(torch.zeros(len(self.layers)))
        # Of the scores in training.
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(self, states: Sequence[LayerState]) -> Tensor:
        """Standardised values (B,)."""
        values = torch.stack([self.heads[str(i)](states[i]) for i in self.layers], 1)
        return values @ self.fusion.softmax(0)

    @torch.no_grad()
    def value(self, rows: Rows) -> Tensor:
        """Expected score (B,) of rows, for ``blockwise``, ``particles`` and planners; all but their last token is
        read."""
        return self.mean + self.std * self(layer_states(rows.cache))

    def save(self, path: Path, backbone: FrozenBackbone) -> None:
        """Write a safetensors file with the model's fingerprint. Raises ValueError if that fails."""
        about = {"width": str(self.width), "layers": ",".join(map(str, self.layers))}
        KIND.save(path, self, backbone, about)

    @classmethod
    def load(cls, path: Path, backbone: FrozenBackbone) -> Critic:
        """Raises ValueError for a file that is damaged, of another kind, or of another model."""
        return KIND.load(path, backbone)


def _of_strings(backbone: FrozenBackbone, about: Mapping[str, str]) -> Critic:
    layers = about.get("layers", "")
    if not re.fullmatch(r"\d{1,4}(,\d{1,4})*", layers, re.ASCII):
        raise ValueError(f"it names the layers {layers[:40]!r}")
    return Critic(backbone, [int(layer) for layer in layers.split(",")], whole(about.get("width", ""), "width"))


KIND = Kind("gssr critic 1", "reads states of", "configs/critic.yaml", _of_strings)


def of_file(path: Path, backbone: FrozenBackbone) -> Callable[[Rows], Tensor]:
    """The value of a critic in a file, for a process that loads it itself."""
    return Critic.load(path, backbone).value
