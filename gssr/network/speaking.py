"""How the belief speaks through the frozen model: a soft prefix, its recurrent states, or both.

    prefix   the text stands behind P embeddings projected from x
    state    before every token of the text, chosen layers' states are changed by a low-rank map of x

Whether a change is trained through or acts while the model writes, it is the same change at the same tokens: in training it has a
closed form (`gssr.states.offset_scan.scan_offsets`), in generation it is written into the cache (`gssr.states.intervention.steer`).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.network.heads import PrefixProjector
from gssr.network.state_projector import StateProjector
from gssr.states.hybrid_state import HybridState
from gssr.states.intervention import steer
from gssr.states.offset_scan import scan_offsets
from gssr.states.rules import LowRank, Offset, Schedule, norm

INJECTIONS = ("prefix", "state", "both")
# Any text does: its states give the size of one.
SAMPLE = "Time goes on, and what has been said before is kept in the state."


class Speaking:
    """The part of GoalNetwork that speaks; a mixin over its ``prefix``, its ``state`` (either may be None) and its backbone."""

    backbone: FrozenBackbone
    prefix: PrefixProjector | None
    state: StateProjector | None

    def _build_speech(self) -> None:
        p: Any = self.hparams
        if p.injection not in INJECTIONS:
            raise ValueError(f"injection {p.injection!r} is not known; expected one of {INJECTIONS}")
        self.prefix = self.state = None
        if p.injection != "state":
            width, scale = self.backbone.hidden_size, self.backbone.embedding_scale
            self.prefix = PrefixProjector(p.latent_dim, p.hidden_dim, p.prefix_tokens, width, scale)
        if p.injection != "prefix":
            states = _states(self.backbone)
            chosen = sorted(states if p.state_layers is None else p.state_layers)
            if wrong := sorted(set(chosen) - set(states)):
                raise ValueError(f"state_layers {wrong} have no recurrent state; expected some of {sorted(states)}")
            shapes = {layer: states[layer].shape[1:] for layer in chosen}
            scales = {layer: norm(states[layer]).item() for layer in chosen}
            self.state = StateProjector(p.latent_dim, p.hidden_dim, p.state_rank, shapes, scales)

    def speech(self, x: Tensor) -> tuple[Tensor, dict[int, LowRank]]:
        """What x (N, D) puts in front of a text, (N, P, E), and the change of states by layer (none without a state projector).

        Without a prefix of its own a text stands behind one more start token: states can be changed when something was read.
        """
        change = {} if self.state is None else self.state(x)
        if self.prefix is not None:
            return self.prefix(x), change
        start = torch.full((len(x), 1), self.backbone.start_id, device=x.device)
        return self.backbone.embed(start), change

    def text_nats(self, x: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Nats (N,) and tokens (N,) of texts behind what x (N, D) says."""
        prefix, change = self.speech(x)
        if not change:
            return self.backbone.text_nats(prefix, texts)
        # Behind the prefix, before the start token: where the first new token of a generation is steered.
        schedule = Schedule(start=prefix.shape[1])

        def around(rows: list[int]) -> AbstractContextManager[Any]:
            return scan_offsets(self.backbone, _rows(change, rows), schedule)

        return self.backbone.text_nats(prefix, texts, around)

    def silent_nats(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Nats (N,) and tokens (N,) of texts behind nothing at all: what they cost without a belief."""
        nothing = self.backbone.table.weight.new_zeros(len(texts), 0, self.backbone.hidden_size)
        return self.backbone.text_nats(nothing, texts)

    def silence(self, x: Tensor) -> Tensor:
        """0, by way of all that speaks: a parameter that takes no part would stop DDP. x (N, D)."""
        prefix, change = self.speech(x[:1])
        return 0 * (prefix.sum() + sum(part.left.sum() + part.right.sum() for part in change.values()))

    @torch.no_grad()
    def write(self, x: Tensor, max_new_tokens: int = 64) -> list[str]:
        """The most likely text behind what each x (N, D) says."""
        prefix, change = self.speech(x)
        with steer(self.backbone.model, Offset(change)) if change else nullcontext():
            return self.backbone.generate(prefix, max_new_tokens)


def _states(backbone: FrozenBackbone) -> dict[int, Tensor]:
    """(1, M, R, N) of each recurrent layer behind a sample text."""
    captured = HybridState.capture(backbone, [SAMPLE])
    return {i: layer.recurrent for i, layer in enumerate(captured.layers) if layer.recurrent is not None}


def _rows(change: Mapping[int, LowRank], rows: list[int]) -> dict[int, LowRank]:
    return {layer: LowRank(part.left[rows], part.right[rows]) for layer, part in change.items()}
