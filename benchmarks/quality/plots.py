"""Pictures of a part: error over the horizon, calibration, hits against gain, fans under opposing goals.

They use matplotlib's object API, which has no global state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.quality.cells import numbers
from benchmarks.quality.report import NETWORK, Part
from benchmarks.quality.steered import BORROWED, CAME_TRUE
from gssr.evaluation.fan_chart import FAINT, GRID, INK, WITH, WITHOUT

COLOURS = {
    NETWORK: WITH, "GRU": WITHOUT, "GRU of changes": "#7fb2d1", "linear autoregression": "#4f7f52", "persistence": INK,
    "climatology": "#b0a38c", "seasonal naive": "#c98b3b", "AutoETS": "#9a7bb5", "AutoARIMA": "#6b4a8a",
}  # fmt: skip
LEVELS = (50, 80, 95)
WEAK, STRONG = "#2e6f95", "#d1495b"


def draw(part: Part, folder: Path, stem: str) -> list[str]:
    """Draw a part's pictures into `folder`, and return Markdown with paths relative to the folder's parent."""
    drawn = {"horizon": horizon(part), "calibration": calibration(part), "gain": gain(part), "opposing": opposing(part)}
    titles = {
        "horizon": "error over the horizon",
        "calibration": "coverage of intervals",
        "gain": "hits against gain",
        "opposing": "80 % fans under opposing goals from one context",
    }
    lines = []
    for name, figure in drawn.items():
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / f"{stem}_{name}.png", dpi=80)
            lines.append(f"![{titles[name]}]({folder.name}/{stem}_{name}.png)")
    return lines


def horizon(part: Part) -> Figure:
    """MAE and CRPS of every method by hour."""
    figure, axes = panels(2)
    for key, panel, title in (("mae", axes[0], "mean absolute error"), ("crps", axes[1], "CRPS")):
        for name, of_steps in by_step(part, key).items():
            panel.plot(
                part.about["hours"], of_steps, color=COLOURS[name], lw=2.2 if name == NETWORK else 1.3, label=name
            )
        label(panel, title, "hours ahead", part.about["unit"])
        panel.set_ylim(bottom=0)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def calibration(part: Part) -> Figure:
    """Coverage of the central intervals: nominal against observed over all steps, and of the 80 % interval by step."""
    figure, (overall, steps) = panels(2)
    overall.plot([40, 100], [40, 100], color=FAINT, lw=0.8, ls=":")
    for name in by_step(part, "crps"):
        width = 2.2 if name == NETWORK else 1.3
        shares = [100 * by_step(part, f"covered_{level}")[name].mean() for level in LEVELS]
        overall.plot(LEVELS, shares, color=COLOURS[name], lw=width, marker="o", ms=3, label=name)
        steps.plot(part.about["hours"], 100 * by_step(part, "covered_80")[name], color=COLOURS[name], lw=width)
    steps.axhspan(75, 85, color=GRID, zorder=0)
    label(overall, "intervals, all steps", "nominal, %", "observed, %")
    label(steps, "80 % interval", "hours ahead", "observed, %")
    overall.legend(fontsize=7, frameon=False)
    return figure


def gain(part: Part) -> Figure | None:
    """Hits of goals that came true and of borrowed ones by the multiplier of the gain, one line a seed."""
    cells = [cell for cell in part.seeds("goals of network") if CAME_TRUE in cell]
    if not cells:
        return None
    figure, (panel,) = panels(1)
    for cell in cells:
        for kind, colour in ((CAME_TRUE, WITH), (BORROWED, WITHOUT)):
            if kind in cell:
                hits = [100 * row["hit"]["value"] for row in cell[kind]]
                panel.plot(
                    cell["gains"], hits, color=colour, marker="o", ms=3, label=kind if cell is cells[0] else None
                )
    label(panel, "hits", "gain, times that of training (0: no goal)", "%")
    panel.set_ylim(0, 100)
    panel.legend(fontsize=7, frameon=False)
    return figure


def opposing(part: Part) -> Figure | None:
    """Fans under the weakest and strongest plausible goal and without a goal, of a few contexts of the first seed."""
    examples = next((c["opposing"].get("examples", []) for c in part.seeds("goals of network") if "opposing" in c), [])
    if not examples:
        return None
    figure, axes = panels(len(examples))
    for panel, example in zip(axes, examples, strict=True):
        _fans(panel, example, part.about["hours"])
        label(panel, example["series"], "hours ahead", part.about["unit"])
    return figure


def _fans(panel: Axes, example: dict[str, Any], hours: list[float]) -> None:
    context = numbers(example["context"])
    step = hours[0]
    past = step * np.arange(1 - len(context), 1)
    panel.plot(past, context, color=INK, lw=1.6)
    panel.plot([0, *hours], [context[-1], *numbers(example["truth"])], color=INK, lw=1.2, ls=":")
    for name, colour in (("none", FAINT), ("weak", WEAK), ("strong", STRONG)):
        low, middle, high = numbers(example[name]["quantiles"])
        panel.fill_between(hours, low, high, color=colour, alpha=0.25, lw=0)
        panel.plot(hours, middle, color=colour, lw=1.4, label=example[name]["goal"] or "no goal")
    panel.legend(fontsize=6, frameon=False, loc="upper left")


def by_step(part: Part, key: str) -> dict[str, np.ndarray]:
    """A score by step (H,) of each method, the mean over seeds."""
    return {
        name: np.mean([numbers(cell["by_step"][key]) for cell in cells], axis=0)
        for name, cells in part.forecasts.items()
    }


def panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.4 * count, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, count, i + 1) for i in range(count)]


def label(panel: Axes, title: str, x: str, y: str) -> None:
    panel.set_title(title, fontsize=9, color=INK, loc="left")
    panel.set_xlabel(x, fontsize=8)
    panel.set_ylabel(y, fontsize=8)
    panel.tick_params(labelsize=7)
    panel.grid(color=GRID, lw=0.6)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
