"""A picture of one window: its context, what came, and fans of rollouts with the goal and without it.

It uses matplotlib's objects without pyplot and so without global state: safe in any thread and callback.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from torch import Tensor

from gssr import shown
from gssr.evaluation.network import Plan
from gssr.files import atomic_write
from gssr.metrics import plotting_quantiles
from gssr.sequences.clock import count_of, unit_of
from gssr.sequences.record import Batch

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
INK, FAINT, GRID = "#22272e", "#8a929c", "#e6e9ed"
WITH, WITHOUT, GOAL = "#d1495b", "#2e6f95", "#9c2238"
LINE = 0.205  # inches between lines of text
WIDTH = 122  # characters of a line of text
SINGLES = 6  # rollouts that are drawn as lines
LONGEST = 90  # characters of a name
TICKS = {
    "h": (1, 2, 3, 6, 12, 24, 48, 96, 168, 336, 672),
    "d": (1, 2, 7, 14, 28, 56, 91, 182, 364),
    "mo": (1, 2, 3, 6, 12, 24, 60, 120),
    "": (1, 2, 5, 10, 20, 30, 60, 120, 300, 600),
}
LITERAL = {"parse_math": False}  # a name or a text may hold $


def fan_chart_of(
    batch: Batch,
    index: int,
    plan_with: Plan | None,
    plan_without: Plan,
    dimension: int,
    value_names: Sequence[str],
    value_units: Sequence[str],
    *,
    guides: Sequence[tuple[float, str]] = (),
    chance: str | None = None,
) -> Figure:
    """Draw one value dimension of sequence `index` of a batch; time counts from the end of the context.

    Rollouts with value noise are bands from 10 to 90 % and 25 to 75 % around their median. A few single rollouts with
    the goal, without value noise, are thin lines. The goal is a mark for a number, a bracket for a range, a line for
    unknown bounds. Below stand up to three texts of the plan.

    Args:
        plan_with: Plan of the batch under its goals; None: there is none.
        plan_without: Plan of the batch without goals.
        value_names: Names of the Y values, and `value_units` their units.
        guides: Named levels of the value.
        chance: How likely the goal is without any pull, in words; it stands behind the goal.
    """
    row = batch.select([index])
    length, steps = int(row.context[0]), int(row.step_mask[0].sum())
    horizon = steps - length
    unit_of_time, size = unit_of(row.time[0, :steps].cpu().numpy())
    when = (row.time[0, :steps] - row.time[0, length - 1]).cpu().numpy() / size
    value = row.value[0, :steps, dimension].masked_fill(~row.value_mask[0, :steps, dimension], torch.nan)
    value = value.cpu().numpy().astype(np.float64)
    context, truth, ahead = value[:length], value[length:], when[length:]

    def fan(rollouts: Tensor) -> np.ndarray:
        return rollouts[:, index, :horizon, dimension].double().cpu().numpy()

    fans = [(fan(plan_without.rollouts.sample), WITHOUT, "forecast" if plan_with is None else "without the goal")]
    goal, singles = None, []
    if plan_with is not None:
        fans.append((fan(plan_with.rollouts.sample), WITH, "with the goal"))
        goal, singles = row.goal[0], fan(plan_with.rollouts.mean)[:SINGLES]
    texts = (plan_with or plan_without).text[index]
    chosen = sorted({horizon // 4, horizon // 2, horizon - 1}) if horizon > 2 else range(horizon)
    lines = [
        (count_of(ahead[h] * size, unit_of_time), textwrap.wrap(shown.line(texts[h], 4 * WIDTH), WIDTH)[:2])
        for h in (chosen if texts else ())
    ]

    below = 0.34 + LINE * sum(len(wrapped) for _, wrapped in lines) if lines else 0.0  # inches
    height = 4.05 + (1.0 if goal else 0.76) + below
    figure = Figure(figsize=(8.8, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.07, (0.55 + below) / height, 0.77, 3.5 / height))
    name, unit = value_names[dimension], value_units[dimension]
    _prepare(axes, when[0], when[-1], unit_of_time, f"{name} ({unit})" if unit else name)
    seen = context[~np.isnan(context)]
    last = (0.0, seen[-1] if len(seen) else np.nan)
    ends = [_fan(axes, last, ahead, samples, colour, label) for samples, colour, label in fans]
    for path in singles:
        axes.plot([last[0], *ahead], [last[1], *path], color=WITH, lw=0.7, alpha=0.55, zorder=4)
    axes.plot(when[:length], context, color=INK, lw=1.9, marker="o", ms=3.6, zorder=6, solid_capstyle="round")
    if not np.isnan(truth).all():
        path = [last[1], *truth]
        style = {"color": INK, "lw": 1.5, "ls": (0, (1.2, 1.6)), "dash_capstyle": "round"}
        axes.plot([last[0], *ahead], path, zorder=6, **style)
        ends.append((path[-1], INK, "what happened"))
    mark = None
    if goal is not None:
        bounds = (float(bound[0, dimension]) for bound in (row.goal_low, row.goal_high))
        mark = _goal(axes, float(when[int(row.goal_step[0])]), *bounds)
    _limits(axes, [context, truth, *(np.quantile(f, (0.05, 0.95), axis=0).ravel() for f, _, _ in fans), mark or ()])
    _guides(axes, guides, when[:length], context)
    _label_ends(axes, ends)
    _titles(figure, height, row.series[0] or name, goal, chance)
    _texts(figure, height, lines)
    caption = f"bands: 50 % and 80 % of {len(fans[0][0])} rollouts"
    caption += "; thin lines: single rollouts" if plan_with else ""
    figure.text(0.84, (0.12 + below) / height, caption, fontsize=7, color=FAINT, ha="right", va="center")
    return figure


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure to a PNG file in one step, without the time in it: the same picture gives the same bytes."""
    with atomic_write(Path(path), "wb") as file:
        figure.savefig(file, format="png", metadata={"Software": None})


