"""Learn a direction by gradient through the frozen model from a handful of examples: prompts, and what should follow them.

An offset is added to recurrent states alone and leaves in place what conv states and attention hold of the prompt; where the text
should become another one `gssr.states.learned_state` does better.

A rule acts between tokens, training reads many at once. Mamba-2 is linear in its state and decays by one number a head, so what
an offset O, added before each token l with weight s_l, contributes to the output has a closed form,

    y_l += g_l · O C_l,    g_l = a_l (g_{l-1} + s_l),    a_l = exp(A dt_l),

which ``scan_offsets`` adds to the model's own scan: one forward call instead of one a token, and the same numbers as `steer`.

Shapes: B rows, L tokens, V vocabulary; M heads of dimension R, N state dimensions, J groups.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.backbone import FrozenBackbone
from gssr.states.directions import Direction
from gssr.states.examples import Examples, Learning, fit
from gssr.states.rules import Change, LowRank, Schedule

SCAN = "mamba2_chunk_scan"


def learn_offset(
    examples: Examples,
    schedule: Schedule,
    settings: Learning | None = None,
    layers: Sequence[int] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[Direction, list[float]]:
    """The offset for each of ``layers`` that makes the continuations likely when it is added as ``schedule`` says.

    ``Schedule.once()`` learns a single change behind the prompt, any other one that is repeated. No weight changes.

    Returns:
        (M, R, N) for each layer, for an ``Offset`` of strength 1 with the same schedule; and the loss of every step.

    Raises:
        ValueError: layers without a recurrent state.
    """
    settings = settings or Learning()
    states = examples.states()
    scales = {layer: x.square().mean().sqrt().item() for layer, x in states.items()}
    chosen = sorted(scales if layers is None else set(layers))
    if wrong := sorted(set(chosen) - set(scales)):
        raise ValueError(f"layers {wrong} have no recurrent state; expected some of {sorted(scales)}")
    # In units of the states' own size, so that one rate suits all layers.
    relative = {layer: torch.zeros_like(states[layer][0]).requires_grad_() for layer in chosen}

    def change() -> dict[int, Tensor]:
        return {layer: scales[layer] * x for layer, x in relative.items()}

    def loss(generator: torch.Generator) -> Tensor:
        return examples.loss(settings, generator, around=lambda: scan_offsets(examples.backbone, change(), schedule))

    losses = fit(list(relative.values()), settings, loss, progress)
    return {layer: scales[layer] * x.detach() for layer, x in relative.items()}, losses


@contextmanager
def scan_offsets(backbone: FrozenBackbone, change: Change, schedule: Schedule) -> Iterator[None]:
    """Calls of several tokens inside the block run as if ``change`` were added before each token, by ``schedule``.

    Differentiable in ``change``, (M, R, N) or (B, M, R, N) or of low rank, by layer. Token 0 is the first of each call.

    Raises:
        ValueError: the model's layers are not Mamba-2 layers of the kind whose scan is known here.
    """
    modeling = sys.modules[type(backbone.model).__module__]
    scan = getattr(modeling, SCAN, None)
    if scan is None:
        raise ValueError(
            f"{type(backbone.model).__name__} has no Mamba-2 scan to learn an offset through; GraniteMoeHybrid, Bamba and "
            "others with one do. Directions from states work with every hybrid model"
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
    """g_l · O C_l for every token, (B, L, M, R), and g_L · O, (B, M, R, N), for a scan called with ``given``."""
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
    # What is added before token j has decayed by a_j … a_l when token l reads it.
    since = (total[..., :, None] - total[..., None, :] + log_decay[..., None, :]).masked_fill(~causal, -torch.inf)
    g = since.exp() @ schedule.weights(length).to(dt.device)  # (B, M, L)
    maps = offset.reshape(len(offset), groups, -1, offset.shape[-1])  # (1 or B, J, M/J · R, N)
    read = C.float().transpose(1, 2) @ maps.transpose(-1, -2)  # (B, J, L, M/J · R)
    read = read.transpose(1, 2).reshape(len(dt), length, *offset.shape[1:3])
    return g.transpose(1, 2)[..., None] * read, g[..., -1, None, None] * offset
