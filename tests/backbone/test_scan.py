"""The CPU scan, convolution and decoding step against transformers' own torch path and against a plain recurrence."""

import inspect
import types

import pytest
import torch
from transformers.models.granitemoehybrid import modeling_granitemoehybrid as library

from gssr.backbone import accelerate, conv, decoding, scan

NANO, H350M = (12, 32, 64), (48, 32, 128)  # heads, head dimension, state dimension


def arguments(length: int, groups: int = 1, seed: int = 0, shape: tuple[int, int, int] = (4, 8, 16)) -> dict:
    g = torch.Generator().manual_seed(seed)
    b, (heads, r, n) = 2, shape
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


@pytest.mark.parametrize("length", [1, 2, decoding.FEW, decoding.FEW + 1])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_few_tokens_behind_a_state_equal_the_recurrence(length: int, groups: int) -> None:
    """Up to FEW of them are read step by step where no gradient is wanted."""
    a = arguments(length, groups)
    for given in (a, {**a, "D": None}):
        before = a["initial_states"].clone()
        with torch.no_grad():
            y, state = scan.chunk_scan(**given, chunk_size=256, dt_softplus=True, return_final_states=True)
        expected, last = recurrence({**a, "D": torch.zeros(4)} if given["D"] is None else a)
        assert torch.allclose(y.double(), expected, atol=2e-5) and torch.allclose(state.double(), last, atol=2e-5)
        assert torch.equal(a["initial_states"], before) and y.dtype == state.dtype == torch.float32


def test_few_tokens_in_bfloat16_equal_the_library() -> None:
    a = arguments(3, shape=H350M)
    a = {k: v.bfloat16() if k in ("hidden_states", "dt", "B", "C") else v for k, v in a.items()}
    given = {"chunk_size": 64, "dt_softplus": True, "dt_limit": (0.5, 1.0), "return_final_states": True}
    with torch.no_grad():
        fast = scan.chunk_scan(**a, **given)
        slow = inspect.unwrap(library.mamba2_chunk_scan)(**a, **given)
    for one, other in zip(fast, slow, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def forward_and_gradients(function, a: dict, last: bool) -> dict[str, torch.Tensor]:
    a = {k: v.clone().requires_grad_() for k, v in a.items()}
    out = function(**a, chunk_size=64, dt_softplus=True, return_final_states=last)
    y, state = out if last else (out, None)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    loss = (y * weights).sum() + (state.cos().sum() if last else 0)
    loss.backward()
    return {"y": y, **({"state": state} if last else {}), **{k: v.grad for k, v in a.items()}}


@pytest.mark.parametrize(
    ("length", "groups", "shape", "given", "last"),
    [
        (70, 1, (4, 8, 16), True, True),
        (70, 2, (4, 8, 16), False, True),
        (33, 2, (4, 8, 16), True, False),
        (1, 2, (4, 8, 16), True, True),
        (1, 1, (4, 8, 16), False, False),
        (37, 1, NANO, False, False),
        (64, 1, H350M, False, False),
        (200, 1, H350M, True, True),
    ],
)
def test_scan_equals_the_library_forward_and_backward(length, groups, shape, given, last) -> None:
    """Within 1e-5 of each tensor's largest entry; sums over all steps within 1e-4."""
    a = arguments(length, groups, shape=shape)
    if not given:
        del a["initial_states"]
    fast = forward_and_gradients(scan.chunk_scan, a, last)
    slow = forward_and_gradients(inspect.unwrap(library.mamba2_chunk_scan), a, last)
    assert fast.keys() == slow.keys()
    for name, expected in slow.items():
        bound = 1e-4 if name in ("A", "D", "dt_bias") else 1e-5
        assert (fast[name] - expected).abs().max() <= bound * expected.abs().max().clamp(min=1), name


def test_scan_equals_the_library_in_bfloat16() -> None:
    a = arguments(70, shape=H350M)
    a = {k: v.bfloat16() if k in ("hidden_states", "dt", "B", "C") else v for k, v in a.items()}
    fast = forward_and_gradients(scan.chunk_scan, a, False)
    slow = forward_and_gradients(inspect.unwrap(library.mamba2_chunk_scan), a, False)
    assert (fast["y"] - slow["y"]).abs().max() <= 1e-5 * slow["y"].abs().max()
    for name in ("hidden_states", "dt", "B", "C"):
        # Gradients are rounded to bfloat16, and that of dt goes through a softplus in it.
        assert (fast[name] - slow[name]).abs().max() <= 2**-7 * slow[name].abs().max(), name


def test_extreme_decays_stay_finite() -> None:
    a = arguments(64)
    a["dt"] = a["dt"] * 100
    found = forward_and_gradients(scan.chunk_scan, a, True)
    expected, last = recurrence(a)
    assert torch.allclose(found["y"].double(), expected, rtol=1e-4, atol=1e-3)
    assert all(value.isfinite().all() for value in found.values())


def test_a_state_alone_sends_gradients() -> None:
    a = {k: v.requires_grad_() for k, v in arguments(40).items()}
    _, state = scan.chunk_scan(**a, chunk_size=64, dt_softplus=True, return_final_states=True)
    fast = torch.autograd.grad(state.sum(), [a["hidden_states"], a["initial_states"], a["dt"]])
    slow = torch.autograd.grad(recurrence(a)[1].sum(), [a["hidden_states"], a["initial_states"], a["dt"]])
    for one, other in zip(fast, slow, strict=True):
        assert torch.allclose(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_decoding_step_equals_the_library(groups: int, dtype: torch.dtype) -> None:
    a = arguments(1, groups)
    r, n = 8, 16
    given = {
        "hidden_states": a["hidden_states"][:, 0].to(dtype),
        "dt": a["dt"].transpose(1, 2).expand(-1, -1, r).to(dtype),
        "A": a["A"][:, None, None].expand(-1, r, n),
        "B": a["B"][:, 0].to(dtype),
        "C": a["C"][:, 0].to(dtype),
        "D": a["D"][:, None].expand(-1, r),
        "dt_bias": a["dt_bias"][:, None].expand(-1, r),
        "dt_softplus": True,
    }
    states = [a["initial_states"].clone() for _ in range(2)]
    fast = decoding.one_step(states[0], **given)
    slow = inspect.unwrap(library.mamba2_selective_state_update)(states[1], **given)
    bound = 1e-5 if dtype == torch.float32 else 2e-2
    assert fast.dtype == slow.dtype
    assert torch.allclose(fast.float(), slow.float(), atol=bound, rtol=bound)
    assert torch.allclose(states[0], states[1], atol=bound, rtol=bound)
    assert not torch.equal(states[0], a["initial_states"])


@pytest.mark.parametrize("length", [1, 3, 11])
@pytest.mark.parametrize("activation", ["silu", None])
def test_convolution_equals_the_library_forward_and_backward(length: int, activation: str | None) -> None:
    g = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(2, length, 6, generator=g),
        torch.randn(6, 4, generator=g),
        torch.randn(6, generator=g),
    )
    results = []
    for function in (conv.causal_conv, inspect.unwrap(library.causal_conv1d_fn)):
        leaves = [part.clone().requires_grad_() for part in (x, weight, bias)]
        out = function(leaves[0].transpose(1, 2), leaves[1], leaves[2], activation=activation)
        results.append([out, *torch.autograd.grad(out.sin().sum(), leaves)])
    for fast, slow in zip(*results, strict=True):
        assert torch.allclose(fast, slow, atol=1e-5)


def test_convolution_in_bfloat16_is_the_librarys_within_one_rounding() -> None:
    g = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*s, generator=g).bfloat16() for s in ((2, 6, 11), (6, 4), (6,)))
    expected = inspect.unwrap(library.causal_conv1d_fn)(x, weight, bias, activation="silu")
    found = conv.causal_conv(x, weight, bias, activation="silu")
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), expected.float(), rtol=2**-6, atol=2**-7)


