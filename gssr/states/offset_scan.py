"""Train through an offset that acts before every token, in one forward call.

`gssr.states.intervention.steer` adds an offset between calls of one token; training reads many tokens in a call. A
Mamba-2 layer is linear in its state and decays by one number a head. So an offset O, added before each token l with
weight s_l, adds

    y_l += g_l · O C_l,    g_l = a_l (g_{l-1} + s_l),    a_l = exp(A dt_l)

to the output of the layer's scan. ``scan_offsets`` adds just this, and the numbers are those of ``steer``.

Shapes: B rows, L tokens, V vocabulary; M heads of dimension R, N state dimensions, J groups.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.backbone import FrozenBackbone
from gssr.states.rules import Change, LowRank, Schedule

SCAN = "mamba2_chunk_scan"


@contextmanager
def scan_offsets(backbone: FrozenBackbone, change: Change, schedule: Schedule) -> Iterator[None]:
    """Inside the block, calls of several tokens run as if ``change`` were added before each token, by ``schedule``.

    Args:
        change: by layer, (M, R, N) or (B, M, R, N) or of low rank; gradients reach it.
        schedule: token 0 is the first token of each call.

    Raises:
        ValueError: the model has no Mamba-2 scan of the known form.
    """
    modeling = sys.modules[type(backbone.model).__module__]
    scan = getattr(modeling, SCAN, None)
    if scan is None:
        raise ValueError(
            f"{type(backbone.model).__name__} has no Mamba-2 scan to train an offset through; give a model with one, "
            "such as GraniteMoeHybrid or Bamba. Directions from states work with every hybrid model"
        )
    names = list(inspect.signature(inspect.unwrap(scan)).parameters)
    current: list[int] = []

    def steered(*args: object, **kwargs: object) -> object:
        given = dict(zip(names, args, strict=False)) | kwargs
        out = scan(*args, **kwargs)
        if current[-1] not in change:
            return out
        y, final = out if isinstance(out, tuple) else (out, None)
        extra, carried = _contribution(change[current[-1]], schedule, given)
        y = y + extra.to(y.dtype)
        return y if final is None else (y, final + carried)

    def entering(layer: int) -> Callable[..., None]:
        return lambda *_: current.append(layer)

    handles = [layer.register_forward_pre_hook(entering(i)) for i, layer in enumerate(backbone.layers)]
    setattr(modeling, SCAN, steered)
    try:
        yield
    finally:
        setattr(modeling, SCAN, scan)
        for handle in handles:
            handle.remove()


def _contribution(change: Tensor | LowRank, schedule: Schedule, given: Mapping[str, object]) -> tuple[Tensor, Tensor]:
    """g_l · O C_l (B, L, M, R) of every token and g_L · O (B, M, R, N) for the scan's arguments ``given``."""
    offset = change.dense() if isinstance(change, LowRank) else change
    offset = offset if offset.ndim == 4 else offset[None]
    dt, A, C = given["dt"], given["A"], given["C"]  # (B, L, M), (M), (B, L, J, N)
    assert isinstance(dt, Tensor) and isinstance(A, Tensor) and isinstance(C, Tensor)
    dt = dt.float() if given.get("dt_bias") is None else dt.float() + given["dt_bias"]
    dt = F.softplus(dt) if given.get("dt_softplus") else dt
    dt = dt.clamp(*given.get("dt_limit", (0.0, float("inf"))))
    length, groups = dt.shape[1], C.shape[2]
    log_decay = (A.float() * dt).transpose(1, 2)  # (B, M, L)
    total = log_decay.cumsum(-1)
    causal = torch.ones(length, length, dtype=torch.bool, device=dt.device).tril()
    # An offset added before token j has decayed by a_j … a_l when token l reads it.
    since = (total[..., :, None] - total[..., None, :] + log_decay[..., None, :]).masked_fill(~causal, -torch.inf)
    g = since.exp() @ schedule.weights(length).to(dt.device)  # (B, M, L)
    maps = offset.reshape(len(offset), groups, -1, offset.shape[-1])  # (1 or B, J, M/J · R, N)
    read = C.float().transpose(1, 2) @ maps.transpose(-1, -2)  # (B, J, L, M/J · R)
    read = read.transpose(1, 2).reshape(len(dt), length, *offset.shape[1:3])
    return g.transpose(1, 2)[..., None] * read, g[..., -1, None, None] * offset
