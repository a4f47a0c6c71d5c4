"""The CPU scan and convolution against transformers' own torch path and against a plain recurrence."""

import inspect
import types

import pytest
import torch
from transformers.models.granitemoehybrid import modeling_granitemoehybrid as library

from gssr.backbone import scan


def arguments(length: int, groups: int = 1, seed: int = 0) -> dict:
    g = torch.Generator().manual_seed(seed)
    b, heads, r, n = 2, 4, 8, 16
    return {
        "hidden_states": torch.randn(b, length, heads, r, generator=g),
        "dt": torch.randn(b, length, heads, generator=g),
        "A": -torch.arange(1, heads + 1).float(),
        "B": torch.randn(b, length, groups, n, generator=g),
        "C": torch.randn(b, length, groups, n, generator=g),
        "D": torch.randn(heads, generator=g),
        "dt_bias": torch.randn(heads, generator=g),
        "initial_states": torch.randn(b, heads, r, n, generator=g),
    }


def recurrence(a: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """h_l = exp(A dt_l) h_{l-1} + dt_l x_l B_lᵀ in float64, one step at a time."""
    a = {k: v.double() for k, v in a.items()}
    dt = torch.nn.functional.softplus(a["dt"] + a["dt_bias"])
    heads, groups = dt.shape[2], a["B"].shape[2]
    B, C = (a[k].repeat_interleave(heads // groups, 2) for k in "BC")
    state, out = a["initial_states"], []
    for t in range(dt.shape[1]):
        write = (dt[:, t, :, None] * a["hidden_states"][:, t])[..., None] * B[:, t, :, None]
        state = (dt[:, t] * a["A"]).exp()[..., None, None] * state + write
        out.append((state * C[:, t, :, None]).sum(-1) + a["D"][:, None] * a["hidden_states"][:, t])
    return torch.stack(out, 1), state


@pytest.mark.parametrize("length", [1, 5, 64, 65, 150])
@pytest.mark.parametrize("groups", [1, 2])
def test_scan_equals_the_recurrence(length: int, groups: int) -> None:
    a = arguments(length, groups)
    y, state = scan.chunk_scan(**a, chunk_size=256, dt_softplus=True, return_final_states=True)
    expected, last = recurrence(a)
    assert torch.allclose(y.double(), expected, atol=2e-5)
    assert torch.allclose(state.double(), last, atol=2e-5)


def test_scan_equals_the_library_forward_and_backward() -> None:
    original = inspect.unwrap(library.mamba2_chunk_scan)
    grads = []
    for function in (scan.chunk_scan, original):
        a = {k: v.requires_grad_() for k, v in arguments(70).items()}
        y, state = function(**a, chunk_size=64, dt_softplus=True, return_final_states=True)
        (y.sin().sum() + state.cos().sum()).backward()
        grads.append([y, state, *(v.grad for v in a.values())])
    for fast, slow in zip(*grads, strict=True):
        assert torch.allclose(fast, slow, atol=1e-4, rtol=1e-4)


def test_convolution_equals_the_library() -> None:
    g = torch.Generator().manual_seed(0)
    x, weight, bias = torch.randn(2, 6, 11, generator=g), torch.randn(6, 4, generator=g), torch.randn(6, generator=g)
    expected = inspect.unwrap(library.causal_conv1d_fn)(x, weight, bias, activation="silu")
    assert torch.allclose(scan.causal_conv(x, weight, bias, activation="silu"), expected, atol=1e-6)


def test_a_changed_call_keeps_the_library_and_says_so() -> None:
    module = types.ModuleType("newer")
    module.mamba2_chunk_scan = lambda hidden_states, dt, something_new: None
    before = module.mamba2_chunk_scan
    with pytest.warns(UserWarning, match="has changed"):
        assert not scan.accelerate_on_cpu(module)
    assert module.mamba2_chunk_scan is before
