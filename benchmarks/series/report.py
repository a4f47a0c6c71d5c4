"""Markdown from the cells of all series: relative CRPS, ranks and coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.quality.cells import Cells, numbers
from benchmarks.series.fans import GOOD, NETWORK, fan_table

UNIT = "persistence"
SIMPLE = (UNIT, "seasonal naive", "climatology", "linear autoregression", "AutoETS", "AutoARIMA", "AutoTheta")
DRAWS = 10_000
WORST = 1.1


def report(series: Mapping[str, Cells]) -> str:
    """The table of all series whose network is measured (several seeds: their mean), and the means over series.

    A method that was scored from some of the origins is compared with the others from these alone.
    """
    scores: dict[str, dict[str, float]] = {}
    ahead: dict[str, dict[str, float]] = {}  # the network's CRPS over that of each method, from its origins
    covered, facts = {}, {}
    for name, cells in series.items():
        runs = list(cells.named(f"{NETWORK}-seed").values())
        found = {method: [cell] for method in SIMPLE if (cell := cells.get(method)) is not None}
        if not runs or UNIT not in found:
            continue
        found[NETWORK] = runs
        scores[name], ahead[name] = {}, {}
        for method, of in found.items():
            rows = of[0].get("rows")
            crps = _crps(of, None)
            ours, unit = (_crps(each, rows) for each in (runs, found[UNIT]))
            scores[name][method], ahead[name][method] = crps / unit, ours / crps
        covered[name] = float(np.mean([_mean(cell, "covered_80") for cell in runs]))
        facts[name] = runs[0]["about"]
    if not scores:
        return "no series is measured yet\n"
    methods = [method for method in (NETWORK, *SIMPLE) if any(method in of for of in scores.values())]
    ranks = {name: 1 + sum(ratio > 1 for ratio in of.values()) for name, of in ahead.items()}
    lines = [
        f"CRPS relative to {UNIT}, test part; covered: share of values inside the 80 % fans of the network.\n",
        f"| series | windows | context | {' | '.join(methods)} | rank | covered | seconds |",
        "|---" * (len(methods) + 6) + "|",
    ]
    for name, of in scores.items():
        about = facts[name]
        values = " | ".join(f"{of[method]:.2f}" if method in of else "–" for method in methods)
        shown = f"{100 * covered[name]:.0f} % | {about['seconds']:.0f}"
        lines.append(f"| {name} | {about['windows']} | {about['context']} | {values} | {ranks[name]} | {shown} |")
    lines += [
        "",
        "| network beside | series | geometric mean of CRPS ratios | 95 % interval over series |",
        "|---" * 4 + "|",
    ]
    for method in methods[1:]:
        ratios = np.array([of[method] for of in ahead.values() if method in of])
        low, high = interval(np.log(ratios))
        lines.append(f"| {method} | {len(ratios)} | {np.exp(np.log(ratios).mean()):.3f} | {low:.3f} to {high:.3f} |")
    first = sum(rank <= 2 for rank in ranks.values())
    good = sum(GOOD[0] <= share <= GOOD[1] for share in covered.values())
    worse = [name for name, of in scores.items() if of[NETWORK] > WORST]
    lines += [
        "",
        f"Best or second on {first} of {len(ranks)} series; mean rank {np.mean(list(ranks.values())):.2f}. "
        f"80 % fans hold {100 * GOOD[0]:.0f} to {100 * GOOD[1]:.0f} % on {good} of {len(covered)}. "
        f"More than {100 * (WORST - 1):.0f} % behind {UNIT}: {', '.join(worse) or 'none'}.",
    ]
    if fans := fan_table(series):
        lines += ["", "Values inside 80 % fans, mean over series (mean distance from 80 %, in points):\n", *fans]
    return "\n".join(lines) + "\n"


def interval(logs: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the geometric mean of ratios whose logarithms (N) are given, by resampling series."""
    picked = np.random.default_rng(seed).integers(len(logs), size=(DRAWS, len(logs)))
    low, high = np.exp(np.quantile(logs[picked].mean(1), [0.025, 0.975]))
    return float(low), float(high)


def _crps(cells: Sequence[Mapping], rows: Sequence[int] | None) -> float:
    """Mean over cells (seeds), windows (None: all) and steps."""
    every = np.stack([numbers(cell["windows"]["crps"]) for cell in cells])
    return float(np.nanmean(every if rows is None else every[:, rows]))


def _mean(cell: Mapping, metric: str) -> float:
    return float(np.nanmean(numbers(cell["windows"][metric])))
