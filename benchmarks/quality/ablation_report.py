"""The table of ablations: what forecasts and goals lose or win when one thing is changed."""

from __future__ import annotations

from typing import Any

from benchmarks.quality.ablations import BASE
from benchmarks.quality.report import Part, Rows, percent_interval, seeds_of, table, written
from benchmarks.quality.scores import estimate, relative
from benchmarks.quality.steered import BORROWED, CAME_TRUE
from gssr.evaluation.intervals import Estimate

STEM = "ablation "


def ablations(part: Part) -> str:
    """Markdown of all ablations that were measured on a part; empty where none was."""
    rows = _rows(part)
    if not rows:
        return ""
    note = (
        "Each row changes one thing and has the same seeds. Ablations train without the text loss and, where there is "
        "a `configs/ablations/short_*.yaml` for the data, for a shorter time. The difference is paired, in percent of "
        "the CRPS of `as_shipped`, with a 95 % interval; negative is better. Hits are of goals in words that training "
        "left out, with the goal and without it."
    )
    return "\n".join([f"**Ablations.** {note}", "", *table(rows), ""])


def against_base(part: Part, name: str) -> Estimate | None:
    """The CRPS of an ablation relative to `as_shipped`, paired over windows and seeds; None where one is missing."""
    paired = _of_seeds(part.seeds(STEM + name), part.seeds(STEM + BASE))
    if not paired:
        return None
    ours, theirs = zip(*paired, strict=True)
    return relative(ours, theirs, "crps", None, part.clusters)


def _rows(part: Part) -> Rows:
    # Cells of forecasts are named "ablation NAME-seedN".
    stems = sorted({name.rsplit("-seed", 1)[0] for name in part.cells.named(STEM)})
    rows = []
    for stem in sorted(stems, key=lambda stem: (stem != STEM + BASE, stem)):
        cells = part.seeds(stem)
        row = {"": f"{stem.removeprefix(STEM)}, {len(cells)} seeds"}
        for column, step in part.columns.items():
            row[f"CRPS, {column}"] = written(estimate(cells, "crps", step, part.clusters))
        difference = None if stem == STEM + BASE else against_base(part, stem.removeprefix(STEM))
        if difference is not None:
            row["difference, all"] = percent_interval(difference)
        goals = part.seeds(f"goals of {stem}")
        for kind in (CAME_TRUE, BORROWED):
            of_kind = [cell[kind] for cell in goals if kind in cell]
            if of_kind:
                with_goal, without = (seeds_of([rows[i] for rows in of_kind], "hit", 100, " %") for i in (-1, 0))
                row[f"hits, {kind}"] = f"{with_goal}, without {without}"
        rows.append(row)
    return rows


def _of_seeds(cells: list[dict[str, Any]], base: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Cells of the same seeds; a run's folder is named by its seed."""
    of_seed = {cell["settings"]["run"].rsplit("-seed", 1)[-1]: cell for cell in base}
    found = [(cell, of_seed.get(cell["settings"]["run"].rsplit("-seed", 1)[-1])) for cell in cells]
    return [(a, b) for a, b in found if b is not None]
