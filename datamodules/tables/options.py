"""Options of a table that can be checked before it is read."""

from __future__ import annotations

from typing import Any

from datamodules.tables.grid import Grid


def check_options(p: Any) -> None:
    """Raises ValueError for options of `TableSequences` that no table fits."""
    if abs(sum(p.split_shares) - 1) > 1e-6:
        raise ValueError(f"split_shares are {list(p.split_shares)}; expected three shares above 0 that add up to 1")
    if p.split_dates is not None and p.split_by == "series":
        raise ValueError(
            f"split_dates are {list(p.split_dates)} with split_by {p.split_by}; expected two times, and time"
        )
    if p.step is not None:
        Grid.of(p.step)  # raises ValueError for other words
    if p.time_column is None and (
        p.time_unit or p.time_format or p.time_zone or p.step or p.sort_rows or p.predict_from
    ):
        raise ValueError(
            "step, time_unit, time_format, time_zone, sort_rows and predict_from need a time_column; name it"
        )
