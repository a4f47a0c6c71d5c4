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
from gssr.states.cache import ATTENTION, empty_cache, fill_cache, layer_states

Memory = Literal["read_only", "write", "write_without_keys"]


class Step(NamedTuple):
    """Of one step: what was read (B, E), the hidden state (B, E) and the logits (B, V) behind it."""

    thought: Tensor
    hidden: Tensor
    logits: Tensor


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
        return (step for step, _ in self.states(prompt, mask))

    def states(self, prompt: Tensor, mask: Tensor | None = None) -> Iterator[tuple[Step, Cache]]:
        """Steps without end, each with the cache that the next one reads.

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
            _, cache = advance(self.backbone, empty_cache(self.backbone.model), embedded[:, :-1], mask[:, :-1])
        return self._think(cache, mask[:, :-1], embedded[:, -1].float())

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
            chance.append(self.halting(step.hidden, step.logits).sigmoid())
            if until_sure and (torch.stack(chance) >= threshold).any(0).all():
                break
        sure = torch.stack(chance, 1) >= threshold
        halted = torch.where(sure.any(1), sure.int().argmax(1), len(said) - 1)
        return Readouts(torch.stack(said, 1), torch.stack(chance, 1), halted)

    def _think(self, cache: Cache, mask: Tensor, thought: Tensor) -> Iterator[tuple[Step, Cache]]:
        """Each step, and the cache that the next one reads."""
        while True:
            seen = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            hidden, read = advance(self.backbone, cache, thought[:, None], seen)
            logits = self.backbone.logits(hidden[:, -1]).float()
            if self.memory == "write":
                cache, mask = read, seen
            elif self.memory == "write_without_keys":
                cache = self._without_last_keys(read)
            yield Step(thought, hidden[:, -1].float(), logits), cache
            thought = self.thought(hidden[:, -1], logits, self.backbone)

    def _without_last_keys(self, cache: Cache) -> Cache:
        layers = [layer.map(lambda part: part[:, :, :-1], ATTENTION) for layer in layer_states(cache)]
        return fill_cache(self.backbone.model, layers)
