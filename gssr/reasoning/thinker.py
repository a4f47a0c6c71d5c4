"""Read a prompt once, then think: each step reads one embedding behind the cache and says what would be said now.

The last token of the prompt is the first thought, so step 1 is what the model says without thinking. Memory policies:

    read_only           each thought reads the states of the prompt and writes nothing
    write               each thought is written into all states, and keys and values grow by one position a step
    write_without_keys  recurrent and conv states are written, keys and values stay those of the prompt

With ``read_only`` and ``write_without_keys`` the memory of a step does not depend on the number of steps.

Shapes: B rows, L tokens of a prompt, E backbone width, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from transformers import Cache

from gssr.backbone import FrozenBackbone
from gssr.reasoning.halting import HaltingHead
from gssr.reasoning.thoughts import Thought
from gssr.states.advance import advance
from gssr.states.cache import ATTENTION, LayerState, any_cache, layer_states

Memory = Literal["read_only", "write", "write_without_keys"]


class Step(NamedTuple):
    """Of one step: what was read (B, E), the hidden state (B, E) and the logits (B, V) behind it.

    ``again`` (B,): the chance that this step would say what the step before would have said; 0 at the first.
    """

    thought: Tensor
    hidden: Tensor
    logits: Tensor
    again: Tensor


class State(NamedTuple):
    """Of one step: ``kept`` are the states that the next step reads, ``read`` the cache behind this thought, of the
    positions in ``mask`` (B, K), behind which an answer is written.
    """

    step: Step
    kept: tuple[LayerState, ...]
    read: Cache
    mask: Tensor


class Readouts(NamedTuple):
    """What would be said after each of n steps (B, n), the chance that it is right (B, n), and the step (B,), from 0,
    after which thinking halts: the first whose chance reaches the threshold, else the last.
    """

    said: Tensor
    chance: Tensor
    halted: Tensor


@dataclass(frozen=True)
class Thinker:
    """A frozen backbone with a way back, and a head that says when to stop."""

    backbone: FrozenBackbone
    thought: Thought
    memory: Memory = "read_only"
    halting: HaltingHead | None = None

    def steps(self, prompt: Tensor, mask: Tensor | None = None) -> Iterator[Step]:
        """Steps without end; gradients pass through thoughts and states. Arguments and errors as in ``states``."""
        return (state.step for state in self.states(prompt, mask))

    def states(self, prompt: Tensor, mask: Tensor | None = None) -> Iterator[State]:
        """Steps without end, each with its caches.

        Args:
            prompt: token ids (B, L), padded on the left. mask: (B, L), False at padding; all by default.

        Raises ValueError for a prompt of fewer than two tokens, and as `advance`.
        """
        mask = torch.ones_like(prompt, dtype=torch.bool) if mask is None else mask
        if prompt.shape[1] < 2 or not mask[:, -2:].all():
            raise ValueError(
                "a prompt needs at least two tokens: one to remember, and the last one, which is the first thought"
            )
        embedded = self.backbone.embed(prompt)
        with torch.no_grad():
            _, cache = advance(self.backbone, any_cache(self.backbone.model), embedded[:, :-1], mask[:, :-1])
        return self._think(layer_states(cache), mask[:, :-1], embedded[:, -1].float())

    @torch.no_grad()
    def readouts(
        self,
        prompt: Tensor,
        steps: int,
        threshold: float = 0.9,
        mask: Tensor | None = None,
        until_sure: bool = False,
    ) -> Readouts:
        """Think for a number of steps and read off each; arguments as in ``steps``.

        With ``until_sure`` thinking ends where every row has reached the threshold; n is then smaller.

        Raises ValueError for a number of steps below 1, or without a halting head.
        """
        if steps < 1 or self.halting is None:
            raise ValueError(f"{steps} steps were asked for; expected 1 or more, and a halting head")
        said, chance = [], []
        for step in islice(self.steps(prompt, mask), steps):
            said.append(step.logits.argmax(-1))
            chance.append(self.halting(step).sigmoid())
            if until_sure and (torch.stack(chance) >= threshold).any(0).all():
                break
        sure = torch.stack(chance, 1) >= threshold
        halted = torch.where(sure.any(1), sure.int().argmax(1), len(said) - 1)
        return Readouts(torch.stack(said, 1), torch.stack(chance, 1), halted)

    def after(self, prompt: Tensor, steps: int, threshold: float | None = None) -> tuple[State, int]:
        """The state after a number of steps, or where the head is as sure as ``threshold`` for all rows, and the steps
        taken; arguments else as in ``steps``.

        Raises ValueError for a threshold without a halting head.
        """
        if threshold is not None and self.halting is None:
            raise ValueError("a threshold needs a halting head; train thoughts, or give a number of steps")
        states = enumerate(islice(self.states(prompt), steps), 1)
        for taken, state in states:
            is_sure = self.halting is not None and (self.halting(state.step).sigmoid() >= (threshold or 0)).all()
            if taken == steps or (threshold is not None and is_sure):
                return state, taken
        raise ValueError(f"{steps} steps were asked for; expected 1 or more")

    def _think(self, kept: tuple[LayerState, ...], mask: Tensor, thought: Tensor) -> Iterator[State]:
        before: Tensor | None = None
        while True:
            seen = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            hidden, read = advance(self.backbone, kept, thought[:, None], seen)
            logits = self.backbone.logits(hidden[:, -1]).float()
            if self.memory == "write":
                kept, mask = layer_states(read), seen
            elif self.memory == "write_without_keys":
                kept = tuple(layer.map(lambda part: part[:, :, :-1], ATTENTION) for layer in layer_states(read))
            said = logits.detach().softmax(-1)
            again = logits.new_zeros(len(logits)) if before is None else (said * before).sum(-1)
            yield State(Step(thought, hidden[:, -1].float(), logits, again), kept, read, seen)
            before, thought = said, self.thought(hidden[:, -1], logits, self.backbone)
