"""The context of a batch: its length, its last values, and the batch without its horizon."""

import torch
from torch import Tensor

from gssr.sequences.record import Batch


def context_length(batch: Batch) -> int:
    """C, the observed steps before goals and plans begin. Raises ValueError where sequences differ in it."""
    first = batch.context.unique()
    if len(first) != 1 or not 0 < first.item() < batch.value.shape[1]:
        raise ValueError(
            f"a rollout needs one context length, shorter than the sequences; the batch has {first.tolist()}"
        )
    return int(first.item())


def last_observed(batch: Batch, context: int, default: Tensor) -> Tensor:
    """The last value observed in the first ``context`` steps, (B, 1, Y); ``default`` (Y) where none was observed."""
    mask = batch.value_mask[:, :context]
    steps = torch.arange(1, context + 1, device=mask.device)[:, None]
    newest = (mask * steps).amax(1, keepdim=True)  # 0: never observed
    value = batch.value[:, :context].gather(1, (newest - 1).clamp(min=0))
    return torch.where(newest > 0, value, default.to(value))


def cut(batch: Batch, steps: int) -> Batch:
    """The first ``steps`` steps of a batch, without any goal."""
    return Batch(
        series=batch.series,
        time=batch.time[:, :steps],
        value=batch.value[:, :steps],
        value_mask=batch.value_mask[:, :steps],
        step_mask=batch.step_mask[:, :steps],
        text=[row[:steps] for row in batch.text],
        goal=[None] * len(batch),
        goal_low=batch.goal_low,
        goal_high=batch.goal_high,
        goal_start=batch.goal_start,
        goal_step=batch.goal_step,
        step_label=None if batch.step_label is None else [row[:steps] for row in batch.step_label],
    )
