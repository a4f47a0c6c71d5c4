"""The Mamba-2 scan for CPUs, a drop-in for the torch path of transformers.

The reference path pads every sequence to ``chunk_size`` (256 in Granite-4.0-H), repeats B and C over all heads and
leaves the backward pass to autograd. Here a chunk is as long as the sequence needs, the score matrix C·Bᵀ is computed
once for all heads of a group, states exist only where one chunk hands them to the next, and the backward pass is
written out. The numbers agree with the reference to rounding; a GPU keeps the library's path.

Shapes: n chunks of Q steps, M = J · P heads of dimension R in J groups, N state dimensions; B and L as in the legend.
Source: Dao & Gu 2024, "Transformers are SSMs", section 6 (block decomposition of the semiseparable matrix).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gssr.backbone.decoding import FEW, few_steps

# Steps for each state dimension. A sequence of up to ONE_CHUNK is one chunk, which needs no state; longer sequences
# have chunks of length CHUNK. Measured forward and backward at the shapes of nano and of Granite-4.0-H-350m.
ONE_CHUNK, CHUNK = 1.0, 0.5


# The passes fill buffers in place, which compiled code cannot follow. The layers around the scan are still fused.
@torch.compiler.disable
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
        chunk_size: not used; Q depends on L and N only.
        initial_states: (B, M, R, N) or None for zeros.

    Returns:
        y (B, L, M, R) in float32, and the last state (B, M, R, N) if ``return_final_states``.
    """
    b, length, heads, r = hidden_states.shape
    # In dt's own precision, as the library does it: rounding there is part of a bf16 model's numbers.
    if dt_bias is not None:
        dt = dt + dt_bias.to(dt.dtype)
    if dt_softplus:
        dt = F.softplus(dt)
    if tuple(dt_limit) != (0.0, float("inf")):
        dt = dt.clamp(*dt_limit)
    dt = dt.float()
    if initial_states is not None and length <= FEW and not torch.is_grad_enabled():
        few = (part.float() for part in (hidden_states, dt, A, B, C))
        y, state = few_steps(*few, None if D is None else D.float(), initial_states)
        return (y, state) if return_final_states else y

    n = _chunks(length, B.shape[-1])
    q = -(-length // n)
    pad = n * q - length
    x, B, C = hidden_states.float(), B.float(), C.float()
    if pad:
        dt, x = F.pad(dt, (0, 0, 0, pad)), F.pad(x, (0, 0, 0, 0, 0, pad))
        B, C = F.pad(B, (0, 0, 0, 0, 0, pad)), F.pad(C, (0, 0, 0, 0, 0, pad))
    # float64 sums as two float32 numbers, since a difference of large sums would lose the small steps between them.
    exact = (A.float() * dt).reshape(b, n, q, heads).double().cumsum(2)
    total = exact.float()
    rest = (exact.detach() - total.detach()).float()
    x, dt, B, C = (part.reshape(b, n, q, *part.shape[2:]) for part in (x, dt, B, C))
    if D is not None:
        D = D.float()
    if initial_states is not None:
        initial_states = initial_states.float().reshape(b, B.shape[3], -1, B.shape[-1])
        if torch.is_grad_enabled():
            # It may be the cache's own tensor, which the layer overwrites with its last state before the backward pass.
            initial_states = initial_states.clone()
    with torch.autocast("cpu", enabled=False):
        y, state = _Scan.apply(x, dt, total, rest, B, C, D, initial_states, return_final_states)
    y = y.reshape(b, n * q, heads, r)[:, :length]
    return (y, state) if return_final_states else y


def _chunks(length: int, state_dim: int) -> int:
    return 1 if length <= max(16, ONE_CHUNK * state_dim) else -(-length // max(16, int(CHUNK * state_dim)))


class _Scan(torch.autograd.Function):
    """The scan in chunks, all in float32.

    Inputs are x (B, n, Q, M, R), dt and total (B, n, Q, M), B and C (B, n, Q, J, N), D (M) or None, and the first
    state or None. ``total`` is the sum of A · dt from the start of the chunk, ``rest`` its part below float32.

    Within a chunk y = W (dt x) + D x, where W_qk = S_qk exp(total_q − total_k) for k <= q and S = C·Bᵀ. C reads earlier
    steps from the state at the chunk's start. The first chunk reads a state only if one is given, the last chunk writes
    one only if the caller needs it.

    Every entry of dW ∘ W is proportional to exp(total_q − total_k). So the gradient of ``total`` is the row sums of
    dW ∘ W minus its column sums. The same holds for reading from states and writing into them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        total: Tensor,
        rest: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        first: Tensor | None,
        want_last: bool,
    ) -> tuple[Tensor, Tensor | None]:
        batch, n, q, heads, r = x.shape
        decay = _decay(total, rest)
        y_heads = _weights(decay, _scores(B, C)) @ _heads_first(x, dt)
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        if D is None:
            y.copy_(y_heads.transpose(2, 3))
        else:
            torch.addcmul(y_heads.transpose(2, 3), x, D[:, None], out=y)
        after = last = y_state = None
        writing = n if want_last else n - 1
        if writing:
            after = _states(x, dt, total, B, first, writing)
        if want_last:
            last = after[:, -1].reshape(batch, heads, r, -1).clone()
        reading = 0 if first is not None else 1
        if reading < n:
            read = C[:, reading:].transpose(2, 3) @ _before(after, first, n).transpose(-1, -2)
            y_state = _steps_first(read, x).mul_(total[:, reading:].exp()[..., None])
            y[:, reading:] += y_state
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, dt, total, B, C, D, first, decay, after, y_state)
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None) -> tuple[Tensor | None, ...]:
        x, dt, total, B, C, D, first, decay, after, y_state = ctx.saved_tensors
        batch, n, q, heads, r = x.shape
        groups = B.shape[3]
        dy = torch.zeros_like(x) if dy is None else dy.contiguous()

        scores = _scores(B, C)
        weights = _weights(decay, scores)
        dy_heads = _heads_first(dy, None)
        dxdt = torch.empty_like(x, memory_format=torch.contiguous_format)
        dxdt.copy_((weights.transpose(-1, -2) @ dy_heads).transpose(2, 3))
        dweights = torch.matmul(dy_heads, _heads_first(x, dt).transpose(-1, -2), out=weights).mul_(decay)
        dweights = dweights.view(batch, n, groups, -1, q, q)
        dscores = dweights.sum(3).tril_()
        # Without the diagonal, whose two sides cancel: they are the largest terms, and their rounding would remain.
        through = dweights.mul_(scores.tril(-1)[:, :, :, None]).view(batch, n, heads, q, q)
        dtotal = (through.sum(-1) - through.sum(-2)).transpose(2, 3).contiguous()
        dC = (dscores @ B.transpose(2, 3)).transpose(2, 3)
        dB = (dscores.transpose(-1, -2) @ C.transpose(2, 3)).transpose(2, 3)

        reading = 0 if first is not None else 1
        writing = n if dlast is not None else n - 1
        dfirst = None
        if reading < n:
            dread = (dy[:, reading:] * total[:, reading:].exp()[..., None]).unflatten(3, (groups, -1))
            dread = dread.flatten(4).transpose(2, 3)
            dC[:, reading:] += (dread @ _before(after, first, n)).transpose(2, 3)
            dbefore = dread.transpose(-1, -2) @ C[:, reading:].transpose(2, 3)
            dtotal[:, reading:] += (dy[:, reading:] * y_state).sum(-1)
        else:
            dbefore = after.new_empty(batch, 0, *after.shape[2:]) if after is not None else None
        if dbefore is not None:
            dafter, dfirst = _states_back(dbefore, total, dlast, first)
        if writing:
            to_end = (total[:, :writing, -1:] - total[:, :writing]).exp_()
            written = _written(x[:, :writing], dt[:, :writing] * to_end, groups)
            dB[:, :writing] += (written @ dafter).transpose(2, 3)
            dwritten = _steps_first(B[:, :writing].transpose(2, 3) @ dafter.transpose(-1, -2), x).mul_(
                to_end[..., None]
            )
            dxdt[:, :writing] += dwritten
            columns = (x[:, :writing] * dwritten).sum(-1).mul_(dt[:, :writing])
            dtotal[:, :writing] -= columns
            # What is written and lasts to the chunk's end, and what is only handed through.
            dtotal[:, :writing, -1] += columns.sum(2)
            handed = slice(reading, writing)
            if reading < writing:
                through = (dafter[:, handed] * _before(after, first, n)[:, : writing - reading]).unflatten(3, (-1, r))
                dtotal[:, handed, -1] += through.sum((-1, -2)).flatten(2) * total[:, handed, -1].exp()

        ddt = (x * dxdt).sum(-1)
        dx = dxdt.mul_(dt[..., None])
        dD = None
        if D is not None:
            dx.addcmul_(dy, D[:, None])
            dD = (dy * x).sum((0, 1, 2, 4)) if ctx.needs_input_grad[6] else None
        return dx, ddt, dtotal, None, dB, dC, dD, dfirst, None


def _decay(total: Tensor, rest: Tensor) -> Tensor:
    """exp(total_q − total_k), (B, n, M, Q, Q), meaningful for k <= q; ``rest`` is what float32 cut off from ``total``.

    Exponents are clamped where exp leaves the normal numbers: it is several times slower on infinities and denormals.
    """
    total, rest = (part.transpose(2, 3).contiguous() for part in (total, rest))
    difference = (total[..., :, None] - total[..., None, :]).add_(rest[..., :, None]).sub_(rest[..., None, :])
    return difference.clamp_(-80.0, 80.0).exp_()


def _scores(B: Tensor, C: Tensor) -> Tensor:
    """S = C·Bᵀ of each group, zero for k > q, (B, n, J, Q, Q)."""
    return (C.transpose(2, 3) @ B.transpose(2, 3).transpose(-1, -2)).tril_()


def _weights(decay: Tensor, scores: Tensor) -> Tensor:
    """W (B, n, M, Q, Q)."""
    return (decay.unflatten(2, (scores.shape[2], -1)) * scores[:, :, :, None]).view(decay.shape)


def _heads_first(x: Tensor, scale: Tensor | None) -> Tensor:
    """x (B, n, Q, M, R), times scale (B, n, Q, M), as (B, n, M, Q, R) in one pass over memory."""
    batch, n, q, heads, r = x.shape
    out = x.new_empty(batch, n, heads, q, r)
    if scale is None:
        return out.copy_(x.transpose(2, 3))
    return torch.mul(x.transpose(2, 3), scale.transpose(2, 3)[..., None], out=out)


def _steps_first(x: Tensor, like: Tensor) -> Tensor:
    """(B, n, J, Q, P·R) as (B, n, Q, M, R)."""
    return x.transpose(2, 3).reshape(*x.shape[:2], *like.shape[2:])


def _written(x: Tensor, scale: Tensor, groups: int) -> Tensor:
    """x (B, n, Q, M, R) times scale (B, n, Q, M), as (B, n, J, Q, P·R)."""
    return (x * scale[..., None]).view(*x.shape[:3], groups, -1).transpose(2, 3)


def _chunk_decay(total: Tensor, groups: int) -> Tensor:
    """Decay over a chunk, (B, n, J, P, 1, 1)."""
    return total[:, :, -1].exp().view(*total.shape[:2], groups, -1, 1, 1)


def _add_decayed(state: Tensor, other: Tensor, decay: Tensor) -> None:
    """state += decay · other, for states (B, J, P·R, N) and decay (B, J, P, 1, 1), in place."""
    shape = (*state.shape[:2], decay.shape[2], -1, state.shape[-1])
    state.view(shape).addcmul_(other.reshape(shape), decay)


def _states(x: Tensor, dt: Tensor, total: Tensor, B: Tensor, first: Tensor | None, writing: int) -> Tensor:
    """The states after each of the first ``writing`` chunks, (B, writing, J, P·R, N)."""
    groups = B.shape[3]
    x, dt, total, B = x[:, :writing], dt[:, :writing], total[:, :writing], B[:, :writing]
    to_end = (total[:, :, -1:] - total).exp_()
    state = _written(x, dt * to_end, groups).transpose(-1, -2) @ B.transpose(2, 3)
    decay = _chunk_decay(total, groups)
    for c in range(writing):
        before = first if c == 0 else state[:, c - 1]
        if before is not None:
            _add_decayed(state[:, c], before, decay[:, c])
    return state


def _before(after: Tensor | None, first: Tensor | None, n: int) -> Tensor:
    """The states before each chunk that reads one, (B, n, J, P·R, N), or n − 1 of them without a first state."""
    if first is None:
        return after[:, : n - 1]
    if n == 1:
        return first[:, None]
    return torch.cat([first[:, None], after[:, : n - 1]], 1)


def _states_back(
    dbefore: Tensor, total: Tensor, dlast: Tensor | None, first: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the states after each writing chunk, and of the first state; ``dbefore`` changes in place."""
    n, groups = total.shape[1], dbefore.shape[2]
    decay = _chunk_decay(total, groups)
    offset = n - dbefore.shape[1]
    states = dbefore
    if dlast is not None:
        states = torch.cat([dbefore, dlast.reshape(len(dlast), 1, *dbefore.shape[2:])], 1)
    for chunk in reversed(range(offset, n)):
        place = chunk - offset
        if place + 1 < states.shape[1]:
            _add_decayed(states[:, place], states[:, place + 1], decay[:, chunk])
    return (states[:, 1:], states[:, 0]) if first is not None else (states, None)
