"""Where the context of a batch ends, and the value that it ends on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gssr.sequences.record import Batch


def context_length(batch: Batch) -> int:
    """The context length C that all sequences of a batch share.

    Raises ValueError where sequences differ in it, and where it leaves no step to forecast.
    """
    lengths, steps = sorted(set(batch.context.tolist())), batch.value.shape[1]
    if len(lengths) != 1 or not 0 < lengths[0] < steps:
        raise ValueError(
            f"a forecast needs one context length, shorter than the sequences; the batch has the lengths {lengths} in "
            f"sequences of {steps} steps"
        )
    return lengths[0]


def last_observed(batch: Batch, context: int, default: Tensor) -> Tensor:
    """The last value observed in the first `context` steps, (B, 1, Y); `default` (Y) where none was observed."""
    mask = batch.value_mask[:, :context]
    steps = torch.arange(1, context + 1, device=mask.device)[:, None]
    newest = (mask * steps).amax(1, keepdim=True)  # 0: never observed
    value = batch.value[:, :context].gather(1, (newest - 1).clamp(min=0))
    return torch.where(newest > 0, value, default.to(value))


def first_steps(batch: Batch, steps: int) -> Batch:
    """The first ``steps`` steps of a batch, without any goal."""
    return replace(
        batch,
        time=batch.time[:, :steps],
        value=batch.value[:, :steps],
        value_mask=batch.value_mask[:, :steps],
        step_mask=batch.step_mask[:, :steps],
        text=[row[:steps] for row in batch.text],
        goal=[None] * len(batch),
        step_label=None if batch.step_label is None else [row[:steps] for row in batch.step_label],
    )