@pytest.mark.parametrize("length", [1, 2])
def test_a_decoding_step_of_the_convolution_equals_the_library(length: int) -> None:
    g = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(2, 6, length, generator=g),
        torch.randn(6, 4, generator=g),
        torch.randn(6, generator=g),
    )
    states = [torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    fast = conv.causal_conv_step(x, states[0], weight, bias, "silu")
    slow = inspect.unwrap(library.causal_conv1d_update)(x, states[1], weight, bias, "silu")
    assert torch.allclose(fast, slow, atol=1e-6)
    assert torch.equal(states[0], states[1])


def newer(**functions: object) -> types.ModuleType:
    """A modeling module with the library's functions but for those given, under a name of its own."""
    module = types.ModuleType(f"newer_{'_'.join(functions)}")
    for name in accelerate.REPLACED:
        setattr(module, name, functions.get(name, inspect.unwrap(getattr(library, name))))
    return module


def test_a_changed_call_keeps_the_library_and_warns() -> None:
    def changed(hidden_states, dt, something_new): ...

    module = newer(mamba2_chunk_scan=changed)
    with pytest.warns(UserWarning, match="mamba2_chunk_scan has changed"):
        accelerate.accelerate_on_cpu(module)
    assert module.mamba2_chunk_scan is changed


def test_parameters_in_another_order_are_a_changed_call() -> None:
    def swapped(hidden_states, A, dt, B, C, chunk_size): ...

    module = newer(mamba2_chunk_scan=swapped)
    module.__name__ = "swapped"
    with pytest.warns(UserWarning, match="has changed"):
        accelerate.accelerate_on_cpu(module)
    assert module.mamba2_chunk_scan is swapped


def test_an_unchanged_module_is_accelerated_once() -> None:
    module = newer()
    accelerate.accelerate_on_cpu(module)
    first = module.mamba2_chunk_scan
    accelerate.accelerate_on_cpu(module)
    assert module.mamba2_chunk_scan is first
    a = arguments(5)
    assert torch.equal(first(**a, chunk_size=64), scan.chunk_scan(**a, chunk_size=64))


def test_off_the_cpu_single_tokens_with_gradients_leave_the_library() -> None:
    """The meta device stands for a GPU."""

    def library_step(hidden_states, conv_state, weight, bias=None, activation=None):
        return "library"

    module = newer(causal_conv1d_update=library_step)
    accelerate.accelerate_on_cpu(module)
    x, state, weight = (torch.empty(*shape, device="meta") for shape in ((2, 6, 1), (2, 6, 4), (6, 4)))
    assert module.causal_conv1d_update(x, state, weight) == "library"
    found = module.causal_conv1d_update(x.requires_grad_(), state, weight)
    assert found.shape == (2, 6, 1) and found.requires_grad
    with torch.no_grad():
        assert module.causal_conv1d_update(x, state, weight) == "library"
