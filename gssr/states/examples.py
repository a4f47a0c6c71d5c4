"""Examples to learn a direction from: prompts and what should follow them; their loss, and the loop that lowers it.

Shapes: B rows, L tokens, P prefix tokens, E backbone width, n prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache, DynamicCache

from gssr.backbone import FrozenBackbone
from gssr.states.cache import empty_cache, recurrent_layers

IGNORED = -100


@dataclass(frozen=True)
class Learning:
    """How a direction is learned.

    Args:
        steps, rate, batch: of Adam; the rate is relative to the size of the states and falls linearly over the last 40 % of the steps.
        first_weight: how much more the first token counts than a late one; ``first_tokens``: tokens in which that falls to 1/e.
        own: in half of the steps, up to so many tokens of the steered model's own text stand between a prompt and its
            continuation; 0 for none. ``refresh``: steps after which it writes them anew.
    """

    steps: int = 300
    rate: float = 0.2
    batch: int = 8
    first_weight: float = 5.0
    first_tokens: float = 3.0
    own: int = 8
    refresh: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not self.rate > 0:
            raise ValueError(f"{self}: steps, batch and rate must be above 0")


@dataclass(frozen=True)
class Own:
    """What the steered model has written itself: behind which prompts, (n), and which tokens, (n, L)."""

    prompts: Tensor
    tokens: Tensor


class Examples:
    """Prompts, and continuations that are drawn independently of them.

    Many different prompts cost nothing and are needed: an offset has room enough to learn a few dozen of them by heart.

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
        read = backbone.tokenize(prompts) if prompts else []
        follow = backbone.tokenize(continuations) if continuations else []
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

    @torch.no_grad()
    def read(self, pick: Tensor) -> DynamicCache:
        """A cache that has read the prompts picked, all but their last token."""
        cache = empty_cache(self.backbone.model)
        ids, mask = self.prompts[pick, :-1], self.mask[pick, :-1]
        self.backbone.decoder(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True)
        return cache

    def states(self, count: int = 32) -> dict[int, Tensor]:
        """Behind ``count`` of the prompts, evenly spaced: (count, M, R, N) by recurrent layer."""
        cache = self.read(torch.linspace(0, len(self.prompts) - 1, min(count, len(self.prompts))).long())
        return {layer: cache.get_recurrent_state(layer) for layer in recurrent_layers(cache)}

    def loss(
        self,
        settings: Learning,
        generator: torch.Generator,
        own: Own | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """Weighted cross-entropy of ``settings.batch`` random pairs, nats a token.

        Args:
            own: what ``write`` has written; in half of the calls some of it stands between prompts and continuations.
            prefix: embeddings (P, E), at the scale of the table, read behind the prompt.
        """
        device = self.backbone.device
        pick = torch.randint(len(self.prompts), (settings.batch,), generator=generator)
        target = self.targets[torch.randint(len(self.targets), (settings.batch,), generator=generator)]
        between = target[:, :0]
        if own is not None and torch.rand((), generator=generator) < 0.5:
            chosen = torch.randint(len(own.prompts), (settings.batch,), generator=generator)
            length = int(torch.randint(1, own.tokens.shape[1] + 1, (), generator=generator))
            pick, between = own.prompts[chosen], own.tokens[chosen, :length]
        cache = self.read(pick)
        embedded = self._embed(pick, torch.cat([between, target[:, :-1].clamp(min=0)], 1), prefix)
        mask = F.pad(self.mask[pick], (0, embedded.shape[1] - 1), value=1)
        hidden = self.backbone.decoder(
            inputs_embeds=embedded, attention_mask=mask, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -target.shape[1] :]
        nats = F.cross_entropy(
            self._logits(hidden).flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="none"
        )
        place = torch.arange(target.shape[1], device=device)
        weight = 1 + (settings.first_weight - 1) * torch.exp(-place / settings.first_tokens)
        if between.shape[1]:
            # Behind own text, which may be in the target's domain already, the break is not to be learned as urgent.
            weight[0] = 1.0
        weight = weight.expand_as(target) * (target != IGNORED)
        return (nats.view_as(target) * weight).sum() / weight.sum()

    @torch.no_grad()
    def write(
        self,
        tokens: int,
        generator: torch.Generator,
        before: Callable[[Cache, int], object] = lambda cache, token: None,
        prefix: Tensor | None = None,
        count: int = 32,
    ) -> Own:
        """Sample behind ``count`` random prompts at temperature 1, without end-of-text. ``before`` may change the cache before
        each token."""
        pick = torch.randint(len(self.prompts), (count,), generator=generator)
        cache = self.read(pick)
        embedded, mask = self._embed(pick, self.prompts[pick, :0], prefix), self.mask[pick]
        mask = F.pad(mask, (0, embedded.shape[1] - 1), value=1)
        written: list[Tensor] = []
        for token in range(tokens):
            before(cache, token)
            hidden = self.backbone.decoder(
                inputs_embeds=embedded, attention_mask=mask, past_key_values=cache, use_cache=True
            ).last_hidden_state[:, -1]
            logits = self._logits(hidden)
            logits[:, self.backbone.tokenizer.eos_token_id] = -torch.inf
            # Drawn on the CPU, so that a seed gives the same text on every device.
            next_ids = torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator).to(self.backbone.device)
            written.append(next_ids)
            embedded, mask = self.backbone.table(next_ids), F.pad(mask, (0, 1), value=1)
        return Own(pick, torch.cat(written, 1))

    def _embed(self, pick: Tensor, behind: Tensor, prefix: Tensor | None) -> Tensor:
        """The last token of the prompts picked, the prefix if there is one, and what is behind."""
        last = self.backbone.table(self.prompts[pick, -1:])
        parts = [last, self.backbone.table(behind)]
        if prefix is not None:
            parts.insert(1, prefix.to(last.dtype).expand(len(pick), -1, -1))
        return torch.cat(parts, 1)

    def _logits(self, hidden: Tensor) -> Tensor:
        return (self.backbone.head(hidden) / getattr(self.backbone.model.config, "logits_scaling", 1.0)).float()


def fit(
    parameters: Sequence[Tensor],
    settings: Learning,
    loss: Callable[[torch.Generator, Own | None], Tensor],
    write: Callable[[torch.Generator], Own],
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Adam on ``parameters`` alone, in place; the loss of every step.

    Args:
        loss: of a generator and the own text, see ``Examples.loss``.
        write: own text with the parameters as they are, see ``Examples.write``.
        progress: is told step and loss.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.Adam(parameters, lr=settings.rate, betas=(0.9, 0.99))
    losses: list[float] = []
    own: Own | None = None
    with torch.enable_grad():
        for step in range(settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * min(1.0, (settings.steps - step) / (0.4 * settings.steps))
            if settings.own and step and step % settings.refresh == 0:
                own = write(generator)
            value = loss(generator, own)
            # Not backward(): it would write into .grad of weights that someone else may be training.
            for parameter, gradient in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
                parameter.grad = gradient
            optimizer.step()
            losses.append(value.item())
            if progress is not None:
                progress(step, losses[-1])
    return losses
