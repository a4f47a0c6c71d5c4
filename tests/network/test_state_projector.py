"""The belief's change of recurrent states is bounded, of low rank, and zero at first."""

import pytest
import torch

from gssr.network.state_projector import StateProjector

N, D, RANK = 3, 4, 2
SHAPES = {0: (6, 8, 16), 2: (6, 8, 16)}
SCALES = {0: 2.0, 2: 5.0}


@pytest.fixture
def projector() -> StateProjector:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        projector = StateProjector(D, 8, RANK, SHAPES, SCALES)
    return projector


def test_it_begins_by_changing_nothing_and_can_learn(projector: StateProjector) -> None:
    x = torch.randn(N, D)
    changes = projector(x)
    assert all((change.dense() == 0).all() for change in changes.values())
    sum(change.dense().sum() for change in changes.values()).backward()
    assert projector.net[-1].weight.grad.abs().sum() > 0


def test_changes_are_of_low_rank_and_no_larger_than_rank_states(projector: StateProjector) -> None:
    torch.nn.init.constant_(projector.net[-1].bias, 1e6)  # tanh at its end: every pattern in full
    for layer, change in projector(torch.randn(N, D)).items():
        dense = change.dense()
        assert dense.shape == (N, *SHAPES[layer])
        assert (torch.linalg.matrix_rank(dense) == RANK).all()
        assert (dense.flatten(1).norm(dim=1) <= RANK * SCALES[layer] * (1 + 1e-5)).all()
        one = change.left[..., :1] @ change.right[..., :1].transpose(-1, -2)
        assert torch.allclose(one.flatten(1).norm(dim=1), torch.full((N,), SCALES[layer]), rtol=1e-4)


def test_a_plain_transformer_and_no_rank_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        StateProjector(D, 8, RANK, {}, {})
    with pytest.raises(ValueError, match="at least 1"):
        StateProjector(D, 8, 0, SHAPES, SCALES)