def _prepare(axes: Axes, begin: float, end: float, unit: str, label: str) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8.5, length=3, color=FAINT)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    span = end - begin
    steps = TICKS.get(unit, TICKS[""])
    axes.xaxis.set_major_locator(MultipleLocator(next((s for s in steps if span / s <= 10), span / 8)))
    axes.xaxis.set_major_formatter(lambda at, _: f"{at:+g} {unit}".replace("-", "−") if at else "now")
    margin = 0.015 * span
    axes.set_xlim(begin - margin, end + margin)
    axes.axvspan(begin - margin, 0.0, color="#f6f7f9", lw=0, zorder=0)
    axes.axvline(0.0, color=FAINT, lw=0.9, zorder=1)
    label = shown.line(label, LONGEST)
    axes.text(0, 1.025, label, transform=axes.transAxes, fontsize=9, color=INK, ha="left", va="bottom", **LITERAL)


def _fan(
    axes: Axes, last: tuple[float, float], hours: np.ndarray, samples: np.ndarray, colour: str, label: str
) -> tuple[float, str, str]:
    """Bands and median from the last context value on; returns where the median ends, the colour and the label."""
    quantiles = plotting_quantiles(torch.from_numpy(samples), LEVELS).numpy()
    quantiles = np.concatenate([np.full((len(LEVELS), 1), last[1]), quantiles], axis=1)
    hours = np.concatenate([[last[0]], hours])
    lowest, low, middle, high, highest = quantiles
    axes.fill_between(hours, lowest, highest, color=colour, alpha=0.15, lw=0, zorder=2)
    axes.fill_between(hours, low, high, color=colour, alpha=0.22, lw=0, zorder=3)
    axes.plot(hours, middle, color=colour, lw=2.2, zorder=5, solid_capstyle="round")
    return float(middle[-1]), colour, label


def _goal(axes: Axes, hour: float, low: float, high: float) -> tuple[float, float] | None:
    """A ring for a number, a bracket for a range, a thin line where only the time is known; returns the drawn range."""
    if np.isnan(low) or np.isnan(high):
        axes.axvline(hour, color=GOAL, lw=1.0, ls=(0, (4, 3)), alpha=0.7, zorder=1)
        return None
    if low == high:
        axes.plot([hour], [low], marker="o", ms=11, mfc="none", mec="white", mew=4.0, zorder=8, clip_on=False)
        axes.plot([hour], [low], marker="o", ms=11, mfc="none", mec=GOAL, mew=2.0, zorder=8, clip_on=False)
    else:
        start = axes.get_xlim()[0]
        share = (0 - start) / (axes.get_xlim()[1] - start)
        axes.axhspan(low, high, xmin=share, color=WITH, alpha=0.07, lw=0, zorder=0)
        axes.plot([hour, hour], [low, high], color=GOAL, lw=4.5, zorder=7, clip_on=False, solid_capstyle="butt")
    return low, high


