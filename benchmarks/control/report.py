"""Tables and pictures of what was measured, with bootstrap intervals over independent cases."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from rich.table import Table

Found = dict[str, Any]
DRAWS = 1000


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and a 95 % percentile bootstrap interval over the values."""
    given = np.asarray(values, float)
    picks = np.random.default_rng(0).integers(len(given), size=(DRAWS, len(given)))
    low, high = np.quantile(given[picks].mean(1), [0.025, 0.975])
    return float(given.mean()), float(low), float(high)


def shown(values: Sequence[float], digits: int = 3) -> str:
    mean, low, high = interval(values)
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def difference(first: Sequence[float], second: Sequence[float]) -> str:
    """Of paired values."""
    return shown(np.asarray(first) - np.asarray(second))


def tables(found: Found) -> list[Table]:
    made = []
    if recall := {name: cell for name, cell in found.items() if name.startswith("recall ")}:
        table = Table("written", "way", "right", "minus read", title="Facts: share of answers that are right")
        for name, cell in recall.items():
            for way, values in _with_mean(cell).items():
                minus = "" if way in ("read", "nothing") else difference(values, cell["read"])
                table.add_row(name.removeprefix("recall "), way, shown(values), minus)
        made.append(table)
    for name, title in (("changed", "Four facts, the first replaced and forgotten"), ("two hops", "Over two facts")):
        if name in found:
            table = Table("measure", "share", title=title)
            for measure, values in found[name].items():
                table.add_row(measure, shown(values))
            if behind := found[name].get("neighbours behind forgetting"):
                table.add_row("lost on neighbours by forgetting", difference(found[name]["neighbours before"], behind))
            made.append(table)
    if forced := {name: cell for name, cell in found.items() if name.startswith("force ")}:
        table = Table("target", "change", "forced", "KL", "perplexity ratio", title="Words forced behind texts")
        for name, cell in forced.items():
            for change, scores in cell.items():
                told = (shown(scores["forced"]), shown(scores["kl"], 4), shown(scores["perplexity"]))
                table.add_row(name.removeprefix("force "), change, *told)
        made.append(table)
    if "stream" in found:
        about = found["stream"]
        title = (
            f"A stream of {about['tokens']:,} tokens: {about['bytes before']:,} bytes, then {about['bytes behind']:,}"
        )
        table = Table("tokens since the fact", "written", "read", "written minus read", title=title)
        for lag, values in about["right"]["written"].items():
            read = about["right"]["read"][lag]
            table.add_row(lag, shown(values), shown(read), difference(values, read))
        made.append(table)
    return made


def _with_mean(cell: dict[str, list[float]]) -> dict[str, Sequence[float]]:
    """The ways of a cell, and the mean of the projectors where they have several seeds."""
    seeds = [values for way, values in cell.items() if way.startswith("projector, seed")]
    return cell | ({"projector, mean of seeds": np.mean(seeds, 0)} if seeds else {})


def draw(found: Found, file: Path) -> None:
    """Recall by way of writing, with intervals, for each number of facts and distance."""
    cells = {name.removeprefix("recall "): cell for name, cell in found.items() if name.startswith("recall ")}
    ways = list(dict.fromkeys(way for cell in cells.values() for way in cell))
    figure, axes = plt.subplots(figsize=(10, 4.5))
    for k, way in enumerate(ways):
        places = [i for i, cell in enumerate(cells.values()) if way in cell]
        values = [interval(cell[way]) for cell in cells.values() if way in cell]
        mean, low, high = (np.array(part) for part in zip(*values, strict=True))
        at = np.array(places) + (k - len(ways) / 2) * 0.8 / len(ways)
        axes.errorbar(at, mean, [mean - low, high - mean], fmt="o", markersize=4, capsize=2, label=way)
    axes.set_xticks(range(len(cells)), cells, rotation=20, ha="right", fontsize=8)
    axes.set_ylabel("answers that are right")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(ncols=5, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
