"""Learn a direction by gradient through the frozen model from a handful of examples: prompts, and what should follow them.

Two things decide whether such an offset works in free generation. An example must begin where a text may begin (a line, a sentence),
with the break that leads there as its first token: the middle of a sentence can be learned by nothing. And the first tokens must
weigh most: behind them the text itself shows what it is about, so that the plain loss falls without the switch being learned.

A rule acts between tokens, training reads many at once. Mamba-2 is linear in its state and decays by one number a head, so what
an offset O, added before each token l with weight s_l, contributes to the output has a closed form,

    y_l += g_l · O C_l,    g_l = a_l (g_{l-1} + s_l),    a_l = exp(A dt_l),

which ``scan_offsets`` adds to the model's own scan: one forward call instead of one a token, and the same numbers as `steer`.

Shapes: B rows, L tokens, V vocabulary; M heads of dimension R, N state dimensions, J groups.
"""

import copy
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from gssr.backbone import FrozenBackbone
from gssr.states.directions import Direction, recurrent_layers
from gssr.states.rules import Change, LowRank, Schedule

SCAN = "mamba2_chunk_scan"
IGNORED = -100


@dataclass(frozen=True)
class Learning:
    """How a direction is learned.

    Args:
        steps, rate, batch: of Adam; the rate is relative to the size of the states and falls linearly over the last 40 % of the steps.
        first_weight: how much more the first token counts than a late one; ``first_tokens``: tokens in which that falls to 1/e.
    """

    steps: int = 200
    rate: float = 0.3
    batch: int = 8
    first_weight: float = 4.0
    first_tokens: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not self.rate > 0:
            raise ValueError(f"{self}: steps, batch and rate must be above 0")


class Examples:
    """Prompts, read once, and continuations, which are drawn independently of them.

    Args:
        prompts: what the model may have read; their last ``prompt_tokens`` tokens count.
        continuations: what should follow; their first ``tokens`` tokens count, the break that leads to them included.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        prompts: Sequence[str],
        continuations: Sequence[str],
        tokens: int = 16,
        prompt_tokens: int = 24,
    ) -> None:
        read, follow = backbone.tokenize(prompts), backbone.tokenize(continuations)
        if not read or not follow or not all(read) or not all(follow):
            raise ValueError(
                f"{len(prompts)} prompts and {len(continuations)} continuations; expected at least one of each, none empty"
            )
        self.backbone = backbone
        rows = [[backbone.start_id, *ids][-prompt_tokens:] for ids in read]
        width = max(map(len, rows))
        device = backbone.device
        self.prompts = torch.tensor([[backbone.start_id] * (width - len(i)) + i for i in rows], device=device)
        self.mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in rows], device=device)
        follow = [ids[:tokens] for ids in follow]
        width = max(map(len, follow))
        self.targets = torch.tensor([ids + [IGNORED] * (width - len(ids)) for ids in follow], device=device)
        self.cache = DynamicCache(config=backbone.model.config)
        with torch.no_grad():
            backbone.decoder(
                input_ids=self.prompts[:, :-1],
                attention_mask=self.mask[:, :-1],
                past_key_values=self.cache,
                use_cache=True,
            )

    def scales(self) -> dict[int, float]:
        """Root mean square of the states behind the prompts, by recurrent layer."""
        return {
            layer: self.cache.get_recurrent_state(layer).square().mean().sqrt().item()
            for layer in recurrent_layers(self.cache)
        }

    def loss(self, settings: Learning, generator: torch.Generator, prefix: Tensor | None = None) -> Tensor:
        """Weighted cross-entropy of ``settings.batch`` random pairs, nats a token.

        Args:
            prefix: embeddings (P, E), at the scale of the table, read between a prompt and its continuation.
        """
        pick = torch.randint(len(self.prompts), (settings.batch,), generator=generator)
        target = self.targets[torch.randint(len(self.targets), (settings.batch,), generator=generator)]
        cache = copy.deepcopy(self.cache)
        cache.reorder_cache(pick.to(self.backbone.device))
        known = target[:, :-1].clamp(min=0)
        embedded = self.backbone.table(torch.cat([self.prompts[pick, -1:], known], 1))
        extra = 0
        if prefix is not None:
            extra = len(prefix)
            behind = prefix.to(embedded.dtype).expand(len(pick), -1, -1)
            embedded = torch.cat([embedded[:, :1], behind, embedded[:, 1:]], 1)
        mask = F.pad(self.mask[pick], (0, embedded.shape[1] - 1), value=1)
        hidden = self.backbone.decoder(
            inputs_embeds=embedded, attention_mask=mask, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, extra:]
        logits = self.backbone.head(hidden) / getattr(self.backbone.model.config, "logits_scaling", 1.0)
        nats = F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="none")
        place = torch.arange(target.shape[1], device=target.device)
        weight = 1 + (settings.first_weight - 1) * torch.exp(-place / settings.first_tokens)
        weight = weight.expand_as(target) * (target != IGNORED)
        return (nats.view_as(target) * weight).sum() / weight.sum()


def fit(
    parameters: Sequence[Tensor],
    loss: Callable[[torch.Generator], Tensor],
    settings: Learning,
    progress: Callable[[int, float], None] | None = None,
    rate: float | None = None,
) -> list[float]:
    """Adam on ``parameters`` alone, in place; the loss of every step. ``progress`` is told step and loss; ``rate`` stands in
    for that of the settings, for parameters of another kind."""
    generator = torch.Generator().manual_seed(settings.seed)
    rate = rate or settings.rate
    optimizer = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.99))
    losses: list[float] = []
    with torch.enable_grad():
        for step in range(settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (settings.steps - step) / (0.4 * settings.steps))
            value = loss(generator)
            gradients = torch.autograd.grad(value, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            losses.append(value.item())
            if progress is not None:
                progress(step, losses[-1])
    return losses


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
    scales = examples.scales()
    chosen = sorted(scales if layers is None else set(layers))
    if wrong := sorted(set(chosen) - set(scales)):
        raise ValueError(f"layers {wrong} have no recurrent state; expected some of {sorted(scales)}")
    # In units of the states' own size, so that one rate suits all layers.
    relative = {
        layer: torch.zeros_like(examples.cache.get_recurrent_state(layer)[0]).requires_grad_() for layer in chosen
    }

    def loss(generator: torch.Generator) -> Tensor:
        with scan_offsets(examples.backbone, {layer: scales[layer] * x for layer, x in relative.items()}, schedule):
            return examples.loss(settings, generator)

    losses = fit(list(relative.values()), loss, settings, progress)
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
