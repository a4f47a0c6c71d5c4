"""A picture of how chances changed while a series went on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gssr import shown
from gssr.evaluation.fan_chart import FAINT, GRID, INK, LITERAL, LONGEST, WITH, WITHOUT

COLOURS = (WITH, WITHOUT, "#5b8c5a", "#b07d2b", "#7a5195", INK)
TRUE_AT, FALSE_AT = 1.04, -0.04  # heights of the marks of what came


@dataclass(frozen=True)
class Line:
    """An event and N times: its chances with the low and high ends of their intervals, and whether it came true."""

    name: str
    chances: Sequence[float]
    intervals: Sequence[tuple[float, float]]
    came_true: Sequence[bool | None]


def chance_chart(title: str, hours: Sequence[float], lines: Sequence[Line]) -> Figure:
    """Draw the chance of each event at N times, hours since 1970, with its 95 % interval.

    A dot at the top marks a time behind which the event came true, one at the bottom a time behind which it did not;
    where nothing tells (None) there is none.
    """
    figure = Figure(figsize=(8.8, 3.9 + 0.2 * len(lines)), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    when = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=each) for each in hours]
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        low, high = zip(*line.intervals, strict=True)
        axes.fill_between(when, low, high, color=colour, alpha=0.2, lw=0)
        axes.plot(when, line.chances, color=colour, lw=2, marker="o", ms=3, label=shown.line(line.name, LONGEST))
        for truth, height in ((True, TRUE_AT), (False, FALSE_AT)):
            marked = [at for at, came in zip(when, line.came_true, strict=True) if came is truth]
            axes.plot(marked, [height - 0.025 * number] * len(marked), "o", ms=3.5, color=colour, clip_on=False)
    axes.set_ylim(-0.06 - 0.025 * len(lines), 1.08)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.grid(axis="y", color=GRID, lw=0.8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8.5, length=3, color=FAINT)
    axes.set_title(shown.line(title, LONGEST), loc="left", fontsize=12, fontweight="bold", color=INK, **LITERAL)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(0, -0.1), frameon=False, fontsize=8.5)
    for text in legend.get_texts():
        text.set_parse_math(False)
    caption = "bands: 95 %; dots: the event came true (top) or not (bottom)"
    figure.text(0.99, 0.01, caption, fontsize=7, color=FAINT, ha="right")
    figure.tight_layout()
    return figure
