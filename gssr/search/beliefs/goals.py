"""How likely a goal is before anything pulls towards it, for goals whose bounds are known."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import torch
from torch import Tensor

from gssr.network.validation import Validation
from gssr.search.beliefs.ladder import chance
from gssr.search.beliefs.rejection import Estimate, Roller
from gssr.sequences.context import context_length
from gssr.sequences.events import Event
from gssr.sequences.record import Batch

ROLLOUTS = 256  # the error of a chance is 0.03 at most


class Judge(Roller, Protocol):
    """What is asked of a network, too: its ``validation`` says what counts as reached."""

    validation: Validation


def goal_chances(
    network: Judge,
    batch: Batch,
    budget: int = ROLLOUTS,
    seed: int = 0,
    conditions: Sequence[str | None] | None = None,
) -> list[Estimate | None]:
    """P(goal | history) of each sequence's goal; None without a goal, or where neither its bounds nor a condition is
    known, or the condition cannot be asked of the horizon.

    A range is asked for as it stands, an exact number with what is close to it (`Validation.closeness`).

    Args:
        conditions: what goals mean (B), where that is known.
        budget: rollouts at most. seed: of the rollouts.
    """
    first, found = context_length(batch), []
    for row in range(len(batch)):
        low, high, step = batch.goal_low[row], batch.goal_high[row], int(batch.goal_step[row]) - first
        asked = None if conditions is None else conditions[row]
        if batch.goal[row] is not None and asked is not None:
            with suppress(ValueError):
                ((each,),) = chance(network, batch.select([row]), [asked], budget=budget, seed=seed)
                found.append(each)
                continue
        if batch.goal[row] is None or (low.isnan() | high.isnan()).all() or step < 0:
            found.append(None)
            continue
        event = _reached(low, high, step, network.validation.closeness)
        ((each,),) = chance(network, batch.select([row]), [event], budget=budget, seed=seed)
        found.append(each)
    return found


def _reached(low: Tensor, high: Tensor, step: int, closeness: Tensor) -> Event:
    slack = torch.where(low == high, closeness.to(low), torch.zeros_like(low))
    silent = low.isnan() | high.isnan()

    def event(paths: Tensor, last: Tensor) -> Tensor:
        value = paths[:, step]
        return ((value >= (low - slack).to(value)) & (value <= (high + slack).to(value)) | silent.to(value.device)).all(
            -1
        )

    return event
