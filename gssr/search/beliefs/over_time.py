"""How P(event) changed while a series went on: it is asked again behind each of its steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from gssr.search.beliefs.ladder import Searched, Twister, chance
from gssr.search.beliefs.rejection import BUDGET, Asked, Estimate, came_true, event_of, last_values
from gssr.sequences.collate import collate
from gssr.sequences.conditions import Condition
from gssr.sequences.record import Record

FIRST = 1  # step: one value alone says nothing of where a series goes


@dataclass(frozen=True)
class Moment:
    """What was known at one step.

    ``time`` in hours since 1970, and for each event its chance and whether it came true (None: no value tells).
    """

    time: float
    chances: Sequence[Estimate]
    came_true: Sequence[bool | None]


def moments(record: Record, context: int) -> list[tuple[Record, Record]]:
    """What was known at each step from the second on, and the same steps with what came.

    Each has a context of C steps, or of those that there are until then, and H further ones.

    Args:
        record: all steps that are known, up to ``goal_start``, followed by H unknown ones.
        context: C.

    Steps whose context holds no value are left out.
    """
    last, horizon, found = record.goal_start, len(record) - record.goal_start - 1, []
    for now in range(min(FIRST, last), last + 1):
        seen = min(context, now + 1)
        part = slice(now + 1 - seen, now + 1 + horizon)
        value, text = record.value[part].copy(), list(record.text[part])
        if np.isnan(value[:seen]).all():
            continue
        came = replace(
            record, time=record.time[part], value=value, text=text, step_label=None,
            goal=None, goal_low=None, goal_high=None, goal_start=seen - 1, goal_step=seen + horizon - 1,
        )  # fmt: skip
        known = value.copy()
        known[seen:] = np.nan
        found.append((replace(came, value=known, text=text[:seen] + [None] * horizon), came))
    return found


def over_time(
    network: Searched,
    record: Record,
    events: Sequence[Asked],
    context: int,
    budget: int = BUDGET,
    seed: int = 0,
    twist: Twister = None,
) -> Iterator[Moment]:
    """P(event | history) behind each step of a record, one moment after the other.

    Args:
        record, context: of `moments`.
        events, budget, seed, twist: of `chance`; times in events count from each moment.

    Raises ValueError as `chance` does, for all moments before the first rollout.
    """
    asked = [Condition(e, network.value_names, network.value_units) if isinstance(e, str) else e for e in events]
    true = []
    for known, came in moments(record, context):
        batch, path = collate([known]), torch.from_numpy(came.value[known.goal_start + 1 :])[None]
        true.append([came_true(event_of(e, batch), path, last_values(batch)) for e in asked])

    def found() -> Iterator[Moment]:
        for (known, _), came_true_then in zip(moments(record, context), true, strict=True):
            (chances,) = chance(network, collate([known]), asked, budget=budget, seed=seed, twist=twist)
            yield Moment(float(known.time[known.goal_start]), chances, came_true_then)

    return found()
