"""Gated pulls of the states of unfinished rows: before a token, h becomes (1 − a) h + a T in each layer.

Gates a and targets T come from the gradient of a critic, or from the blocks of tokens that a look ahead tries and
values. A state never grows beyond the larger of h and T.

Shapes: B rows, K blocks that are tried for a row; a recurrent state is (B, M, R, N).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.domains import Few, PositiveFraction, Seed, checked
from gssr.search.decoding.critic import Critic
from gssr.search.decoding.lookahead import Search
from gssr.search.decoding.rows import Rows
from gssr.search.decoding.select import Value
from gssr.states.advance import advance
from gssr.states.cache import LayerState, get_part, layer_states, recurrent_layers
from gssr.states.rules import Interpolation, norm

Pull = Callable[[Rows], Sequence[Interpolation]]


def write_pulled(rows: Rows, pull: Pull, every: int) -> None:
    """Write all rows to their end, and pull their states after every so many tokens.

    Raises ValueError for a number of tokens below 1.
    """
    if every < 1:
        raise ValueError(f"a pull after every {every} tokens; expected at least 1")
    while not rows.finished:
        rows.write(every)
        if not rows.finished:
            rows.pull(pull(rows))


@checked
class TowardsValue:
    """Targets and gates from the gradient g of a critic's value, row by row:

        T = ‖h‖ g / ‖g‖,    a_l = gate · s_l / max s,    s_l = ‖h_l‖ ‖g_l‖ in layer l.

    s_l is what the value gains, to first order, in a step of the state's own size; the layer that gains most has the
    gate itself.

    Args:
        gate: largest gate of a row.

    Raises:
        ValueError: a critic that reads no recurrent states.
    """

    def __init__(self, critic: Critic, gate: PositiveFraction) -> None:
        self.critic, self.gate = critic, gate
        self.layers = [i for i in critic.layers if critic.heads[str(i)].is_recurrent]
        if not self.layers:
            raise ValueError(f"the critic reads the layers {critic.layers}, and none of them has a recurrent state")

    def __call__(self, rows: Rows) -> list[Interpolation]:
        states, own = _with_gradient(layer_states(rows.cache), self.layers)
        with torch.enable_grad():
            gradients = torch.autograd.grad(self.critic(states).sum(), list(own.values()))
        return [_along(own, gradients, self.gate)]


@checked
class Blocks:
    """Blocks that a row could go on with, drawn from the model, and their values.

    Args:
        value: of unfinished rows; higher is better.
        candidates: K, blocks of a row.
        block: tokens of a block.
        seed: of the draws.
    """

    def __init__(self, value: Value, candidates: Few = 4, block: Few = 8, seed: Seed = 0) -> None:
        self.value, self.candidates, self.block, self.seed = value, candidates, block, seed

    def __call__(self, rows: Rows) -> tuple[Rows, Tensor]:
        """Rows that have written the blocks (B · K), and values (B, K)."""
        written = rows.length
        tried = Rows(
            rows.backbone, rows.snapshot(), self.candidates, rows.decoding, rows.rules, self.seed + written, written
        )
        tried.write(self.block)
        return tried, self.value(tried).float().to(tried.tokens.device).view(-1, self.candidates)


@checked
class TowardsBest:
    """T is the state behind the best block of a look ahead, and ``gate`` the gate of every layer."""

    def __init__(self, look: Blocks, gate: PositiveFraction) -> None:
        self.look, self.gate = look, gate

    def __call__(self, rows: Rows) -> list[Interpolation]:
        tried, values = self.look(rows)
        best = values.argmax(1) + torch.arange(len(values), device=values.device) * values.shape[1]
        targets = {i: get_part(tried.cache, "recurrent", i)[best] for i in recurrent_layers(tried.cache)}
        return [Interpolation(targets, gate=self.gate)]


@checked
class TowardsPath:
    """T is the state behind the path that a planner's search tries most, and ``gate`` the gate of every layer. A row
    without a path that is allowed stays as it is."""

    def __init__(self, search: Search, gate: PositiveFraction) -> None:
        self.search, self.gate = search, gate

    def __call__(self, rows: Rows) -> list[Interpolation]:
        found = self.search.behind(rows.snapshot(), rows.length)
        targets = {i: torch.cat([state.layers[i].recurrent for state in found]) for i in recurrent_layers(rows.cache)}
        return [Interpolation(targets, gate=self.gate)]


@checked
class TowardsBetter:
    """Targets and gates as in ``TowardsValue``, from the gradient of what a look ahead found to be better:

        g = ∇ Σ_k (v_k - mean v) / std v · log p(block k | h),

    the likelihood-ratio estimate of the gradient of the mean value (Williams 1992). It goes through the model, and so
    says which states write better blocks, not which states a critic takes for those of better texts.
    """

    def __init__(self, look: Blocks, gate: PositiveFraction) -> None:
        self.look, self.gate = look, gate

    def __call__(self, rows: Rows) -> list[Interpolation]:
        tried, values = self.look(rows)
        # A forbidden block counts as the worst of the others.
        worst = values.masked_fill(values.isinf(), torch.inf).amin(1, keepdim=True).nan_to_num(posinf=0.0)
        values = torch.where(values.isinf(), worst, values)
        better = (values - values.mean(1, keepdim=True)) / values.std(1, correction=0, keepdim=True).clamp(min=1e-6)
        backbone, before = rows.backbone, layer_states(rows.cache)
        states, own = _with_gradient(before, recurrent_layers(rows.cache))
        with torch.enable_grad():
            many = tuple(state.map(lambda part: part.repeat_interleave(values.shape[1], 0)) for state in states)
            ids = tried.tokens[:, rows.length - 1 :]
            mask = ids.new_ones(len(ids), tried.prompts.shape[1] + tried.length - 1, dtype=torch.bool)
            hidden, _ = advance(backbone, many, backbone.embed(ids[:, :-1]), mask)
            nats = F.cross_entropy(backbone.logits(hidden).float().transpose(1, 2), ids[:, 1:], reduction="none")
            written = torch.arange(rows.length, tried.length, device=ids.device) < tried.lengths[:, None]
            objective = -(nats * written).sum(1) @ better.flatten()
            gradients = torch.autograd.grad(objective, list(own.values()))
        return [_along(own, gradients, self.gate)]


def _with_gradient(states: Sequence[LayerState], layers: Sequence[int]) -> tuple[list[LayerState], dict[int, Tensor]]:
    """The states with copies of some recurrent ones, which take a gradient, and these copies."""
    own = {i: states[i].recurrent.detach().clone().requires_grad_() for i in layers}
    return [replace(x, recurrent=own[i]) if i in own else x for i, x in enumerate(states)], own


def _along(states: dict[int, Tensor], gradients: Sequence[Tensor], gate: float) -> Interpolation:
    targets, gains = {}, []
    for (i, state), gradient in zip(states.items(), gradients, strict=True):
        size, steep = norm(state.detach()), norm(gradient)
        targets[i] = size * (gradient / steep.clamp(min=torch.finfo(steep.dtype).tiny))
        gains.append((size * steep).flatten())
    share = torch.stack(gains)
    share = share / share.amax(0).clamp(min=torch.finfo(share.dtype).tiny)
    return Interpolation(targets, gate={i: gate * row for i, row in zip(states, share, strict=True)})


class Random:
    """Another pull's gates and random targets in its place, as far from the states as its own are.

    Args:
        seed: of the directions.
    """

    def __init__(self, pull: Pull, seed: int = 0) -> None:
        self.pull, self.generator = pull, torch.Generator().manual_seed(seed)

    def __call__(self, rows: Rows) -> list[Interpolation]:
        return [replace(rule, change=self._targets(rule, rows)) for rule in self.pull(rows)]

    def _targets(self, rule: Interpolation, rows: Rows) -> dict[int, Tensor]:
        targets = {}
        for i in rule.acting_layers:
            state = get_part(rows.cache, rule.part, i)
            noise = torch.randn(state.shape, generator=self.generator).to(state)
            targets[i] = state + noise * (norm(rule.tensor(i, state) - state) / norm(noise))
        return targets
