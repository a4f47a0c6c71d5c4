"""The scaler of a table's training part, in one pass over it."""

from __future__ import annotations

import torch

from datamodules.tables.splits import Segments
from datamodules.tables.store import ROWS, Store
from gssr.sequences.scaler import Scaler

FARTHEST = 1e6  # standard deviations from the training mean that any value may lie


def fit_scaler(store: Store, train: Segments, name: str) -> Scaler:
    """Fit on the training rows; `name`: of the table. Raises ValueError for a column that no network can use."""
    columns = store.facts.columns
    scaler = Scaler(len(columns))
    try:
        parts = ((a, min(end, a + ROWS)) for _, first, end in train for a in range(first, end, ROWS))
        rows = (torch.from_numpy(store.read("value", *part).copy()) for part in parts)
        scaler.fit_chunks(rows, [f"value column {column.name!r}" for column in columns])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    for column, mean, std in zip(columns, scaler.mean.tolist(), scaler.std.tolist(), strict=True):
        far = max(abs(column.low - mean), abs(column.high - mean)) / std
        if far > FARTHEST:
            raise ValueError(
                f"value column {column.name!r} goes from {column.low:g} to {column.high:g}, but in the training part "
                f"it stays around {mean:g} (standard deviation {std:g}); correct it, or name codes of missing values "
                "in `missing`"
            )
    return scaler
