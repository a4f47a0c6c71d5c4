"""A change of the states, under a norm budget, that makes a target text follow.

The loss is the target's negative log-likelihood, and the divergence of the tokens behind it from what the model would
say there had the target simply stood in the text. So the change forces the text and nothing else.

Steps go along the normalised gradient of each part, as large as a share of its budget: no scale needs to be tuned.

Shapes: B cases, T target tokens, A tokens behind them, V vocabulary.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.backbone import FrozenBackbone
from gssr.control.functional import Layers, bounded, logits, read, say
from gssr.domains import CountOrNone, NonNegative, Positive, Range, checked
from gssr.domains import Layers as LayerList

Part = Literal["recurrent", "conv"]
Key = tuple[int, Part]
# A change by layer and part, with B rows each.
Change = dict[Key, Tensor]
RATE = 0.25  # share of the budget that a first step covers


@checked
@dataclass(frozen=True)
class Force:
    """How a target is forced.

    Args:
        budget: norm of the change over the norm of the state.
        parts: recurrent, conv or both.
        layers: from 0; None takes all recurrent layers.
        shared: one budget for all layers together, in place of one for each.
        after: A, tokens behind the target that should stay as they would be.
        calm: weight of their divergence in the loss.
        steps: of optimisation.
    """

    budget: Positive = 0.5
    parts: tuple[Part, ...] = ("recurrent", "conv")
    layers: LayerList | None = None
    shared: bool = False
    after: CountOrNone = 20
    calm: NonNegative = 1.0
    steps: Annotated[int, Range(1, 10_000)] = 40

    def keys(self, layers: Layers) -> list[Key]:
        """The parts that change. Raises ValueError for a layer that has no such part."""
        own = [i for i, layer in enumerate(layers) if layer.recurrent is not None]
        wrong = sorted(set(self.layers or ()) - set(own))
        if wrong:
            raise ValueError(
                f"layers {', '.join(map(str, wrong))} have no recurrent state to change; expected some of "
                f"{', '.join(map(str, own))}"
            )
        return [(i, part) for i in (own if self.layers is None else self.layers) for part in self.parts]


@dataclass(frozen=True, eq=False)
class Forced:
    """Of B cases: states with the change, the change, and what came of it.

    ``said`` (B, T) is the likeliest token at each place of the target, ``nats`` (B,) the target's negative
    log-likelihood, ``kl`` (B,) the mean divergence of the A tokens behind it, ``perplexity`` (B,) the ratio of
    perplexities of those tokens, with the change over with the target put there.
    """

    layers: Layers
    change: Change
    said: Tensor
    nats: Tensor
    kl: Tensor
    perplexity: Tensor

    def hit(self, target: Tensor) -> Tensor:
        """(B,), True where every token of the target is the likeliest one."""
        return (self.said == target).all(1)


def force(
    backbone: FrozenBackbone,
    layers: Layers,
    last: Tensor,
    target: Tensor,
    options: Force,
    basis: dict[Key, Tensor] | None = None,
) -> Forced:
    """Optimise one change for each case.

    Args:
        layers: states with B rows. last: token (B,) that they have not read. target: (B, T).
        basis: restricts the change of a part to a subspace: orthonormal directions (k, size).

    Raises ValueError for a layer without such a part.
    """
    keys, text = options.keys(layers), After(backbone, layers, last, target, options.after)
    states = {key: getattr(layers[key[0]], key[1]).detach() for key in keys}
    change = {key: torch.zeros_like(state, dtype=torch.float32) for key, state in states.items()}
    speed = {key: torch.zeros_like(part) for key, part in change.items()}
    best, least = change, torch.full((len(last),), torch.inf, device=last.device)
    for step in range(options.steps + 1):
        leaves = {key: part.clone().requires_grad_() for key, part in change.items()}
        nats, kl, said = text.measure(applied(layers, leaves))
        loss = nats + options.calm * kl * max(1, options.after) ** 0.5
        # What misses comes after all that hits.
        order = loss.detach() + 1e6 * (~(said == target).all(1)).float()
        better = order < least
        least = torch.where(better, order, least)
        best = {key: torch.where(_rows(better, part), part, best[key]) for key, part in change.items()}
        if step == options.steps:
            break
        gradients = torch.autograd.grad(loss.sum(), list(leaves.values()))
        rate = RATE * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for (key, part), gradient in zip(change.items(), gradients, strict=True):
            if basis is not None:
                gradient = ((gradient.flatten(1) @ basis[key].T) @ basis[key]).view_as(gradient)
            size = gradient.flatten(1).norm(dim=1).clamp(min=1e-20)
            speed[key] = 0.7 * speed[key] + gradient / _rows(size, gradient)
            reach = rate * 0.5 * options.budget * states[key].flatten(1).norm(dim=1)
            change[key] = part - _rows(reach, part) * speed[key]
        change = within(change, states, options)
    return text.forced(best)


def tried(
    backbone: FrozenBackbone, layers: Layers, last: Tensor, target: Tensor, options: Force, change: Change
) -> Forced:
    """What a given change does; arguments as in ``force``."""
    return After(backbone, layers, last, target, options.after).forced(change)


def applied(layers: Layers, change: Change) -> Layers:
    """States plus a change."""
    found = list(layers)
    for (i, part), tensor in change.items():
        found[i] = replace(found[i], **{part: getattr(found[i], part) + tensor.to(getattr(found[i], part).dtype)})
    return tuple(found)


def within(change: Change, states: dict[Key, Tensor], options: Force) -> Change:
    """A change shortened to the budget: of each part of each layer, or of each part over all layers together."""
    if not options.shared:
        return {key: bounded(part, states[key], options.budget) for key, part in change.items()}
    found: Change = {}
    for kind in options.parts:
        own = [key for key in change if key[1] == kind]
        size, most = (
            torch.stack([tensors[key].flatten(1).norm(dim=1) for key in own]).norm(dim=0)
            for tensors in (change, states)
        )
        factor = (options.budget * most / size.clamp(min=1e-20)).clamp(max=1.0)
        found |= {key: change[key] * _rows(factor, change[key]) for key in own}
    return found


class After:
    """A target and what follows it, behind states; and what the model says there without a change."""

    def __init__(self, backbone: FrozenBackbone, layers: Layers, last: Tensor, target: Tensor, after: int) -> None:
        self.backbone, self.layers, self.target, self.count = backbone, layers, target, after
        whole = torch.cat([last[:, None], target], 1)
        with torch.no_grad():
            if after:
                behind = read(backbone, layers, whole[:, :-1]).layers
                whole = torch.cat([whole, say(backbone, behind, whole[:, -1], after)], 1)
            self.tokens = whole
            self.plain = self._behind(layers)[1]

    def _behind(self, layers: Layers) -> tuple[Tensor, Tensor]:
        """Log-probabilities at the target (B, T, V), and behind it (B, A, V)."""
        found = logits(self.backbone, layers, self.tokens[:, :-1] if self.count else self.tokens).log_softmax(-1)
        length = self.target.shape[1]
        return found[:, :length], found[:, length : length + self.count]

    def measure(self, layers: Layers) -> tuple[Tensor, Tensor, Tensor]:
        """Nats (B,), mean divergence (B,), tokens said (B, T)."""
        at, behind = self._behind(layers)
        nats = -at.gather(-1, self.target[..., None]).squeeze(-1).sum(1)
        kl = F.kl_div(behind, self.plain, log_target=True, reduction="none").sum(-1)
        return nats, (kl.mean(1) if self.count else torch.zeros_like(nats)), at.argmax(-1)

    @torch.no_grad()
    def forced(self, change: Change) -> Forced:
        layers = applied(self.layers, change)
        nats, kl, said = self.measure(layers)
        behind, tokens = self._behind(layers)[1], self.tokens[:, 1 + self.target.shape[1] :, None]
        ratio = (self.plain - behind).gather(-1, tokens).squeeze(-1)
        return Forced(layers, change, said, nats, kl, ratio.mean(1).exp() if self.count else torch.ones_like(nats))


def _rows(per_row: Tensor, like: Tensor) -> Tensor:
    return per_row.view(-1, *[1] * (like.ndim - 1))
