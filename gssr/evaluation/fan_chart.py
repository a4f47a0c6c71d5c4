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

from gssr.evaluation.network import Plan
from gssr.metrics import plotting_quantiles
from gssr.sequences.record import Batch

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
INK, FAINT, GRID = "#22272e", "#8a929c", "#e6e9ed"
WITH, WITHOUT, GOAL = "#d1495b", "#2e6f95", "#9c2238"
LINE = 0.205  # inches between lines of text
SINGLES = 6  # rollouts that are drawn as lines


def fan_chart(
    context_hours: np.ndarray,
    context: np.ndarray,
    horizon_hours: np.ndarray,
    without_goal: np.ndarray,
    with_goal: np.ndarray | None = None,
    *,
    truth: np.ndarray | None = None,
    goal: str | None = None,
    goal_hour: float | None = None,
    goal_low: float | None = None,
    goal_high: float | None = None,
    name: str = "value",
    unit: str = "",
    title: str = "",
    paths: np.ndarray | None = None,
    guides: Sequence[tuple[float, str]] = (),
    texts: Sequence[tuple[float, str]] = (),
) -> Figure:
    """Draw one value dimension of one window; hours count from the end of the context.

    Args:
        context_hours, context: (C), hours up to 0 and values.
        horizon_hours: (H).
        without_goal, with_goal: rollouts with value noise (S, H), drawn as bands from 10 to 90 % and 25 to 75 % around
            the median.
        truth: (H), NaN where unknown.
        goal: A sentence; drawn at `goal_hour` as a mark for a number, a bracket for a range, a line for unknown bounds
            (NaN or None).
        paths: A few single rollouts with the goal (S', H), drawn as thin lines, best without value noise.
        guides: Named levels of the value.
        texts: (hour, text) of a plan, written below.

    Raises ValueError where shapes do not fit together.
    """
    context_hours, context, horizon_hours, without_goal = (
        np.asarray(part, dtype=np.float64) for part in (context_hours, context, horizon_hours, without_goal)
    )
    fans = [(without_goal, WITHOUT, "forecast" if with_goal is None else "without the goal")]
    if with_goal is not None:
        fans.append((np.asarray(with_goal, dtype=np.float64), WITH, "with the goal"))
    if context.shape != context_hours.shape or any(
        f.ndim != 2 or f.shape[1:] != horizon_hours.shape for f, _, _ in fans
    ):
        raise ValueError(
            f"fan chart: context {context.shape} for hours {context_hours.shape}, rollouts "
            f"{[f.shape for f, _, _ in fans]} for {horizon_hours.shape} hours of horizon; expected (C,), (C,), "
            "(S, H), (H,)"
        )
    lines = [(hour, textwrap.wrap(text, 122)[:2]) for hour, text in texts]
    below = 0.34 + LINE * sum(len(wrapped) for _, wrapped in lines) if lines else 0.0  # inches
    above = 1.0 if goal else 0.76
    height = 4.05 + above + below
    figure = Figure(figsize=(8.8, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.07, (0.55 + below) / height, 0.77, 3.5 / height))
    _prepare(axes, context_hours, horizon_hours, name, unit)
    seen = context[~np.isnan(context)]
    last = (context_hours[-1], seen[-1] if len(seen) else np.nan)
    ends = [_fan(axes, last, horizon_hours, samples, colour, label) for samples, colour, label in fans]
    for path in () if paths is None else np.asarray(paths, dtype=np.float64):
        axes.plot([last[0], *horizon_hours], [last[1], *path], color=WITH, lw=0.7, alpha=0.55, zorder=4)
    axes.plot(context_hours, context, color=INK, lw=1.9, marker="o", ms=3.6, zorder=6, solid_capstyle="round")
    if truth is not None and not np.isnan(truth).all():
        hours, path = [last[0], *horizon_hours], [last[1], *np.asarray(truth, dtype=np.float64)]
        axes.plot(hours, path, color=INK, lw=1.5, ls=(0, (1.2, 1.6)), dash_capstyle="round", zorder=6)
        ends.append((path[-1], INK, "what happened"))
    mark = _goal(axes, goal_hour, goal_low, goal_high)
    _limits(axes, context, truth, [f for f, _, _ in fans], mark)
    _guides(axes, guides, context_hours, context)
    _label_ends(axes, ends)
    _titles(figure, height, title, goal, name)
    _texts(figure, height, lines)
    caption = f"bands: 50 % and 80 % of {len(without_goal)} rollouts" + (
        "" if paths is None else "; thin lines: single rollouts"
    )
    figure.text(0.84, (0.12 + below) / height, caption, fontsize=7, color=FAINT, ha="right", va="center")
    return figure


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
) -> Figure:
    """The fan chart of sequence `index` of a batch, from plans of that batch with and without its goal.

    It shows a few single rollouts and up to three texts; `guides` as in `fan_chart`.
    """
    row = batch.select([index])
    length = int(row.context[0])
    steps = int(row.step_mask[0].sum())
    hours = (row.time[0, :steps] - row.time[0, length - 1]).cpu().numpy()
    value = (
        row.value[0, :steps, dimension].masked_fill(~row.value_mask[0, :steps, dimension], float("nan")).cpu().numpy()
    )
    horizon = steps - length

    def fan(rollouts: Tensor) -> np.ndarray:
        return rollouts[:, index, :horizon, dimension].float().cpu().numpy()

    written = (plan_without if plan_with is None else plan_with).text[index]
    shown = sorted({horizon // 4, horizon // 2, horizon - 1}) if horizon > 2 else range(horizon)
    texts = [(hours[length + h], written[h]) for h in shown] if written else []
    goal = row.goal[0] if plan_with is not None else None
    return fan_chart(
        hours[:length],
        value[:length],
        hours[length:],
        fan(plan_without.rollouts.sample),
        None if plan_with is None else fan(plan_with.rollouts.sample),
        truth=value[length:],
        goal=goal,
        goal_hour=None if goal is None else float(hours[int(row.goal_step[0])]),
        goal_low=float(row.goal_low[0, dimension]),
        goal_high=float(row.goal_high[0, dimension]),
        name=value_names[dimension],
        unit=value_units[dimension],
        title=row.series[0],
        paths=None if plan_with is None else fan(plan_with.rollouts.mean)[:SINGLES],
        guides=guides,
        texts=texts,
    )


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure to a PNG file, without the time of writing in it: the same picture gives the same bytes."""
    figure.savefig(path, format="png", metadata={"Software": None})


def _prepare(axes: Axes, context_hours: np.ndarray, horizon_hours: np.ndarray, name: str, unit: str) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8.5, length=3, color=FAINT)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    span = horizon_hours[-1] - context_hours[0]
    steps = (1, 2, 3, 6, 12, 24, 48, 96, 168, 336, 672)
    axes.xaxis.set_major_locator(MultipleLocator(next((s for s in steps if span / s <= 10), span / 8)))
    axes.xaxis.set_major_formatter(lambda hour, _: "now" if hour == 0 else f"{hour:+g} h".replace("-", "−"))
    margin = 0.015 * span
    axes.set_xlim(context_hours[0] - margin, horizon_hours[-1] + margin)
    axes.axvspan(context_hours[0] - margin, context_hours[-1], color="#f6f7f9", lw=0, zorder=0)
    axes.axvline(context_hours[-1], color=FAINT, lw=0.9, zorder=1)
    label = f"{name} ({unit})" if unit else name
    axes.text(0, 1.025, label, transform=axes.transAxes, fontsize=9, color=INK, ha="left", va="bottom")


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


def _goal(axes: Axes, hour: float | None, low: float | None, high: float | None) -> tuple[float, float] | None:
    """A ring for a number, a bracket for a range, a thin line where only the time is known; returns the drawn range."""
    if hour is None:
        return None
    if low is None or high is None or np.isnan(low) or np.isnan(high):
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


def _limits(
    axes: Axes, context: np.ndarray, truth: np.ndarray | None, fans: list[np.ndarray], mark: tuple[float, float] | None
) -> None:
    parts = [context, *(np.quantile(fan, (0.05, 0.95), axis=0).reshape(-1) for fan in fans)]
    parts += [np.asarray(truth)] if truth is not None else []
    parts += [np.asarray(mark)] if mark is not None else []
    values = np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])
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
                    label,
                    (place, level),
                    xycoords=("axes fraction" if side == "left" else "data", "data"),
                    xytext=(4 if side == "left" else -4, 2),
                    textcoords="offset points",
                    ha=side,
                    fontsize=7,
                    color=FAINT,
                    zorder=1,
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


def _titles(figure: Figure, height: float, title: str, goal: str | None, name: str) -> None:
    figure.text(0.022, 1 - 0.30 / height, title or name, fontsize=12.5, fontweight="bold", color=INK, va="center")
    if goal:
        sentence = textwrap.shorten(goal, 105, placeholder=" …")
        figure.text(0.022, 1 - 0.56 / height, f"“{sentence}”", fontsize=10.5, color=GOAL, style="italic", va="center")


def _texts(figure: Figure, height: float, lines: Sequence[tuple[float, list[str]]]) -> None:
    """The plan in words under the chart: a column of hours and one of texts."""
    y = 0.06 + LINE * sum(len(wrapped) for _, wrapped in lines)
    if lines:
        figure.text(
            0.022, (y + 0.15) / height, "The plan in words", fontsize=8, color=WITH, fontweight="bold", va="center"
        )
    for hour, wrapped in lines:
        for i, text in enumerate(wrapped):
            y -= LINE
            if i == 0:
                moment = f"{hour:+g} h".replace("-", "−")
                figure.text(0.070, (y + 0.12) / height, moment, fontsize=8, color=FAINT, ha="right", va="center")
            figure.text(0.082, (y + 0.12) / height, text, fontsize=8, color=INK, va="center")
