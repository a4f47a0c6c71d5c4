"""The strength of a goal's pull while a block runs: 1 as trained, 0 exactly without a goal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def gain(network: Any, multiplier: float) -> Iterator[None]:
    """Every gain of the network's steered prior times `multiplier`; as before at the end.

    With 0 and the same generator the rollouts are those without a goal, bit for bit.

    Raises ValueError for a multiplier below 0.
    """
    if multiplier < 0:
        raise ValueError(f"the gain was to be multiplied by {multiplier}; expected 0 (no goal) or more")
    before = network.steering.strength
    network.steering.strength = multiplier * before
    try:
        yield
    finally:
        network.steering.strength = before
