"""Fit what acts on states by gradient: prompts, what should follow them, and prompts whose next token should stay as
it is.

Shapes: B rows, L tokens, P prefix tokens, E backbone width, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from gssr.backbone import FrozenBackbone
from gssr.states.advance import advance, left_padded
from gssr.states.cache import empty_cache

IGNORED = -100


@dataclass(frozen=True)
class Learning:
    """How parameters are fitted to examples.

    Args:
        steps, rate, batch: of Adam; the rate falls linearly over the last 40 % of the steps.
        first_weight: weight of the first token of a continuation; a late token has weight 1.
        first_tokens: number of tokens in which the weight above 1 falls to 1/e.
        keep_weight: weight of the KL divergence on ``Examples.kept``, in nats, beside the cross-entropy, in nats a
            token.
        seed: of the draws of prompts and continuations.
    """

    steps: int = 200
    rate: float = 0.1
    batch: int = 8
    first_weight: float = 4.0
    first_tokens: float = 4.0
    keep_weight: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        above, others = (self.rate, self.first_tokens), (self.keep_weight, self.first_weight)
        numbers = all(math.isfinite(x) for x in (*above, *others))
        if self.steps < 1 or self.batch < 1 or not numbers or min(above) <= 0 or min(others) < 0:
            raise ValueError(
                f"{self}: steps, batch, rate and first_tokens must be above 0, the weights at least 0, all finite"
            )


@dataclass(frozen=True)
class Intervention:
    """What acts on the model behind a prompt. Every step of a fit calls each function again.

    Args:
        change: changes the states in a cache that has read the prompts except for their last token, in place.
        around: a context for the call that reads on from there; its first token is the prompts' last one.
        prefix: embeddings (P, E), at the scale of the embedding table, which the model reads behind the prompts.
    """

    change: Callable[[DynamicCache], object] = lambda cache: None
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    prefix: Callable[[], Tensor] | None = None


class Examples:
    """Prompts with what should follow them.

    Without ``paired`` each step draws prompts and continuations independently. That needs many different prompts:
    what is learned has room for a few dozen of them by heart.

    Args:
        prompts: texts that the model has read; their last ``prompt_tokens`` tokens count.
        continuations: texts that should follow; their first ``tokens`` tokens count. A text brings its own leading
            break.
        paired: the continuation of each prompt is the one with the same number.
        kept: further prompts; the distribution of the token behind them should stay that of the unchanged model.

    Raises:
        ValueError: no prompt or no continuation, an empty text, or pairs of unequal number.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        prompts: Sequence[str],
        continuations: Sequence[str],
        tokens: int = 24,
        prompt_tokens: int = 24,
        paired: bool = False,
        kept: Sequence[str] = (),
    ) -> None:
        follow = backbone.tokenize(continuations) if continuations else []
        if not prompts or not follow or not all(follow):
            raise ValueError(
                f"{len(prompts)} prompts and {len(continuations)} continuations; expected at least one of each, none "
                "empty"
            )
        if paired and len(prompts) != len(follow):
            raise ValueError(
                f"{len(prompts)} prompts and {len(follow)} continuations make no pairs; give one continuation a prompt"
            )
        self.backbone, self.paired = backbone, paired
        self.prompts, self.mask = left_padded(backbone, prompts, backbone.start_id, prompt_tokens)
        self.kept = left_padded(backbone, kept, backbone.start_id, prompt_tokens) if kept else None
        follow = [ids[:tokens] for ids in follow]
        width = max(map(len, follow))
        self.targets = torch.tensor([ids + [IGNORED] * (width - len(ids)) for ids in follow], device=backbone.device)

    def read(self, pick: Tensor) -> DynamicCache:
        """A cache that has read the prompts picked except for their last token."""
        return _read(self.backbone, self.prompts[pick], self.mask[pick])

    def read_some(self) -> DynamicCache:
        """A cache that has read 32 of the prompts, evenly spaced, or all if there are fewer."""
        return self.read(torch.linspace(0, len(self.prompts) - 1, min(32, len(self.prompts))).long())

    def loss(self, settings: Learning, generator: torch.Generator, intervention: Intervention | None = None) -> Tensor:
        """Loss of ``settings.batch`` random examples under an intervention.

        Returns:
            Weighted cross-entropy of the continuations, in nats a token, plus ``settings.keep_weight`` times
            KL(unchanged ‖ changed) of the next token behind as many of the prompts to keep, in nats.
        """
        intervention = intervention or Intervention()
        pick = torch.randint(len(self.prompts), (settings.batch,), generator=generator)
        follow = pick if self.paired else torch.randint(len(self.targets), (settings.batch,), generator=generator)
        target = self.targets[follow]
        cache = self.read(pick)
        behind = target[:, :-1].clamp(min=0)
        hidden = _continue(self.backbone, cache, self.prompts[pick], self.mask[pick], behind, intervention)
        nats = _weighted_nats(self.backbone.logits(hidden).float(), target, settings)
        if self.kept is None or settings.keep_weight == 0:
            return nats
        pick = torch.randint(len(self.kept[0]), (settings.batch,), generator=generator)
        prompts, mask = (x[pick] for x in self.kept)
        cache = _read(self.backbone, prompts, mask)
        # A second token that nothing depends on: `scan_offsets` acts on calls of several tokens only.
        second = prompts[:, -1:]
        with torch.no_grad():
            before = _continue(self.backbone, cache, prompts, mask, second, Intervention())[:, 0]
        after = _continue(self.backbone, cache, prompts, mask, second, intervention)[:, 0]
        unchanged, changed = (self.backbone.logits(x).float().log_softmax(-1) for x in (before, after))
        return nats + settings.keep_weight * F.kl_div(changed, unchanged, reduction="batchmean", log_target=True)


