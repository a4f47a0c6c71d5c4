"""One step of the Mamba-2 scan, when a single token is decoded; a drop-in for the torch path of transformers.

A few tokens that go on from a state, such as a draft that is verified, are read step by step, too: up to `FEW` of them
that takes less time than a scan, whose cost hardly depends on their number.

Shapes: M = J · P heads of dimension R in J groups, N state dimensions; B and L as in the legend.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

FEW = 6


def one_step(
    state: Tensor,
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    z: Tensor | None = None,
    **kwargs: object,
) -> Tensor:
    """One step of the scan when a single token is decoded; ``state`` is changed in place, as by the library.

    The library expands dt, A and D over R and N and takes an exponential of each copy; here each head has one. Unlike
    the library's step, this one has a backward pass: nothing overwrites what autograd saves.

    Args:
        state: (B, M, R, N). hidden_states: x (B, M, R). dt: (B, M, R), A: (M, R, N), D and dt_bias: (M, R), all
            expanded from one number a head. B, C: (B, J, N). z: gate (B, M, R) or None.

    Returns:
        y (B, M, R) in the precision of ``hidden_states``.
    """
    batch, heads, r = hidden_states.shape
    groups, n = B.shape[1:]
    dt = dt[..., 0]
    if dt_bias is not None:
        dt = dt + dt_bias[:, 0].to(dt.dtype)
    if dt_softplus:
        dt = F.softplus(dt)
    dt, x = dt.float(), hidden_states.float()
    flat = (batch * groups, heads // groups * r)
    now = state if state.dtype == torch.float32 and state.is_contiguous() else state.float().contiguous()
    now.mul_((dt * A[:, 0, 0].float()).exp()[..., None, None])
    write, C = (x * dt[..., None]).reshape(*flat, 1), C.float().reshape(flat[0], n, 1)
    # A view of every state of a group as one matrix: P·R rows that are written and read together.
    matrix = now.view(*flat, n)
    matrix.baddbmm_(write, B.float().reshape(flat[0], 1, n))
    if now is not state:
        state.copy_(now)
    y = (matrix @ C).view(batch, heads, r)
    if D is not None:
        y = torch.addcmul(y, x, D.float())
    y = y.to(hidden_states.dtype)
    return y if z is None else y * F.silu(z)


def few_steps(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The scan of a few tokens from a state (B, M, R, N), which stays as it is; without a backward pass.

    Args:
        x: (B, L, M, R). dt: step sizes as they are used, (B, L, M). A: (M). B, C: (B, L, J, N). D: (M) or None.

    Returns:
        y (B, L, M, R) and the last state (B, M, R, N), in float32.
    """
    batch, length, heads, r = x.shape
    groups, n = B.shape[2:]
    rows = heads // groups * r
    now = torch.empty(state.shape, dtype=torch.float32, device=state.device).copy_(state)
    matrix = now.view(batch * groups, rows, n)
    decay = (dt * A).exp()[..., None, None]
    # Steps first, so that each step is one block: (L, B · J, P · R, 1), and B and C with it.
    write = (x * dt[..., None]).transpose(0, 1).reshape(length, batch * groups, rows, 1)
    into = B.transpose(0, 1).reshape(length, batch * groups, 1, n)
    out_of = C.transpose(0, 1).reshape(length, batch * groups, n, 1)
    read = []
    for step in range(length):
        now.mul_(decay[:, step])
        matrix.baddbmm_(write[step], into[step])
        read.append((matrix @ out_of[step]).view(batch, heads, r))
    y = torch.stack(read, 1)
    return (y if D is None else torch.addcmul(y, x, D[:, None])), now
