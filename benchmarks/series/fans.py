"""Whether 80 % fans hold: by step, behind quiet and wild contexts, with recent errors and as validation left them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.quality.cells import Cells, numbers

NETWORK, FIXED = "network", "fixed fans"
LEVEL = 0.8
GOOD = (0.70, 0.88)


def fan_table(series: Mapping[str, Cells]) -> list[str]:
    """Lines of a table over the series whose fans were scored both ways; none without any.

    A cell of the table is the mean over series of a coverage, and the mean distance of each from 80 %.
    """
    rows: dict[str, list[dict[str, float]]] = {"validation alone": [], "and recent errors": []}
    ratios = []
    for cells in series.values():
        fixed, used = (list(cells.named(f"{kind}-seed").values()) for kind in (FIXED, NETWORK))
        if not fixed or len(fixed) != len(used):
            continue
        wild = numbers(fixed[0]["changes"])
        wild = wild > np.nanmedian(wild)
        for row, found in zip(rows.values(), (fixed, used), strict=True):
            row.append(_shares(np.stack([numbers(cell["windows"]["covered_80"]) for cell in found]), wild))
        ratios.append(np.log(_crps(used) / _crps(fixed)))
    if not ratios:
        return []
    columns = list(rows["validation alone"][0])
    good = f"{100 * GOOD[0]:.0f} to {100 * GOOD[1]:.0f} %"
    lines = [f"| fans by | {' | '.join(columns)} | {good} | CRPS |", "|---" * (len(columns) + 3) + "|"]
    for name, found in rows.items():
        shown = []
        for column in columns:
            each = np.array([shares[column] for shares in found])
            shown.append(f"{100 * np.nanmean(each):.0f} % ({100 * np.nanmean(np.abs(each - LEVEL)):.1f})")
        held = sum(GOOD[0] <= shares["all"] <= GOOD[1] for shares in found)
        crps = 1.0 if name == "validation alone" else np.exp(np.mean(ratios))
        lines.append(f"| {name} | {' | '.join(shown)} | {held} of {len(found)} | {crps:.3f} |")
    return lines


def _shares(covered: np.ndarray, wild: np.ndarray) -> dict[str, float]:
    """Coverage of (seeds, windows, steps) by parts; `wild` (windows)."""
    first, middle, last = np.array_split(np.arange(covered.shape[2]), 3)
    return {
        "all": float(np.nanmean(covered)),
        "first third of steps": float(np.nanmean(covered[..., first])),
        "second": float(np.nanmean(covered[..., middle])),
        "last": float(np.nanmean(covered[..., last])),
        "quiet contexts": float(np.nanmean(covered[:, ~wild])),
        "wild contexts": float(np.nanmean(covered[:, wild])),
    }


def _crps(cells: list) -> float:
    return float(np.nanmean(np.stack([numbers(cell["windows"]["crps"]) for cell in cells])))