def fit(
    parameters: Sequence[Tensor],
    examples: Examples,
    intervention: Intervention,
    settings: Learning,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Lower the loss of ``examples`` by Adam on ``parameters``, in place; nothing else changes.

    Args:
        intervention: what the parameters do to the model.
        progress: is called with step and loss.

    Returns:
        The loss of every step.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.Adam(parameters, lr=settings.rate, betas=(0.9, 0.99))
    losses: list[float] = []
    with torch.enable_grad():
        for step in range(settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * min(1.0, (settings.steps - step) / (0.4 * settings.steps))
            loss = examples.loss(settings, generator, intervention)
            # backward() would also write into the gradients of weights that someone else may be training.
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.grad = gradient
            optimizer.step()
            losses.append(loss.item())
            if progress is not None:
                progress(step, losses[-1])
    return losses


@torch.no_grad()
def _read(backbone: FrozenBackbone, prompts: Tensor, mask: Tensor) -> DynamicCache:
    """A cache that has read prompts (B, L) except for their last token."""
    return advance(backbone, empty_cache(backbone.model), backbone.embed(prompts[:, :-1]), mask[:, :-1])[1]


def _continue(
    backbone: FrozenBackbone,
    cache: DynamicCache,
    prompts: Tensor,
    mask: Tensor,
    behind: Tensor,
    intervention: Intervention,
) -> Tensor:
    """Hidden states (B, W+1, E) at the end of prompts (B, L) and at tokens ``behind`` (B, W). May change the cache."""
    intervention.change(cache)
    parts = [backbone.embed(prompts[:, -1:]), backbone.embed(behind)]
    if intervention.prefix is not None:
        prefix = intervention.prefix()
        parts.insert(1, prefix.to(parts[0].dtype).expand(len(prompts), *prefix.shape))
    embedded = torch.cat(parts, 1)
    with intervention.around():
        hidden, _ = advance(backbone, cache, embedded, F.pad(mask, (0, embedded.shape[1] - 1), value=True))
    return hidden[:, -behind.shape[1] - 1 :]


def _weighted_nats(logits: Tensor, target: Tensor, settings: Learning) -> Tensor:
    """Weighted mean cross-entropy of target (B, L) under logits (B, L, V)."""
    nats = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="none")
    place = torch.arange(target.shape[1], device=target.device)
    weight = 1 + (settings.first_weight - 1) * torch.exp(-place / settings.first_tokens)
    weight = weight.expand_as(target) * (target != IGNORED)
    return (nats.view_as(target) * weight).sum() / weight.sum()
