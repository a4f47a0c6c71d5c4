"""Offsets of recurrent states, learned by gradient through the frozen model, for comparison with learned states.

Shapes: M heads of dimension R, N state dimensions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gssr.states.cache import layer_states
from gssr.states.directions import Direction
from gssr.states.examples import Examples, Intervention, Learning, fit
from gssr.states.offset_scan import scan_offsets
from gssr.states.rules import Schedule


def learn_offset(
    examples: Examples,
    schedule: Schedule,
    settings: Learning,
    layers: Sequence[int] | None = None,
) -> tuple[Direction, list[float]]:
    """The offset of each layer that makes the continuations likely when ``Offset`` adds it by ``schedule``.

    An offset changes recurrent states only; conv states and attention keep what they hold of the prompt. Where the text
    should become another one, `gssr.states.learned_state` does better.

    Returns:
        (M, R, N) for each layer, and the loss of every step.

    Raises:
        ValueError: layers without a recurrent state.
    """
    read = enumerate(layer_states(examples.read_some()))
    states = {i: layer.recurrent for i, layer in read if layer.recurrent is not None}
    scales = {layer: x.square().mean().sqrt().item() for layer, x in states.items()}
    chosen = sorted(scales if layers is None else set(layers))
    if wrong := sorted(set(chosen) - set(scales)):
        raise ValueError(f"layers {wrong} have no recurrent state; expected some of {sorted(scales)}")
    # In units of each layer's states, so that one rate suits all layers.
    relative = {layer: torch.zeros_like(states[layer][0]).requires_grad_() for layer in chosen}

    def change() -> dict[int, Tensor]:
        return {layer: scales[layer] * x for layer, x in relative.items()}

    acting = Intervention(around=lambda: scan_offsets(examples.backbone, change(), schedule))
    losses = fit(list(relative.values()), examples, acting, settings)
    return {layer: scales[layer] * x.detach() for layer, x in relative.items()}, losses