def _limits(axes: Axes, parts: Sequence[Sequence[float] | np.ndarray]) -> None:
    values = np.concatenate([np.asarray(part, np.float64) for part in parts])
    low, high = np.nanmin(values), np.nanmax(values)
    room = 0.07 * max(high - low, 1e-6)
    axes.set_ylim(low - room, high + room)


def _guides(axes: Axes, guides: Sequence[tuple[float, str]], hours: np.ndarray, context: np.ndarray) -> None:
    """Faint named levels inside the picture, named at either end of the context, where its line leaves room."""
    (bottom, top), span = axes.get_ylim(), hours[-1] - hours[0]
    sides = ((0.0, "left", hours - hours[0]), (hours[-1], "right", hours[-1] - hours))
    for level, label in guides:
        if not bottom < level < top - 0.04 * (top - bottom):
            continue
        axes.axhline(level, color=FAINT, lw=0.6, ls=(0, (1, 3)), zorder=1)
        for place, side, distance in sides:
            near = context[distance <= 0.3 * span]
            if not (np.abs(near - level - 0.02 * (top - bottom)) < 0.05 * (top - bottom)).any():
                axes.annotate(
                    shown.line(label, LONGEST),
                    (place, level),
                    xycoords=("axes fraction" if side == "left" else "data", "data"),
                    xytext=(4 if side == "left" else -4, 2),
                    textcoords="offset points",
                    ha=side,
                    fontsize=7,
                    color=FAINT,
                    zorder=1,
                    **LITERAL,
                )
                break


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Name each line where it ends, moved apart where names would overlap."""
    bottom, top = axes.get_ylim()
    apart = 0.058 * (top - bottom)
    ends = sorted((end for end in ends if np.isfinite(end[0])), key=lambda end: end[0])
    places: list[float] = []
    for value, _, _ in ends:
        places.append(max(value, places[-1] + apart) if places else max(value, bottom + apart / 2))
    if places and places[-1] > top - apart / 2:  # pushed out at the top: push the pile down again
        places[-1] = top - apart / 2
        for i in range(len(places) - 2, -1, -1):
            places[i] = min(places[i], places[i + 1] - apart)
    style = {"textcoords": "offset points", "fontsize": 9, "fontweight": "bold", "va": "center"}
    for place, (_, colour, label) in zip(places, ends, strict=True):
        at = {"xycoords": ("axes fraction", "data"), "xytext": (9, 0), "annotation_clip": False}
        axes.annotate(label, (1, place), color=colour, **at, **style)


def _titles(figure: Figure, height: float, title: str, goal: str | None, chance: str | None) -> None:
    style = {"va": "center", **LITERAL}
    title = shown.line(title, LONGEST)
    figure.text(0.022, 1 - 0.30 / height, title, fontsize=12.5, fontweight="bold", color=INK, **style)
    if goal:
        sentence = textwrap.shorten(shown.line(goal, 4 * WIDTH), 105, placeholder=" …")
        figure.text(0.022, 1 - 0.56 / height, f"“{sentence}”", fontsize=10.5, color=GOAL, style="italic", **style)
        if chance:
            figure.text(0.84, 1 - 0.87 / height, f"chance {chance}", fontsize=9, color=GOAL, ha="right", **style)


def _texts(figure: Figure, height: float, lines: Sequence[tuple[str, list[str]]]) -> None:
    """The plan in words under the chart: a column of times and one of texts."""
    y = 0.06 + LINE * sum(len(wrapped) for _, wrapped in lines)
    if lines:
        figure.text(
            0.022, (y + 0.15) / height, "The plan in words", fontsize=8, color=WITH, fontweight="bold", va="center"
        )
    for moment, wrapped in lines:
        for i, text in enumerate(wrapped):
            y -= LINE
            if i == 0:
                figure.text(0.070, (y + 0.12) / height, moment, fontsize=8, color=FAINT, ha="right", va="center")
            figure.text(0.082, (y + 0.12) / height, text, fontsize=8, color=INK, va="center", **LITERAL)
