"""Gated pulls of the states of unfinished rows: before a token, h becomes (1 − a) h + a T in each layer.

Gates a and targets T come from the gradient of a critic, or T is the state behind the best path that a look ahead
found. A state never grows beyond the larger of h and T.

Shapes: P prompts, K rows a prompt, B = P · K rows; a recurrent state is (B, M, R, N).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gssr.domains import Few, PositiveFraction, Seed, checked
from gssr.search.decoding.critic import Critic
from gssr.search.decoding.rows import Rows
from gssr.search.decoding.select import Value, blockwise
from gssr.states.cache import get_part, layer_states, recurrent_layers
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
    """Targets and gates from the gradient g of a critic's value, row by row.

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
        states = list(layer_states(rows.cache))
        own = {i: states[i].recurrent.detach().clone().requires_grad_() for i in self.layers}
        for i, state in own.items():
            states[i] = replace(states[i], recurrent=state)
        with torch.enable_grad():
            gradients = torch.autograd.grad(self.critic(states).sum(), list(own.values()))
        targets, gains = {}, []
        for (i, state), gradient in zip(own.items(), gradients, strict=True):
            size, steep = norm(state.detach()), norm(gradient)
            targets[i] = gradient * (size / steep.clamp(min=torch.finfo(steep.dtype).tiny))
            gains.append((size * steep).flatten())
        share = torch.stack(gains)
        share = share / share.amax(0).clamp(min=torch.finfo(share.dtype).tiny)
        return [Interpolation(targets, gate={i: self.gate * row for i, row in zip(own, share, strict=True)})]


@checked
class TowardsPath:
    """T is the state behind the best of the paths that a look ahead tries, blocks of tokens in a row; a is ``gate``.

    At each block all candidates of a row go on from the best by the value, as in ``blockwise``.

    Args:
        value: of unfinished rows; higher is better.
        candidates: paths that are tried for a row, by drawing.
        block: tokens of a block.
        depth: blocks of a path.
        seed: of the draws.

    Attributes:
        calls, read: forward calls of the model, and the tokens that they read.
    """

    def __init__(
        self, value: Value, gate: PositiveFraction, candidates: Few = 4, block: Few = 8, depth: Few = 1, seed: Seed = 0
    ) -> None:
        self.value, self.gate = value, gate
        self.candidates, self.block, self.depth, self.seed = candidates, block, depth, seed
        self.calls = self.read = 0

    def __call__(self, rows: Rows) -> list[Interpolation]:
        ahead, best = self.look(rows)
        targets = {i: get_part(ahead.cache, "recurrent", i)[best] for i in recurrent_layers(ahead.cache)}
        return [Interpolation(targets, gate=self.gate)]

    def look(self, rows: Rows) -> tuple[Rows, Tensor]:
        """What was tried, B times all candidates, and the best of each row (B,) among it."""
        written, tokens = rows.length, rows.length + self.block * self.depth
        decoding = replace(rows.decoding, tokens=min(tokens, rows.decoding.tokens))
        ahead = Rows(
            rows.backbone, rows.snapshot(), self.candidates, decoding, rows.rules, self.seed + written, written
        )
        found = blockwise(ahead, self.value, self.block)
        self.calls, self.read = self.calls + found.calls, self.read + found.read
        return ahead, found.chosen_rows


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
