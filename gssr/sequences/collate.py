"""Records of different lengths into one padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gssr.sequences.record import Batch, Record


def collate(records: Sequence[Record]) -> Batch:
    """Pad T on the right to the longest record; missing values become 0 with value_mask False.

    Padding repeats the last time (differences of time are 0 there), has text None, label "" and step_mask False. A
    label is kept only when every record has labels.

    Raises ValueError for no records, or for records of different Y.
    """
    if not records:
        raise ValueError("collate was given no records; a batch needs at least one")
    dimensions = {record.value.shape[1] for record in records}
    if len(dimensions) > 1:
        raise ValueError(
            f"records of one batch have {sorted(dimensions)} value dimensions; expected the same number in each"
        )
    size, steps, width = len(records), max(map(len, records)), dimensions.pop()
    time = np.zeros((size, steps), np.float64)
    value = np.full((size, steps, width), np.nan, np.float32)
    step_mask = np.zeros((size, steps), bool)
    for row, record in enumerate(records):
        length = len(record)
        time[row, :length], time[row, length:] = record.time, record.time[-1]
        value[row, :length] = record.value
        step_mask[row, :length] = True
    observed = ~np.isnan(value)
    labelled = all(record.step_label is not None for record in records)
    return Batch(
        series=[record.series for record in records],
        time=torch.from_numpy(time),
        value=torch.from_numpy(np.where(observed, value, np.float32(0))),
        value_mask=torch.from_numpy(observed),
        step_mask=torch.from_numpy(step_mask),
        text=[record.text + [None] * (steps - len(record)) for record in records],
        goal=[record.goal for record in records],
        goal_low=torch.from_numpy(np.stack([record.goal_low for record in records])),
        goal_high=torch.from_numpy(np.stack([record.goal_high for record in records])),
        goal_start=torch.tensor([record.goal_start for record in records], dtype=torch.int64),
        goal_step=torch.tensor([record.goal_step for record in records], dtype=torch.int64),
        step_label=[list(r.step_label or ()) + [""] * (steps - len(r)) for r in records] if labelled else None,
    )
