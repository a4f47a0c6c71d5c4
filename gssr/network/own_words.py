"""Words that belong to one series, such as its name: in training some are spelled anew.

A language model that has often read the names of the training part writes them from memory, and other names wrongly. A
text that can only be written by copying what was said before teaches to copy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from gssr.sequences.record import Batch

WORD = re.compile(r"[^\W\d_]{3,}")
SHARE = 0.5  # of the sequences whose own words are spelled anew


def respelled(batch: Batch, rows: Iterable[int], generator: torch.Generator) -> Batch:
    """The batch with the own words of half of the sequences ``rows`` spelled anew, alike in all of their texts.

    A word is a sequence's own if all of its texts have it and the last text of no other series in the batch has it. Its
    letters are shuffled; a capital stays in front.
    """
    last = [next((text for text in reversed(texts) if text is not None), "") for texts in batch.text]
    words = [set(WORD.findall(text)) for text in last]
    texts = list(batch.text)
    for row in sorted(set(rows)):
        others = [words[i] for i, series in enumerate(batch.series) if series != batch.series[row]]
        if others and torch.rand((), generator=generator).item() < SHARE:
            own = words[row].difference(*others)
            own = [word for word in sorted(own) if all(text is None or word in text for text in texts[row])]
            texts[row] = _with(texts[row], {word: _shuffled(word, generator) for word in own})
    return replace(batch, text=texts)


def _with(texts: Sequence[str | None], words: dict[str, str]) -> list[str | None]:
    def new(found: re.Match[str]) -> str:
        return words.get(found[0], found[0])

    return [None if text is None else WORD.sub(new, text) for text in texts]


def _shuffled(word: str, generator: torch.Generator) -> str:
    letters = word.lower()
    mixed = "".join(letters[i] for i in torch.randperm(len(word), generator=generator).tolist())
    return mixed.capitalize() if word[0].isupper() else mixed
