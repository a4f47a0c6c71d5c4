"""What stands in front of a text: the texts that were said before it, and the values of its step in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gssr.sequences.record import Batch
from gssr.sequences.row_in_words import RowInWords

# Share of training prompts without the newest texts. What a plan writes drifts from its values, while texts of data
# never do: one that only learns to go on from the text before it does not learn to read its row.
OLDER = 0.5


@dataclass(frozen=True)
class Prompts:
    """Makes the prompt of a text.

    Args:
        history: last texts of the sequence that it holds. between: what follows each of them.
        row: writes the values of the text's own step; None leaves them out.
    """

    history: int = 0
    between: str = "\n"
    row: RowInWords | None = None

    def __call__(self, said: Sequence[str], values: Sequence[float]) -> str | None:
        """The prompt of a text behind what was ``said`` before, at values (Y), NaN where unknown; None for nothing."""
        prompt = "".join(text + self.between for text in said[len(said) - self.history :]) if self.history else ""
        row = None if self.row is None else self.row(values)
        if row is not None:
            prompt += row if row[-1].isspace() else f"{row} "
        return prompt if prompt.strip(" ") else None

    def of(
        self,
        batch: Batch,
        steps: Sequence[tuple[int, int]],
        heard: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> list[str | None]:
        """The prompts of texts at N (sequence, step) pairs of a batch.

        Args:
            heard: (B,), False for a sequence of which nothing counts as said.
            generator: draws prompts for training, some of them without the newest texts.
        """
        if self.history == 0 and self.row is None:
            return [None] * len(steps)
        values = batch.value.masked_fill(~batch.value_mask, torch.nan).cpu()
        said = [
            [] if heard is not None and not heard[b] else [text for text in batch.text[b][:t] if text is not None]
            for b, t in steps
        ]
        if generator is not None and self.history:
            draws = torch.rand(len(said), 2, generator=generator).tolist()
            for before, (drawn, share) in zip(said, draws, strict=True):
                if drawn < OLDER and len(before) > 1:
                    del before[1 + int(share * (len(before) - 1)) :]
        return [self(before, values[b, t].tolist()) for before, (b, t) in zip(said, steps, strict=True)]
