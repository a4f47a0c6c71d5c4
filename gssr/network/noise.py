"""Noise of single windows: a score must not depend on what else is in its batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class WindowNoise:
    """Random numbers that depend on a window's number, a purpose, and on how often they were asked for.

    Batch size, padding and the number of processes do not change them. The generator is counter-based: any key gives an
    independent stream at once (Philox in Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

    Args:
        windows: numbers of the B windows of a batch.
        purpose: tells the noise of one score from that of another.
        every: what costs much is measured in one of so many windows.
    """

    def __init__(self, windows: Sequence[int], purpose: int, every: int = 1) -> None:
        self.windows, self.purpose, self._asked = list(windows), purpose, 0
        self.chosen = [window % every == 0 for window in windows]

    def normal(self, rows: int, steps: int, width: int) -> Tensor:
        """Standard normal noise (rows, steps, width) of S · B sample-major rows."""
        assert rows % len(self.windows) == 0
        shape = (steps, rows // len(self.windows), width)  # steps first: padding behind them changes none before
        parts = [stream.standard_normal(shape, np.float32) for stream in self._streams()]
        return torch.from_numpy(np.stack(parts, 2)).permute(1, 2, 0, 3).flatten(0, 1)

    def pick(self, counts: Sequence[int]) -> list[int]:
        """An index below each of B counts, each of at least 1."""
        return [int(stream.integers(count)) for stream, count in zip(self._streams(), counts, strict=True)]

    def _streams(self) -> list[np.random.Generator]:
        self._asked += 1
        # The last word of the counter tells one asking from the next; drawing counts in the first.
        counter = [0, 0, 0, self._asked]
        return [
            np.random.Generator(np.random.Philox(key=[window, self.purpose], counter=counter))
            for window in self.windows
        ]
