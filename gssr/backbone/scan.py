"""The Mamba-2 scan and causal convolution for CPUs, a drop-in for the torch path of transformers.

The reference path pads every sequence to ``chunk_size`` (256 in Granite-4.0-H) and repeats B and C over all heads. Here a
chunk is as long as the sequence needs, the score matrix C·Bᵀ is computed once for all heads of a group, and the products
with the states run over all heads at once. The numbers agree with the reference to rounding; a GPU keeps the library's path.

Shapes: n chunks of Q steps, M heads of dimension R, N state dimensions, J groups (J divides M); B and L as in the legend.
Source: Dao & Gu 2024, "Transformers are SSMs", section 6 (block decomposition of the semiseparable matrix).
"""

import inspect
import warnings
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_CHUNK = 64


def chunk_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    **kwargs: object,
) -> Tensor | tuple[Tensor, Tensor]:
    """Selective state-space scan, h_l = exp(A dt_l) h_{l-1} + dt_l x_l B_lᵀ, y_l = h_l C_l + D x_l.

    Args:
        hidden_states: x, (B, L, M, R).
        dt: step sizes before bias and softplus, (B, L, M).
        A: negative decay rates, (M).
        B, C: input and output maps, (B, L, J, N).
        chunk_size: upper bound of Q; the actual Q depends on L alone.
        initial_states: (B, M, R, N) or None for zeros.

    Returns:
        y (B, L, M, R) in float32, and the last state (B, M, R, N) if ``return_final_states``.
    """
    b, length, heads, r = hidden_states.shape
    groups, n = B.shape[2], B.shape[3]
    per_group = heads // groups
    if dt_bias is not None:
        dt = dt + dt_bias.to(dt.dtype)
    dt = dt.float()
    if dt_softplus:
        dt = F.softplus(dt)
    if dt_limit != (0.0, float("inf")):
        dt = dt.clamp(*dt_limit)
    hidden_states, B, C = hidden_states.float(), B.float(), C.float()

    chunks = -(-length // min(chunk_size, MAX_CHUNK))
    q = -(-length // chunks)
    pad = chunks * q - length
    x = hidden_states * dt[..., None]
    a = A.float() * dt
    if pad:
        x, a = F.pad(x, (0, 0, 0, 0, 0, pad)), F.pad(a, (0, 0, 0, pad))
        B, C = F.pad(B, (0, 0, 0, 0, 0, pad)), F.pad(C, (0, 0, 0, 0, 0, pad))

    # The heads of a group share one axis pair (per_group, r), so that products with the state are one matrix product.
    x = x.reshape(b, chunks, q, groups, per_group, r)
    B = B.reshape(b, chunks, q, groups, n).transpose(2, 3)
    C = C.reshape(b, chunks, q, groups, n).transpose(2, 3)
    total = a.reshape(b, chunks, q, groups, per_group).permute(0, 1, 3, 4, 2).cumsum(-1)

    causal = torch.ones(q, q, dtype=torch.bool, device=x.device).tril()
    decay = (total[..., :, None] - total[..., None, :]).masked_fill(~causal, -torch.inf).exp()
    scores = (C @ B.transpose(-1, -2))[:, :, :, None] * decay
    y = scores @ x.permute(0, 1, 3, 4, 2, 5)

    if chunks > 1 or initial_states is not None or return_final_states:
        to_end = (total[..., -1:] - total).exp().permute(0, 1, 4, 2, 3)
        written = (x * to_end[..., None]).permute(0, 1, 3, 4, 5, 2).reshape(b, chunks, groups, per_group * r, q) @ B
        written = written.reshape(b, chunks, groups, per_group, r, n)
        whole = total[..., -1].exp()[..., None, None]
        if initial_states is None:
            state = torch.zeros_like(written[:, 0])
        else:
            state = initial_states.float().reshape(b, groups, per_group, r, n)
        before = []
        for c in range(chunks):
            before.append(state)
            state = state * whole[:, c] + written[:, c]
        carried = torch.stack(before, 1).reshape(b, chunks, groups, per_group * r, n)
        read = (carried @ C.transpose(-1, -2)).reshape(b, chunks, groups, per_group, r, q).transpose(-1, -2)
        y = y + read * total.exp()[..., None]

    y = y.permute(0, 1, 4, 2, 3, 5).reshape(b, chunks * q, heads, r)[:, :length]
    if D is not None:
        y = y + hidden_states * D[..., None]
    y = y.contiguous()
    if return_final_states:
        return y, state.reshape(b, heads, r, n)
    return y


def causal_conv(
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    **kwargs: object,
) -> Tensor:
    """Depthwise causal convolution as a sum of shifted products, several times faster than ``conv1d`` on a CPU.

    Args:
        hidden_states: (B, channels, L), usually a transposed view of (B, L, channels).
        weight: (channels, width); ``weight[:, -1]`` meets the current step.

    Returns:
        (B, channels, L).
    """
    x = hidden_states.transpose(1, 2).to(weight.dtype)
    length, width = x.shape[1], weight.shape[1]
    padded = F.pad(x, (0, 0, width - 1, 0))
    out = padded[:, width - 1 :] * weight[:, -1]
    for k in range(width - 1):
        out = torch.addcmul(out, padded[:, k : k + length], weight[:, k])
    if bias is not None:
        out = out + bias
    if activation in ("silu", "swish"):
        out = F.silu(out)
    elif activation is not None:
        raise ValueError(f"activation {activation!r} is not known here; expected silu, swish or None")
    return out.to(hidden_states.dtype).transpose(1, 2)


def _on_cpu(fast: Callable[..., object], library: Callable[..., object]) -> Callable[..., object]:
    def dispatch(hidden_states: Tensor, *args: object, **kwargs: object) -> object:
        return (fast if hidden_states.device.type == "cpu" else library)(hidden_states, *args, **kwargs)

    dispatch.__wrapped__ = library  # type: ignore[attr-defined]
    return dispatch


def accelerate_on_cpu(modeling: ModuleType) -> bool:
    """Put the CPU formulations in place of the torch path of a transformers modeling module, for tensors on the CPU only.

    Returns:
        False, with a warning, when the module's functions no longer have the call that these stand in for.
    """
    for name, fast in (("mamba2_chunk_scan", chunk_scan), ("causal_conv1d_fn", causal_conv)):
        library = getattr(modeling, name, None)
        if library is not None and hasattr(library, "__wrapped__") and library.__name__ == "dispatch":
            continue
        known = set(inspect.signature(fast).parameters)
        if library is None or set(inspect.signature(inspect.unwrap(library)).parameters) - known:
            warnings.warn(
                f"{modeling.__name__}.{name} has changed in this version of transformers; its own, slower path is used",
                stacklevel=2,
            )
            return False
        setattr(modeling, name, _on_cpu(fast, library))
    return True
