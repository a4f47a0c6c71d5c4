"""From the belief to text through the frozen model: a soft prefix, a change of its recurrent states, or both.

    prefix   the text stands behind P embeddings projected from x
    state    before every token of the text, the states of chosen layers are changed by a low-rank map of x

Training and generation make the same change at the same tokens: in training it has a closed form
(`gssr.states.offset_scan.scan_offsets`), in generation it is written into the cache (`gssr.states.intervention.steer`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gssr.backbone import FrozenBackbone
from gssr.domains import Few, Layers, checked
from gssr.network.config import fixed
from gssr.network.heads import PrefixProjector
from gssr.network.layers import exact
from gssr.network.state_projector import StateProjector
from gssr.states.hybrid_state import HybridState
from gssr.states.intervention import steer
from gssr.states.offset_scan import scan_offsets
from gssr.states.rules import LowRank, Offset, Schedule, norm

# The norm of a state hardly depends on the text.
SAMPLE = "Time goes on, and what has been said before is kept in the state."


@checked
@dataclass(frozen=True)
class SpeechConfig:
    """How the belief speaks through the frozen model.

    Args:
        injection: prefix, state (its recurrent states) or both.
        prefix_tokens: P, prefix tokens.
        state_rank: Rank of a change of states.
        state_layers: Layers whose states are changed; null: all that have a recurrent state.
    """

    injection: Literal["prefix", "state", "both"] = fixed("prefix")
    prefix_tokens: Few = fixed(4)
    state_rank: Few = fixed(8)
    state_layers: Layers | None = fixed(None)


class Speaker(nn.Module):
    """Texts behind beliefs.

    Args:
        config: how the belief speaks. backbone: the frozen model; it is no submodule.
        latent_dim: D. hidden_dim: width of the projectors.

    Raises:
        ValueError: a layer without a recurrent state is to be changed.
    """

    prefix: PrefixProjector | None
    state: StateProjector | None

    def __init__(self, config: SpeechConfig, backbone: FrozenBackbone, latent_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.backbone, self.prefix, self.state = backbone, None, None
        if config.injection != "state":
            width, scale = backbone.hidden_size, backbone.embedding_scale
            self.prefix = PrefixProjector(latent_dim, hidden_dim, config.prefix_tokens, width, scale)
        if config.injection != "prefix":
            states = _states(backbone)
            chosen = sorted(states if config.state_layers is None else config.state_layers)
            if wrong := sorted(set(chosen) - set(states)):
                raise ValueError(f"state_layers {wrong} have no recurrent state; expected some of {sorted(states)}")
            shapes = {layer: states[layer].shape[1:] for layer in chosen}
            scales = {layer: norm(states[layer]).item() for layer in chosen}
            self.state = StateProjector(latent_dim, hidden_dim, config.state_rank, shapes, scales)

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    def forward(self, x: Tensor) -> tuple[Tensor, dict[int, LowRank]]:
        """The prefix (N, P, E) and the change of states by layer (none without a projector) of beliefs x (N, D).

        Without a prefix a text stands behind one more start token, because only states of something read can change.
        """
        change = {} if self.state is None else self.state(x)
        if self.prefix is not None:
            return self.prefix(x), change
        start = torch.full((len(x), 1), self.backbone.start_id, device=x.device)
        return self.backbone.embed(start), change

    def text_nats(self, x: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Nats (N,) and tokens (N,) of texts behind beliefs x (N, D)."""
        prefix, change = self(x)
        if not change:
            return self.backbone.text_nats(prefix, texts)
        # Behind the prefix, before the start token: a generation is steered from there, too.
        schedule = Schedule(start=prefix.shape[1])

        def around(rows: list[int]) -> AbstractContextManager[Any]:
            return scan_offsets(self.backbone, _rows(change, rows), schedule)

        return self.backbone.text_nats(prefix, texts, around)

    def silent_nats(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Nats (N,) and tokens (N,) of texts behind nothing: their cost without a belief."""
        nothing = self.backbone.table.weight.new_zeros(len(texts), 0, self.backbone.hidden_size)
        return self.backbone.text_nats(nothing, texts)

    def zero(self, x: Tensor) -> Tensor:
        """0 with a zero gradient into every parameter: one without a gradient would stop DDP. x (N, D)."""
        prefix, change = self(x[:1])
        return 0 * (prefix.sum() + sum(part.left.sum() + part.right.sum() for part in change.values()))

    @exact
    @torch.no_grad()
    def write(self, x: Tensor, max_new_tokens: int = 64) -> list[str]:
        """The most likely text, token by token, behind each belief x (N, D)."""
        prefix, change = self(x)
        with steer(self.backbone.model, Offset(change)) if change else nullcontext():
            return self.backbone.generate(prefix, max_new_tokens)


def _states(backbone: FrozenBackbone) -> dict[int, Tensor]:
    """The state (1, M, R, N) of each recurrent layer behind a sample text."""
    with torch.device(backbone.device):  # also where the speaker itself is only sketched, on the device "meta"
        captured = HybridState.capture(backbone, [SAMPLE])
    return {i: layer.recurrent for i, layer in enumerate(captured.layers) if layer.recurrent is not None}


def _rows(change: Mapping[int, LowRank], rows: list[int]) -> dict[int, LowRank]:
    return {layer: LowRank(part.left[rows], part.right[rows]) for layer, part in change.items()}
