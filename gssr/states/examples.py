"""Examples to learn a direction from: prompts and what should follow them; their loss, and the loop that lowers it.

Shapes: B rows, L tokens, P prefix tokens, E backbone width, n prompts.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from gssr.backbone import FrozenBackbone
from gssr.states.cache import empty_cache, read, reading, recurrent_layers

IGNORED = -100


@dataclass(frozen=True)
class Learning:
    """How a direction is learned.

    Args:
        steps, rate, batch: of Adam; the rate is relative to the size of the states and falls linearly over the last 40 % of the steps.
        first_weight: how much more the first token counts than a late one; ``first_tokens``: tokens in which that falls to 1/e.
    """

    steps: int = 200
    rate: float = 0.1
    batch: int = 8
    first_weight: float = 4.0
    first_tokens: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not self.rate > 0:
            raise ValueError(f"{self}: steps, batch and rate must be above 0")


class Examples:
    """Prompts, and continuations that are drawn independently of them.

    Many different prompts cost nothing and are needed: what is learned has room enough for a few dozen of them by heart.

    Args:
        prompts: what the model may have read; their last ``prompt_tokens`` tokens count.
        continuations: what should follow; their first ``tokens`` tokens count, the break that leads to them included.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        prompts: Sequence[str],
        continuations: Sequence[str],
        tokens: int = 24,
        prompt_tokens: int = 24,
    ) -> None:
        before = backbone.tokenize(prompts) if prompts else []
        follow = backbone.tokenize(continuations) if continuations else []
        if not before or not follow or not all(before) or not all(follow):
            raise ValueError(
                f"{len(prompts)} prompts and {len(continuations)} continuations; expected at least one of each, none empty"
            )
        self.backbone = backbone
        rows = [[backbone.start_id, *ids][-prompt_tokens:] for ids in before]
        width = max(map(len, rows))
        device = backbone.device
        self.prompts = torch.tensor([[backbone.start_id] * (width - len(i)) + i for i in rows], device=device)
        self.mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in rows], device=device)
        follow = [ids[:tokens] for ids in follow]
        width = max(map(len, follow))
        self.targets = torch.tensor([ids + [IGNORED] * (width - len(ids)) for ids in follow], device=device)

    @torch.no_grad()
    def read(self, pick: Tensor) -> DynamicCache:
        """A cache that has read the prompts picked, all but their last token."""
        cache = empty_cache(self.backbone.model)
        read(self.backbone, cache, self.prompts[pick, :-1], self.mask[pick, :-1])
        return cache

    def read_some(self, count: int = 32) -> DynamicCache:
        """A cache that has read ``count`` of the prompts, evenly spaced."""
        return self.read(torch.linspace(0, len(self.prompts) - 1, min(count, len(self.prompts))).long())

    def states(self, count: int = 32) -> dict[int, Tensor]:
        """Behind ``count`` of the prompts: (count, M, R, N) by recurrent layer."""
        cache = self.read_some(count)
        return {layer: cache.get_recurrent_state(layer) for layer in recurrent_layers(cache)}

    def loss(
        self,
        settings: Learning,
        generator: torch.Generator,
        prefix: Tensor | None = None,
        change: Callable[[DynamicCache], object] = lambda cache: None,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Tensor:
        """Weighted cross-entropy of ``settings.batch`` random pairs, nats a token.

        Args:
            prefix: embeddings (P, E), at the scale of the table, read behind the prompt.
            change: is told the cache behind the prompts, all but their last token, and may change it.
            around: what the call behind the prompts happens in; its first token is the last one of the prompts.
        """
        device = self.backbone.device
        pick = torch.randint(len(self.prompts), (settings.batch,), generator=generator)
        target = self.targets[torch.randint(len(self.targets), (settings.batch,), generator=generator)]
        cache = self.read(pick)
        change(cache)
        embedded = self._embed(pick, target[:, :-1].clamp(min=0), prefix)
        mask = F.pad(self.mask[pick], (0, embedded.shape[1] - 1), value=1)
        with around():
            about = reading(self.backbone.model, cache, mask, embedded.shape[1])
            hidden = self.backbone.decoder(inputs_embeds=embedded, **about).last_hidden_state[:, -target.shape[1] :]
        logits = self.backbone.logits(hidden).float()
        nats = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="none")
        place = torch.arange(target.shape[1], device=device)
        weight = 1 + (settings.first_weight - 1) * torch.exp(-place / settings.first_tokens)
        weight = weight.expand_as(target) * (target != IGNORED)
        return (nats.view_as(target) * weight).sum() / weight.sum()

    def _embed(self, pick: Tensor, behind: Tensor, prefix: Tensor | None) -> Tensor:
        """The last token of the prompts picked, the prefix if there is one, and what is behind."""
        last = self.backbone.embed(self.prompts[pick, -1:])
        parts = [last, self.backbone.embed(behind)]
        if prefix is not None:
            parts.insert(1, prefix.to(last.dtype).expand(len(pick), -1, -1))
        return torch.cat(parts, 1)


def fit(
    parameters: Sequence[Tensor],
    settings: Learning,
    loss: Callable[[torch.Generator], Tensor],
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Adam on ``parameters`` alone, in place; the loss of every step.

    Args:
        loss: of a generator, see ``Examples.loss``.
        progress: is told step and loss.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.Adam(parameters, lr=settings.rate, betas=(0.9, 0.99))
    losses: list[float] = []
    with torch.enable_grad():
        for step in range(settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * min(1.0, (settings.steps - step) / (0.4 * settings.steps))
            value = loss(generator)
            # Not backward(): it would write into .grad of weights that someone else may be training.
            for parameter, gradient in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
                parameter.grad = gradient
            optimizer.step()
            losses.append(value.item())
            if progress is not None:
                progress(step, losses[-1])
    return losses
