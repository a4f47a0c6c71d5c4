"""Options of `TableSequences` that no table fits."""

from __future__ import annotations

from typing import Any

import numpy as np

SPLIT_BY = ("auto", "time", "series")


def check_options(p: Any) -> None:
    """Raises ValueError for options that no table fits."""
    if p.text_lag < 0 or p.max_text_chars < 1:
        raise ValueError(
            f"text_lag is {p.text_lag} steps and max_text_chars {p.max_text_chars}; expected at least 0 and at least 1"
        )
    if p.split_by not in SPLIT_BY:
        raise ValueError(f"split_by is {p.split_by!r}; expected one of {', '.join(SPLIT_BY)}")
    if len(p.split_shares) != 3 or min(p.split_shares) <= 0 or abs(sum(p.split_shares) - 1) > 1e-6:
        raise ValueError(f"split_shares are {list(p.split_shares)}; expected three shares above 0 that add up to 1")
    if p.split_dates is not None and (len(p.split_dates) != 2 or p.split_by == "series"):
        raise ValueError(
            f"split_dates are {list(p.split_dates)} with split_by {p.split_by}; expected two times, and time"
        )
    if p.resolution is not None and not all(r >= 0 and np.isfinite(r) for r in p.resolution):
        raise ValueError(f"resolution is {list(p.resolution)}; expected numbers of at least 0 (0: not known)")
    if p.time_column is None and (p.time_unit or p.time_format or p.step or p.sort_rows or p.predict_from):
        raise ValueError("step, time_unit, time_format, sort_rows and predict_from need a time_column; name it")
