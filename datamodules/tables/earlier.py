"""Windows of a series from which a forecast could have been made earlier, behind the part that is trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datamodules.tables.splits import Segments, first_after
from datamodules.tables.windows import Cutter
from gssr.sequences.record import Record


def earlier_windows(
    cutter: Cutter, train: Segments, series: str, until: float, before: Sequence[int]
) -> dict[int, Record]:
    """The whole windows of a series whose contexts end so many steps before a time in hours, by these numbers.

    Those are left out whose horizon has a step of the segments `train`, and those without a value in context or
    horizon.
    """
    number = cutter.number(series)
    first, end = cutter.store.offsets[number : number + 2].tolist()
    origin = cutter.origin(number)
    at = int(cutter.grid.position(np.array([until]), origin)[0])
    earliest = int(cutter.positions(number, first, first + 1)[0])
    trained = max((int(cutter.positions(number, b - 1, b)[0]) for s, _, b in train if s == number), default=earliest)
    length, found = cutter.context + cutter.horizon, {}
    for steps in before:
        begin = at - steps - cutter.context + 1
        if begin < earliest or at - steps < trained:
            continue
        # Rows may lie beside their step.
        row = max(
            first, first_after(cutter.store, first, end, float(cutter.grid.time(np.array([begin]), origin)[0])) - 2
        )
        record = cutter.read(number, begin, length, row, min(end, row + length + 3))
        seen = ~np.isnan(record.value).all(1)
        if seen[: cutter.context].any() and seen[cutter.context :].any():
            found[steps] = record
    return found
