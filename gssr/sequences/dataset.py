"""Windows with goals written as they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Dataset

from gssr.sequences.batches import Key
from gssr.sequences.goals import MODES, GoalWriter
from gssr.sequences.record import Record


class WindowDataset(Dataset[Record]):
    """Windows, each with a goal that depends on (seed, epoch, index) alone: not on order, workers or global random
    state.

    `mode` is the goal writer's; without a writer records come as they are (with the goals that they bring).
    `goal_cycle` n > 0 repeats the goals after n epochs, so that the encodings of n sentences a window can be kept; 0
    never repeats. Records that come as a sequence are read one by one, when they are asked for.
    """

    def __init__(
        self,
        records: Sequence[Record],
        writer: GoalWriter | None = None,
        mode: str = "train",
        seed: int = 0,
        goal_cycle: int = 0,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"unknown goal mode {mode!r}; expected one of {MODES}")
        if goal_cycle < 0 or seed < 0:
            raise ValueError(f"goal_cycle {goal_cycle} and seed {seed} must not be negative")
        self.records = records
        self.writer, self.mode, self.seed, self.goal_cycle = writer, mode, seed, goal_cycle

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | Key) -> Record:
        """The window of an index (epoch 0) or of (epoch, index). Raises IndexError past the end, as sequences do."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        index %= len(self)
        record = self.records[index]
        if self.writer is None:
            return record
        if self.goal_cycle:
            epoch %= self.goal_cycle
        return self.writer.write(record, self.mode, np.random.default_rng([self.seed, epoch, index]))

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))
