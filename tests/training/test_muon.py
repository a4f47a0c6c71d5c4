"""Muon in float32, against PyTorch's own code and against singular values."""

import pytest
import torch
from torch import Tensor, nn

from gssr.training.muon import Muon, orthogonal

COEFFICIENTS, STEPS, EPS = (3.4445, -4.775, 2.0315), 5, 1e-7
SHAPES = [(6, 4), (4, 8), (6, 4), (5, 5)]


def by_singular_values(matrix: Tensor) -> Tensor:
    """The iteration in float64, on singular values alone: each step maps s to a s + b s^3 + c s^5."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / matrix.double().norm()
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        values = a * values + b * values**3 + c * values**5
    return left @ values.diag() @ right


@pytest.mark.parametrize("shape", [(3, 12, 30), (2, 30, 12), (2, 16, 16)], ids=str)
def test_an_update_is_nearly_orthogonal(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonal(matrices, COEFFICIENTS, STEPS, EPS)
    wanted = torch.stack([by_singular_values(matrix) for matrix in matrices])
    torch.testing.assert_close(found.double(), wanted, atol=2e-5, rtol=0)
    if shape[1] != shape[2]:  # the smallest singular value of a square one may be too small for five steps
        values = torch.linalg.svdvals(found)
        assert 0.6 < values.min() <= values.max() < 1.3


def test_a_matrix_without_gradient_signal_gives_no_update() -> None:
    assert not orthogonal(torch.zeros(1, 3, 4), COEFFICIENTS, STEPS, EPS).any()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_it_is_the_muon_of_pytorch_in_float32(weight_decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "bfloat16", lambda self: self.clone())  # theirs rounds to bfloat16 in one place
    g = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=g) for shape in SHAPES]
    ours, theirs = ([nn.Parameter(part.clone()) for part in start] for _ in range(2))
    pair = (
        Muon(ours, 0.02, weight_decay),
        torch.optim.Muon(theirs, 0.02, weight_decay, adjust_lr_fn="match_rms_adamw"),
    )
    for step in range(4):
        for parameters, optimizer in zip((ours, theirs), pair, strict=True):
            g = torch.Generator().manual_seed(step)
            for number, parameter in enumerate(parameters):
                gradient = torch.randn(parameter.shape, generator=g)
                parameter.grad = None if number == 2 and step == 1 else gradient  # one is left out for a step
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(pair[0].state[a]["momentum_buffer"], pair[1].state[b]["momentum_buffer"])


def test_its_state_goes_into_the_muon_of_pytorch() -> None:
    ours = [nn.Parameter(torch.ones(3, 4))]
    ours[0].grad = torch.ones(3, 4)
    optimizer = Muon(ours, 0.02, 0.1)
    optimizer.step()
    theirs = torch.optim.Muon([nn.Parameter(torch.ones(3, 4))], 0.1, 0.0)
    theirs.load_state_dict(optimizer.state_dict())
    assert theirs.param_groups[0]["lr"] == 0.02
