"""What a sentence means to a trained network, after a history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from gssr.sequences.record import Batch, Record
from gssr.sequences.vocabulary import Vocabulary
from gssr.understanding.reader import Reader, Setting, Understood


class Network(Protocol):
    """What is asked of a network; `gssr.network.GoalNetwork` has all of it."""

    value_names: Sequence[str]
    value_units: Sequence[str]
    options: Any
    validation: Any
    world: Any


def understand(network: Network, record: Record, sentence: str, reader: Reader | None = None) -> Understood:
    """What a sentence means as a goal of a record, whose steps behind `goal_start` are ahead.

    Args:
        reader: default that of the package.

    Raises ValueError where the reader, or the network's words, cannot be read.
    """
    first = record.goal_start
    known = setting(network, record.time[first:], record.value[: first + 1], record.goal_step - first)
    return (reader or Reader.bundled()).read(sentence, known)


def understand_batch(network: Network, batch: Batch) -> list[Understood | None]:
    """What the goal of each sequence of a batch means; None where there is none. Raises as `understand` does."""
    found: list[Understood | None] = []
    for row, goal in enumerate(batch.goal):
        first, steps = int(batch.goal_start[row]), int(batch.step_mask[row].sum())
        value = batch.value[row, : first + 1].masked_fill(~batch.value_mask[row, : first + 1], torch.nan)
        time = batch.time[row, first:steps].cpu().numpy()
        known = setting(network, time, value.cpu().numpy(), int(batch.goal_step[row]) - first)
        found.append(None if goal is None else Reader.bundled().read(goal, known))
    return found


def setting(network: Network, time: np.ndarray, value: np.ndarray, step: int) -> Setting:
    """What goals are about behind values (C, Y), NaN where nothing was observed; ``time`` and ``step`` as there."""
    words, scaler = network.options.values.words, network.world.scaler
    seen = list(zip(scaler.low.tolist(), scaler.high.tolist(), strict=True))
    return Setting(
        words=(
            Vocabulary.of(network.value_names, network.value_units) if words is None else Vocabulary.from_json(words)
        ),
        time=time,
        last=_last(value),
        tolerance=network.validation.closeness.tolist(),
        seen=seen if all(np.isfinite(end) for ends in seen for end in ends) else None,
        step=step,
    )


def _last(values: np.ndarray) -> list[float]:
    """The last observed of values (C, Y), NaN where there is none."""
    known = np.isfinite(values)
    rows = len(values) - 1 - known[::-1].argmax(0)
    return np.where(known.any(0), values[rows, np.arange(values.shape[1])], np.nan).tolist()


def plain(found: Understood, mode: str) -> dict[str, Any]:
    """For JSON; ``mode`` says how the paths were made: "condition", "pull" or "none"."""
    return {
        "kind": found.kind,
        "condition": found.condition,
        "sure": round(found.sure, 4),
        "problem": found.problem,
        "outside": found.outside,
        "mode": mode,
    }
