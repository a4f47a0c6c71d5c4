"""Pictures of docs/reasoning.md: accuracy over steps by depth, steps over depth, and bytes over steps.

python -m benchmarks.reasoning.pictures --results reasoning --out docs/images
"""

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.reasoning import measures


def depth(found: dict[str, Any]) -> Figure:
    """For each kind of problem, accuracy over steps by lookups, and the steps at which the head halts; the means of
    all seeds.
    """
    tasks = [task for task, parts in found.items() if "soft token" in parts["ways"]]
    figure = Figure(figsize=(3.6 * len(tasks), 6), layout="constrained")
    for column, task in zip(figure.subplots(2, len(tasks), squeeze=False).T, tasks, strict=True):
        cells = {int(d): list(seeds.values()) for d, seeds in found[task]["ways"]["soft token"].items()}
        _accuracy(column[0], task, cells)
        _halting(column[1], task, cells)
    return figure


def _accuracy(axes: Axes, task: str, cells: dict[int, list[dict[str, Any]]]) -> None:
    for d, seeds in cells.items():
        right = [_mean(values) for values in zip(*(seed["right"] for seed in seeds), strict=True)]
        color = (0.1, 0.3, 0.15 + 0.75 * d / max(cells)) if d <= measures.TRAINED[task] else (0.8, 0.5 - d / 40, 0.1)
        axes.plot(range(1, len(right) + 1), right, color=color, label=str(d))
    axes.axhline(measures.CHANCE[task], color="grey", linestyle=":")
    axes.set(xlabel="steps", ylabel="share of right answers", title=task, ylim=(0, 1.03))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": len(cells), "columnspacing": 1.0}
    title = "lookups (orange: deeper than training)"
    axes.legend(title=title, title_fontsize=7, fontsize=7, handlelength=0.8, **below)


def _halting(axes: Axes, task: str, cells: dict[int, list[dict[str, Any]]]) -> None:
    halted = [_mean([seed["halted_steps"] for seed in seeds]) for seeds in cells.values()]
    axes.plot(list(cells), halted, marker="o", label="where the head halts")
    axes.plot(list(cells), list(cells), color="grey", linestyle=":", label="as many steps as lookups")
    axes.axvline(measures.TRAINED[task], color="tab:red", linewidth=0.8, label="deepest in training")
    axes.set(xlabel="lookups", ylabel="steps", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=7)


def memory(costs: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, row in costs.items():
        axes.plot([int(n) for n in row["bytes"]], list(row["bytes"].values()), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="thoughts", ylabel="bytes that the next thought reads")
    axes.legend(fontsize=7)
    return figure


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("reasoning"), help="folder of the results")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of the pictures")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for file, name, picture in (("reasoning.json", "depth", depth), ("costs.json", "bytes", memory)):
        if (options.results / file).exists():
            found = json.loads((options.results / file).read_text(encoding="utf-8"))
            picture(found).savefig(options.out / f"thoughts-{name}.png", dpi=110)


if __name__ == "__main__":
    main()
