"""A random order of any number of indices, computed where it is asked for and kept nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import numpy as np

ROUNDS = 6


class Shuffle:
    """A pseudo-random permutation of 0 to size - 1 that a key decides; `shuffle[a:b]` computes only that part of it.

    An index is a pair (l, r) of digits below `side`, the root of the size rounded up. It goes through a Feistel
    network, (l, r) -> (r, l + F(r) mod side), which can be undone whatever F is, and so hits no pair twice. One index
    in root(size) / 2 lands at size or above; it goes through again until it does not (Black and Rogaway 2002, "Ciphers
    with arbitrary finite domains"). With few indices there are too few F to make all orders equally likely, so shuffle
    those in memory.

    Args:
        size: Number of indices, at least 1.
        key: Whole numbers that the order depends on.
    """

    def __init__(self, size: int, key: Sequence[int]) -> None:
        assert 1 <= size < 2**62
        self.size, self._side = size, np.uint64(isqrt(size - 1) + 1)
        self._keys = np.random.default_rng(key).integers(2**64, size=ROUNDS, dtype=np.uint64)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, places: slice) -> np.ndarray:
        """The indices at some places of the order, int64."""
        found = self._once(np.arange(*places.indices(self.size), dtype=np.uint64))
        while (outside := found >= self.size).any():
            found[outside] = self._once(found[outside])
        return found.astype(np.int64)

    def _once(self, index: np.ndarray) -> np.ndarray:
        left, right = np.divmod(index, self._side)
        for key in self._keys:
            left, right = right, (left + _mix(right ^ key) % self._side) % self._side
        return left * self._side + right


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit of x moves about half of all bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
