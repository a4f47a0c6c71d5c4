"""Some of very many rows, at one bit a row."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

BLOCK = 512  # bytes of bits between two counts


class Marks:
    """The marked ones of N rows: how many there are, and which is the k-th, without a list of them.

    A bit says of each row whether it is marked, and of each block of rows it is known how many are marked before it: 0.13 bytes
    a row, where a list would take 8.

    Args:
        chunks: whether rows are marked, bool, any number of them at a time.
    """

    def __init__(self, chunks: Iterable[np.ndarray]) -> None:
        bits, rest = bytearray(), np.empty(0, bool)
        for chunk in chunks:
            rest = np.concatenate([rest, chunk])
            whole = len(rest) // 8 * 8
            bits += np.packbits(rest[:whole]).data
            rest = rest[whole:]
        bits += np.packbits(rest).data
        self._bits = np.frombuffer(bytes(bits), np.uint8)
        blocks = range(0, len(self._bits), BLOCK)
        counts = [int(np.bitwise_count(self._bits[start : start + BLOCK]).sum(dtype=np.int64)) for start in blocks]
        self._before = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self._before[-1])

    def find(self, k: int) -> int:
        """The row that is marked as the k-th, from 0."""
        assert 0 <= k < len(self)
        block = int(np.searchsorted(self._before, k, "right")) - 1
        inside = np.flatnonzero(np.unpackbits(self._bits[block * BLOCK : (block + 1) * BLOCK]))
        return 8 * BLOCK * block + int(inside[k - self._before[block]])
