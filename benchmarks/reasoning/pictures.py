"""Pictures of docs/reasoning.md: accuracy over steps by depth, steps over depth, and bytes over steps.

python -m benchmarks.reasoning.pictures --results reasoning --out docs/images
"""

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.reasoning import measures


def depth(found: dict[str, Any], task: str) -> Figure:
    """Accuracy over steps for each number of lookups, and where the head halts; the first seed."""
    cells = {int(d): next(iter(seeds.values())) for d, seeds in found[task]["soft token"].items()}
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for d, cell in cells.items():
        shade = 0.15 + 0.75 * d / max(cells)
        left.plot(range(1, len(cell["right"]) + 1), cell["right"], color=(0.1, 0.3, shade), label=str(d))
    left.axhline(measures.CHANCE[task], color="grey", linestyle=":")
    left.set(xlabel="steps", ylabel="share of right answers", title=task, ylim=(0, 1.03))
    left.legend(title="lookups", fontsize=7, ncols=2)
    right.plot(list(cells), [cell["halted_steps"] for cell in cells.values()], marker="o", label="where the head halts")
    right.plot(list(cells), list(cells), color="grey", linestyle=":", label="as many steps as lookups")
    right.axvline(measures.TRAINED[task], color="tab:red", linewidth=0.8, label="deepest in training")
    right.set(xlabel="lookups", ylabel="steps", title="steps until it halts")
    right.legend(fontsize=7)
    return figure


def memory(costs: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, row in costs.items():
        axes.plot([int(n) for n in row["bytes"]], list(row["bytes"].values()), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="thoughts", ylabel="bytes that the next thought reads")
    axes.legend(fontsize=7)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("reasoning"), help="folder of the results")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of the pictures")
    options = parser.parse_args()
    found = json.loads((options.results / "reasoning.json").read_text(encoding="utf-8"))
    for task in measures.SIZES:
        if task in found:
            depth(found, task).savefig(options.out / f"thoughts-{task}.png", dpi=110)
    if (options.results / "costs.json").exists():
        costs = json.loads((options.results / "costs.json").read_text(encoding="utf-8"))
        memory(costs).savefig(options.out / "thoughts-bytes.png", dpi=110)


if __name__ == "__main__":
    main()
