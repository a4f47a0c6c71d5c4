"""Blend states: weighted means of recurrent states, and everything else from one of the states.

A Mamba-2 layer reads its state linearly, y = h C. So a weighted mean of recurrent states holds every text with its
weight, whatever the texts' lengths. Keys, values and conv states depend on positions and have no such mean: texts of
different length do not align. They come from one state, the *anchor*, together with the text, its unread token and the
position. The anchor is the state with the largest weight (mean over the recurrent layers; the first of equals) by
default.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce

import torch

from gssr.states.checks import check_layout
from gssr.states.hybrid_state import HybridState


def blend(
    states: Sequence[HybridState],
    weights: Sequence[float],
    layers: Mapping[int, Sequence[float]] | None = None,
    anchor: int | None = None,
) -> HybridState:
    """A new state with weighted means of the recurrent states; a weight of 1 gives exactly that state.

    Args:
        states: of one backbone and with equally many rows; row meets row.
        weights: one for each state, not negative; divided by their sum. Of two states with ratio r they are (1 − r, r).
        layers: other weights for some recurrent layers.
        anchor: index of the state that gives attention keys and values, conv states, tokens and position.

    Raises:
        ValueError: states that do not fit each other, wrong weights, no such anchor, or a layer without a recurrent
            state.
    """
    for state in states[1:]:
        if state.fingerprint != states[0].fingerprint:
            raise ValueError(
                f"states of different backbones cannot be blended: {states[0].backbone!r} (fingerprint "
                f"{states[0].fingerprint}) and {state.backbone!r} (fingerprint {state.fingerprint})"
            )
    if not states or any(state.rows != states[0].rows for state in states):
        raise ValueError(
            f"states with {[state.rows for state in states]} rows cannot be blended; select as many of each"
        )
    for state in states[1:]:
        check_layout(dict(enumerate(state.layers)), dict(enumerate(states[0].layers)))
    recurrent = states[0].recurrent_layers
    for layer in layers or {}:
        if layer not in recurrent:
            raise ValueError(f"layer {layer} has no recurrent state to blend; layers that have: {recurrent}")
    shares = dict.fromkeys(recurrent, _shares(weights, len(states)))
    shares |= {layer: _shares(own, len(states)) for layer, own in (layers or {}).items()}
    if anchor is None:
        mean = [sum(share[s] for share in shares.values()) for s in range(len(states))]
        anchor = mean.index(max(mean))
    elif not 0 <= anchor < len(states):
        raise ValueError(f"anchor {anchor} does not exist; the states are numbered 0 to {len(states) - 1}")
    changed = {}
    for layer, share in shares.items():
        # Without the states of weight 0, so that a weight of 1 gives exactly that state.
        parts = [w * state.layers[layer].recurrent for state, w in zip(states, share, strict=True) if w > 0]
        changed[layer] = replace(states[anchor].layers[layer], recurrent=reduce(torch.add, parts))
    return states[anchor].with_layers(changed)


def ratio_weights(ratio: float) -> tuple[float, float]:
    """Weights of two states: 0 is the first, 1 the second. Raises ValueError for a ratio outside of 0 to 1."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"the ratio {ratio:g} is not between 0 (the first state) and 1 (the second)")
    return 1 - ratio, ratio


def _shares(weights: Sequence[float], count: int) -> list[float]:
    if len(weights) != count:
        raise ValueError(f"{len(weights)} weights for {count} states; give one for each")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not 0 < sum(weights) < math.inf:
        raise ValueError(f"the weights {list(weights)} are not all at least 0 with a finite sum above it")
    return [w / sum(weights) for w in weights]
