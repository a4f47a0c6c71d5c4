"""The causal depthwise convolution of a Mamba-2 layer for CPUs, a drop-in for the torch path of transformers."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

ACTIVATIONS = (None, "silu", "swish")


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
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is not known here; expected one of {ACTIVATIONS}")
    x = hidden_states.transpose(1, 2).to(weight.dtype)
    with torch.autocast("cpu", enabled=False):
        out = _Conv.apply(x, weight, bias, activation is not None)
    return out.to(hidden_states.dtype).transpose(1, 2)


class _Conv(torch.autograd.Function):
    """x (B, L, channels), weight (channels, width), bias (channels) or None; float32 sums, results in x's dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
        taps = weight.float().t().contiguous()
        wide = x.float()
        out = wide * taps[-1] if bias is None else torch.addcmul(bias.float(), wide, taps[-1])
        for shift in range(1, min(len(taps), x.shape[1])):
            out[:, shift:].addcmul_(wide[:, :-shift], taps[-1 - shift])
        out = out.to(x.dtype)
        ctx.silu = silu
        ctx.save_for_backward(x, weight, bias, out if silu else None)
        return F.silu(out) if silu else out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, before = ctx.saved_tensors
        if ctx.silu:
            dout = torch.ops.aten.silu_backward(dout, before)
        dout, taps, length = dout.float(), weight.float().t().contiguous(), x.shape[1]
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dx = dout * taps[-1]
            for shift in range(1, min(len(taps), length)):
                dx[:, :-shift].addcmul_(dout[:, shift:], taps[-1 - shift])
            dx = dx.to(x.dtype)
        if ctx.needs_input_grad[1]:
            wide = x.float()
            by_tap = [(dout[:, s:] * wide[:, : length - s]).sum((0, 1)) for s in range(min(len(taps), length))]
            by_tap += [torch.zeros_like(taps[0])] * (len(taps) - len(by_tap))
            dweight = torch.stack(by_tap[::-1], 1).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            dbias = dout.sum((0, 1)).to(bias.dtype)
        return dx, dweight, dbias, None


def causal_conv_step(
    hidden_states: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """The convolution of a few decoded tokens; it changes ``conv_state`` (B, channels, kept) in place, as the library.

    Args:
        hidden_states: (B, channels, L), L = 1 in all but tests.
        weight: (channels, width).

    Returns:
        (B, channels, L).
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is not known here; expected one of {ACTIVATIONS}")
    length, width = hidden_states.shape[-1], weight.shape[-1]
    known = torch.cat([conv_state, hidden_states], -1).to(weight.dtype)
    conv_state.copy_(known[..., -conv_state.shape[-1] :])
    windows = known[..., -(width + length - 1) :].float().unfold(-1, width, 1)
    out = (windows * weight.float()[:, None]).sum(-1)
    if bias is not None:
        out = out + bias.float()[:, None]
    out = out.to(weight.dtype)
    return (out if activation is None else F.silu(out)).to(hidden_states.dtype)
