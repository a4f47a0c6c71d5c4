"""Windows with goals written as they are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from torch.utils.data import Dataset

from gssr.sequences.batches import Key
from gssr.sequences.goals import MODES, GoalWriter
from gssr.sequences.record import Record


def check_jitter(level_jitter: float) -> None:
    """Raises ValueError for a negative or infinite spread of levels."""
    if not 0 <= level_jitter < math.inf:
        raise ValueError(f"level_jitter is {level_jitter}; expected 0 (values as they are) or more, such as 0.2")


class WindowDataset(Dataset[Record]):
    """Windows, each with a goal that depends only on (seed, epoch, index), and not on the order of reading or workers.

    `mode` is the goal writer's; without a writer records come as they are, with the goals that they bring. `goal_cycle`
    n > 0 repeats the goals after n epochs, so that the encodings of n sentences a window can be kept; 0 never repeats.
    Records are read one by one, when they are asked for.

    `level_jitter` s > 0 multiplies a window by exp(s z) in each epoch, with a standard normal z, before its goal is
    written. The last `known_values` values stay as they are. A network soon knows one series of a few years by heart;
    other levels teach it what holds at levels that the series never had ("scaling" in Um et al. 2017, "Data
    augmentation of wearable sensor data for Parkinson's disease monitoring using convolutional neural networks").

    Raises ValueError for an unknown mode, a negative cycle or seed, and a jitter that is negative or infinite.
    """

    def __init__(
        self,
        records: Sequence[Record],
        writer: GoalWriter | None = None,
        mode: str = "train",
        seed: int = 0,
        goal_cycle: int = 0,
        level_jitter: float = 0.0,
        known_values: int = 0,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"unknown goal mode {mode!r}; expected one of {MODES}")
        if goal_cycle < 0 or seed < 0:
            raise ValueError(f"goal_cycle {goal_cycle} and seed {seed} must not be negative")
        check_jitter(level_jitter)
        self.records = records
        self.writer, self.mode, self.seed, self.goal_cycle = writer, mode, seed, goal_cycle
        self.level_jitter, self.known_values = level_jitter, known_values

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | Key) -> Record:
        """The window of an index (epoch 0) or of (epoch, index). Raises IndexError past the end, as sequences do."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        index %= len(self)
        record = self.records[index]
        if self.writer is None and not self.level_jitter:
            return record
        if self.goal_cycle:
            epoch %= self.goal_cycle
        generator = np.random.default_rng([self.seed, epoch, index])
        if self.level_jitter:
            record = self._at_another_level(record, generator)
        return record if self.writer is None else self.writer.write(record, self.mode, generator)

    def _at_another_level(self, record: Record, generator: np.random.Generator) -> Record:
        """A window whose goal is still to be written: the words of one that it brings would no longer be true."""
        assert self.writer is not None or record.goal is None
        factor = np.exp(self.level_jitter * generator.standard_normal())
        value = record.value.copy()
        value[:, : value.shape[1] - self.known_values] *= factor
        return replace(record, value=value)

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))
