"""What stands in front of a text: the texts that were said before it, and the values of its step in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gssr.sequences.record import Batch
from gssr.sequences.row_in_words import RowInWords

# Share of training prompts without the newest texts: a plan speaks of steps long after the last text that was said, and
# one that only learns to go on from the text just before does not learn to read its row.
OLDER = 0.5


class Said(NamedTuple):
    """A text that was said, and the values (Y) of its step, NaN where unknown."""

    text: str
    values: Sequence[float]


@dataclass(frozen=True)
class Prompts:
    """Makes the prompt of a text.

    Args:
        history: last texts of the sequence that it holds. between: what follows each of them.
        row: writes the values of the text's own step; None leaves them out.
        rows: write the values of each of the history's texts in front of it, too.
        own: what a plan has written itself counts as said.
    """

    history: int = 0
    between: str = "\n"
    row: RowInWords | None = None
    rows: bool = False
    own: bool = True

    def __call__(self, said: Sequence[Said], values: Sequence[float]) -> str | None:
        """The prompt of a text behind what was ``said`` before, at values (Y), NaN where unknown; None for nothing."""
        prompt = ""
        for text, known in said[len(said) - self.history :] if self.history else ():
            prompt += (self._row(known) if self.rows else "") + text + self.between
        prompt += self._row(values)
        return prompt if prompt.strip(" ") else None

    def _row(self, values: Sequence[float]) -> str:
        row = None if self.row is None else self.row(values)
        return "" if row is None else row if row[-1].isspace() else f"{row} "

    def of(
        self,
        batch: Batch,
        steps: Sequence[tuple[int, int]],
        heard: Tensor | None = None,
        generator: torch.Generator | None = None,
        told: Sequence[tuple[int, int]] | None = None,
    ) -> list[str | None]:
        """The prompts of texts at N (sequence, step) pairs of a batch.

        Args:
            heard: (B,), False for a sequence of which nothing counts as said.
            generator: draws prompts for training, some of them without the newest texts.
            told: N pairs whose values the rows tell in place of the texts' own.
        """
        if self.history == 0 and self.row is None:
            return [None] * len(steps)
        values = batch.value.masked_fill(~batch.value_mask, torch.nan).tolist()
        said = [[] if heard is not None and not heard[b] else _said(batch.text[b][:t], values[b]) for b, t in steps]
        if generator is not None and self.history:
            draws = torch.rand(len(said), 2, generator=generator).tolist()
            for before, (drawn, share) in zip(said, draws, strict=True):
                if drawn < OLDER and len(before) > 1:
                    del before[1 + int(share * (len(before) - 1)) :]
        return [self(before, values[b][t]) for before, (b, t) in zip(said, told or steps, strict=True)]

    def observed(self, batch: Batch) -> list[list[Said]]:
        """What was said in the contexts of a batch."""
        values = batch.value.masked_fill(~batch.value_mask, torch.nan).tolist()
        rows = zip(batch.text, values, batch.context.tolist(), strict=True)
        return [_said(texts[:context], known) for texts, known, context in rows]


def _said(texts: Sequence[str | None], values: Sequence[Sequence[float]]) -> list[Said]:
    return [Said(text, known) for text, known in zip(texts, values, strict=False) if text is not None]
