"""Which windows make a batch: shuffled for training, in order for evaluation, and divided between W processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from gssr.sequences.shuffle import Shuffle

Key = tuple[int, int]
MOST_SHUFFLED = 2**17  # indices whose order is kept in memory, at 8 bytes each; a longer order is computed step by step


def step_size(left: int, batch_size: int, world: int = 1) -> int:
    """Indices that the W processes together use in their next step, when `left` are left of an epoch (0 or at least W).

    A step has full batches as long as each later step then has an index for every process. Otherwise the step before
    the last gives up a few indices; a batch of 1 cannot give any up, so that some of the last batches hold 2.
    """
    full = world * batch_size
    if full < left < full + world:
        return left - world if batch_size > 1 else left
    return min(full, left)


def steps(left: int, batch_size: int, world: int = 1) -> int:
    """Steps in which `left` indices are used up."""
    count, rest = divmod(left, world * batch_size)
    return count if rest == 0 or (batch_size == 1 and count) else count + 1


class EpochBatches(Sampler[list[Key]]):
    """Batches of (epoch, index): every index once an epoch, in an order that depends on (seed, epoch) alone.

    W processes walk through that order together and divide each step's indices between them. So no index is used twice
    or left out, all processes make the same number of steps, and batches of b in each are together a batch of W · b in
    one.

    The state is a pair of numbers, `epoch` and `position`: the next iterator yields what is left of that epoch behind
    `position` indices, counted over all processes. Iterating does not move it, since a loader's workers read ahead:
    `advance` does, for each batch that training received. Any batch size and any number of processes can go on from the
    state.

    Args:
        size: number of indices.
        batch_size: indices in a batch of one process.
        seed: of the order.
        shuffle: False yields the indices in order and epoch 0 again and again, as `overfit_batches` needs.
        rank: number of this process, from 0.
        world: number of processes, W.

    Raises ValueError for sizes that are too small and for fewer indices than processes.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int = 0, shuffle: bool = True, rank: int = 0, world: int = 1
    ) -> None:
        if size < 1 or batch_size < 1 or seed < 0:
            raise ValueError(
                f"EpochBatches needs a size and a batch_size of at least 1 and a seed of at least 0, got {size}, "
                f"{batch_size} and {seed}"
            )
        assert 0 <= rank < world
        if size < world:
            raise ValueError(f"{size} windows cannot be shared between {world} processes; use fewer devices")
        self.size, self.batch_size, self.seed, self.shuffle = size, batch_size, seed, shuffle
        self.rank, self.world = rank, world
        self.epoch = self.position = 0
        self._begun = False  # whether a batch of this epoch was received since the state was set

    @property
    def sampler(self) -> EpochBatches:
        """Lightning calls `set_epoch` on the `sampler` of a batch sampler."""
        return self

    def __len__(self) -> int:
        """Batches of one process in a complete epoch."""
        return steps(self.size, self.batch_size, self.world)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, position = (self.epoch if self.shuffle else 0), self.position
        order = self.order(epoch)
        while position < self.size:
            end = position + step_size(self.size - position, self.batch_size, self.world)
            yield [(epoch, int(index)) for index in order[position + self.rank : end : self.world]]
            position = end

    def order(self, epoch: int) -> np.ndarray | Shuffle | range:
        """The indices of an epoch in order; a slice of it is what a step needs."""
        if not self.shuffle:
            return range(self.size)
        key = [self.seed, epoch]
        large = self.size > MOST_SHUFFLED
        return Shuffle(self.size, key) if large else np.random.default_rng(key).permutation(self.size)

    def set_epoch(self, epoch: int) -> None:
        """Move to the start of an epoch; within that epoch already, stay."""
        if epoch != self.epoch:
            self.epoch, self.position, self._begun = epoch, 0, False

    def begin(self) -> None:
        """Move to the next epoch if this one is complete or was begun by an earlier iterator."""
        if self._begun or self.position >= self.size:
            self.set_epoch(self.epoch + 1)

    def advance(self) -> None:
        """Count a batch (of each process) as received."""
        self.position += step_size(self.size - self.position, self.batch_size, self.world)
        self._begun = True

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position, "size": self.size, "seed": self.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a state. Raises ValueError for other data, another seed, or fewer indices left than processes."""
        if (state["size"], state["seed"]) != (self.size, self.seed):
            raise ValueError(
                f"the saved order is of {state['size']} windows with seed {state['seed']}, this run has {self.size} "
                f"with seed {self.seed}; resume with the first run's data options, or start anew without --ckpt_path"
            )
        left = self.size - state["position"]
        if 0 < left < self.world:
            raise ValueError(
                f"{left} windows are left of the epoch in which the checkpoint was saved, for {self.world} processes; "
                f"resume with at most {left} until the epoch ends"
            )
        self.epoch, self.position, self._begun = state["epoch"], state["position"], False


class EpochLoader(DataLoader[Any]):
    """A DataLoader over `EpochBatches` whose state counts the batches that were received, with and without workers.

    An iterator begins at its first batch, not when it is made. So a state can be loaded after Lightning has made one,
    and one that is never used costs nothing. Each iterator is the next epoch, unless a state was loaded or an epoch was
    set.

    Args:
        dataset: its keys are pairs (epoch, index).
        batches: the order, which this loader moves.
        options: of the DataLoader.
    """

    batch_sampler: EpochBatches

    def __init__(self, dataset: Dataset[Any], batches: EpochBatches, **options: Any) -> None:
        super().__init__(dataset, batch_sampler=batches, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.batch_sampler.begin()
        for batch in super().__iter__():
            self.batch_sampler.advance()
            yield batch

    def state_dict(self) -> dict[str, int]:
        return self.batch_sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises ValueError as `EpochBatches.load_state_dict` does."""
        self.batch_sampler.load_state_dict(state)


class DealtBatches(Sampler[list[int]]):
    """All indices in order, in the batches of a single process: process r evaluates batches r, r + W, r + 2W, ...

    Batches that are the same for any number of processes give the same scores, and windows the same numbers. Where
    there are fewer batches than processes, some processes repeat a batch that does not count: Lightning would skip the
    loop of a process without any, and the others would wait for it.
    """

    def __init__(self, size: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        assert size > 0 and batch_size > 0 and 0 <= rank < world
        self.size, self.batch_size = size, batch_size
        count = steps(size, batch_size)
        self.counts = rank < count
        self.numbers = range(rank, count, world) if self.counts else range(rank % count, rank % count + 1)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[list[int]]:
        for n in self.numbers:
            yield list(range(n * self.batch_size, min((n + 1) * self.batch_size, self.size)))
