"""A computed order is a permutation like any other."""

import numpy as np
import pytest

from gssr.sequences.shuffle import Shuffle


@pytest.mark.parametrize("sizes", [range(1, 200), (2**16, 2**16 + 1, 300_007)])
def test_every_index_comes_once(sizes):
    for size in sizes:
        assert np.array_equal(np.sort(Shuffle(size, [3, size])[:]), np.arange(size))


def test_a_part_is_that_of_the_whole():
    shuffle = Shuffle(100_003, [0, 7])
    whole = shuffle[:]
    for part in (slice(0, 0), slice(99_990, 200_000), slice(17, 4000, 3), slice(5, 6)):
        assert np.array_equal(shuffle[part], whole[part])


def test_the_key_decides_and_orders_look_like_drawn_ones():
    size, keys = 1000, 400
    orders = np.stack([Shuffle(size, [5, epoch])[:] for epoch in range(keys)])
    assert len(np.unique(orders[:, :20], axis=0)) == keys
    assert np.array_equal(orders[3], Shuffle(size, [5, 3])[:])
    # Each index is equally often in each tenth of the order: 10 x 10 tables of counts, chi squared with 81 degrees.
    tenth = np.stack([np.bincount(orders[:, 100 * t : 100 * (t + 1)].ravel() // 100, minlength=10) for t in range(10)])
    assert 45 < ((tenth - 4000) ** 2 / 4000).sum() < 130
    # Neighbours in the order are a third of the size apart on average, and know nothing of each other.
    assert np.abs(np.diff(orders)).mean() == pytest.approx(size / 3, rel=0.01)
    assert abs(np.corrcoef(orders[:, :-1].ravel(), orders[:, 1:].ravel())[0, 1]) < 0.01
