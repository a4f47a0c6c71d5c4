"""Which windows make a batch: shuffled for training, in order for evaluation, and shared out between W processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from gssr.sequences.shuffle import Shuffle

Key = tuple[int, int]
MOST_SHUFFLED = 2**17  # indices whose order is kept in memory, at 8 bytes each; that of more is computed step by step


def step_size(left: int, batch_size: int, world: int = 1) -> int:
    """How many indices the W processes together take in their next step, when `left` are left of an epoch (0 or at least W).

    Full batches, as long as each process then still finds one index for every step that follows. Where the end of an epoch would
    leave some process without any, the step before gives up a few; from batches of 1 nothing can be given up, and some of
    the last ones hold 2.
    """
    full = world * batch_size
    if full < left < full + world:
        return left - world if batch_size > 1 else left
    return min(full, left)


def steps(left: int, batch_size: int, world: int = 1) -> int:
    """In how many steps `left` indices are used up."""
    count, rest = divmod(left, world * batch_size)
    return count if rest == 0 or (batch_size == 1 and count) else count + 1


def taken(size: int, batch_size: int, world: int, count: int) -> int:
    """How many of `size` indices are used up after `count` steps."""
    done = 0
    for _ in range(count):
        done += step_size(size - done, batch_size, world)
    return done


class EpochBatches(Sampler[list[Key]]):
    """Batches of (epoch, index): every index once an epoch, in an order that depends on (seed, epoch) alone.

    W processes walk through that order together and deal out what each step takes of it, so that no index is seen twice or left
    out, all make the same number of steps, and batches of b in each of them are together a batch of W · b in one.

    Each new iterator is the next epoch; an iterator from which nothing was taken does not count (torchdata makes such ones).
    The state (of this object or of its iterator, torchdata's `StatefulDataLoader` restores both) counts indices over all
    processes. So it is the same in each of them, a resumed run sees the very batches it would have seen, and one with another
    batch size or number of processes sees what is left of the epoch, each index once.

    Args:
        size: number of indices. batch_size: of them in a batch of one process.
        seed: of the order. shuffle: False gives the indices in order and epoch 0 again and again (`overfit_batches`).
        rank, world: which of how many processes this one is.

    Raises ValueError where sizes are too small, there being fewer indices than processes among them.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int = 0, shuffle: bool = True, rank: int = 0, world: int = 1
    ) -> None:
        if size < 1 or batch_size < 1 or seed < 0:
            raise ValueError(
                f"EpochBatches needs a size and a batch_size of at least 1 and a seed of at least 0, got {size}, {batch_size} "
                f"and {seed}"
            )
        assert 0 <= rank < world
        if size < world:
            raise ValueError(f"{size} windows cannot be shared between {world} processes; use fewer devices")
        self.size, self.batch_size, self.seed, self.shuffle = size, batch_size, seed, shuffle
        self.rank, self.world = rank, world
        self._now = (0, 0)  # epoch and position of the current pass
        self._resumed = False  # whether that position was loaded and nothing has been taken since

    def __len__(self) -> int:
        """Batches of this process (of any) in a whole epoch."""
        return steps(self.size, self.batch_size, self.world)

    def __iter__(self) -> _EpochIterator:
        return _EpochIterator(self, *self._next())

    def order(self, epoch: int) -> np.ndarray | Shuffle | range:
        """The indices of an epoch in order; a slice of it is what a step needs."""
        if not self.shuffle:
            return range(self.size)
        key = [self.seed, epoch]
        large = self.size > MOST_SHUFFLED
        return Shuffle(self.size, key) if large else np.random.default_rng(key).permutation(self.size)

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
        return epoch + self.shuffle, 0

    def _checked(self, state: dict[str, Any]) -> tuple[int, int]:
        if (state["size"], state["seed"]) != (self.size, self.seed):
            raise ValueError(
                f"the saved order is of {state['size']} windows with seed {state['seed']}, this run has {self.size} "
                f"with seed {self.seed}; resume with the first run's data options, or start anew without --ckpt_path"
            )
        left = self.size - state["position"]
        if 0 < left < self.world:
            raise ValueError(
                f"{left} windows are left of the epoch in which the checkpoint was saved, for {self.world} processes; resume with "
                f"at most {left} until the epoch ends"
            )
        return int(state["epoch"]), int(state["position"])


class _EpochIterator(Iterator[list[Key]]):
    def __init__(self, batches: EpochBatches, epoch: int, position: int) -> None:
        self.batches, self.epoch, self.position = batches, epoch, position
        self._order: np.ndarray | Shuffle | range | None = None

    def __next__(self) -> list[Key]:
        b = self.batches
        if self.position >= b.size:
            raise StopIteration
        if self._order is None:
            self._order = b.order(self.epoch)
        end = self.position + step_size(b.size - self.position, b.batch_size, b.world)
        mine = self._order[self.position + b.rank : end : b.world]
        self.position = end
        self._tell()
        return [(self.epoch, int(index)) for index in mine]

    def _tell(self) -> None:
        self.batches._now = (self.epoch, self.position)
        self.batches._resumed = False

    def state_dict(self) -> dict[str, Any]:
        return self.batches.state_dict() | {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = self.batches._checked(state)
        self._order = None
        self._tell()


class DealtBatches(Sampler[list[int]]):
    """All indices in order, in the batches of one process, dealt out: batch n goes to process n mod W.

    What is measured on a batch depends on what else is in it (whose goal is borrowed, which texts are drawn); dealt out whole,
    batches are the same for any number of processes. Where there are fewer of them than processes, some get one that another
    has, too, and that does not count: Lightning would skip the loop of a process without any, and the others would wait for it.
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
