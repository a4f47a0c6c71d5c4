"""Windows with goals written as they are read, and a sampler that can resume in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from gssr.sequences.goals import MODES, GoalWriter
from gssr.sequences.record import Record

Key = tuple[int, int]


class WindowDataset(Dataset[Record]):
    """Windows, each with a goal that depends on (seed, epoch, index) alone: not on order, workers or global random
    state.

    `mode` is the goal writer's; without a writer records come as they are (with the goals that they bring).
    `goal_cycle` n > 0 repeats the goals after n epochs, so that the encodings of n sentences a window can be kept; 0
    never repeats.
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
        self.records = list(records)
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


class EpochSampler(Sampler[Key]):
    """Yields (epoch, index) for every index once, in an order that depends on (seed, epoch) alone.

    Each new iterator is the next epoch; an iterator from which nothing was taken does not count (torchdata makes such
    ones). `state_dict` of the sampler or of its iterator tells where the current pass stands, and torchdata's
    `StatefulDataLoader` restores both, so that a resumed run sees the very batches it would have seen.
    """

    def __init__(self, size: int, seed: int = 0, shuffle: bool = True) -> None:
        if size < 1 or seed < 0:
            raise ValueError(f"EpochSampler needs a size of at least 1 and a seed of at least 0, got {size} and {seed}")
        self.size, self.seed, self.shuffle = size, seed, shuffle
        self._now = (0, 0)  # epoch and position of the current pass
        self._resumed = False  # whether that position was loaded and nothing has been taken since

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> _EpochIterator:
        return _EpochIterator(self, *self._next())

    def order(self, epoch: int) -> np.ndarray:
        """The indices of an epoch in order, (size,) int64."""
        return (
            np.random.default_rng([self.seed, epoch]).permutation(self.size) if self.shuffle else np.arange(self.size)
        )

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._now[0], "position": self._now[1], "size": self.size, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iterator goes on from here. Raises ValueError when the state is of other data or another seed."""
        self._now = self._checked(state)
        self._resumed = True

    def _next(self) -> tuple[int, int]:
        """Where a new iterator begins: at a restored position, or at the epoch after the one that was begun."""
        epoch, position = self._now
        if position == 0 or (self._resumed and position < self.size):
            return epoch, position
        return epoch + 1, 0

    def _checked(self, state: dict[str, Any]) -> tuple[int, int]:
        if (state["size"], state["seed"]) != (self.size, self.seed):
            raise ValueError(
                f"the saved order is of {state['size']} windows with seed {state['seed']}, this run has {self.size} "
                f"with seed {self.seed}; resume with the first run's data options, or start anew without --ckpt_path"
            )
        return int(state["epoch"]), int(state["position"])


class _EpochIterator(Iterator[Key]):
    def __init__(self, sampler: EpochSampler, epoch: int, position: int) -> None:
        self.sampler, self.epoch, self.position = sampler, epoch, position
        self._order: np.ndarray | None = None

    def __next__(self) -> Key:
        if self.position >= self.sampler.size:
            raise StopIteration
        if self._order is None:
            self._order = self.sampler.order(self.epoch)
        index = int(self._order[self.position])
        self.position += 1
        self._tell()
        return self.epoch, index

    def _tell(self) -> None:
        self.sampler._now = (self.epoch, self.position)
        self.sampler._resumed = False

    def state_dict(self) -> dict[str, Any]:
        return self.sampler.state_dict() | {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = self.sampler._checked(state)
        self._order = None
        self._tell()
