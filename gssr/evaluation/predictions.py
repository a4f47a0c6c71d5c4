"""Predictions as JSON Lines, one window a line, and a fan chart for each of the first ones.

A line holds (lists in order of time, values in data units, null = not known):

    series, value_names, value_units
    time            T times, ISO 8601 in UTC
    context         C rows of Y values; truth: H rows of Y values
    goal, goal_step, goal_time, goal_low, goal_high      a sentence or null; bounds of Y values
    quantile_levels Q numbers
    with_goal, without_goal     each null, or {"mean": H x Y, "quantiles": H x Y x Q, "rollouts": S x H x Y,
                                "text": H texts or null}

`rollouts` are single imagined futures decoded without value noise; mean and quantiles are the plan's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gssr.evaluation.fan_chart import fan_chart_of, save
from gssr.evaluation.network import Plan
from gssr.sequences.record import Batch

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FILE = "predictions.jsonl"


def write_predictions(
    plan_with_goal: Plan | None,
    plan_without_goal: Plan,
    batch: Batch,
    folder: str | Path,
    value_names: Sequence[str],
    value_units: Sequence[str],
    *,
    dimension: int = 0,
    charts: int = 0,
    rollouts: int | None = 16,
    append: bool = False,
    digits: int = 2,
    guides: Sequence[tuple[float, str]] = (),
) -> Path:
    """Write the windows of a batch to `<folder>/predictions.jsonl` and charts beside it; returns the path of the lines.

    Plans (`network.plan`) are of this batch: under its goals (None: there is no goal) and without. `charts`: fan
    charts of value `dimension` for the first windows, `fan_<line>_<series>.png`; `rollouts`: how many to write (None:
    all); `append`: go on behind lines already there, for the next batch; `digits` behind the point; `guides` as in
    `fan_chart`.

    Raises ValueError when a plan is of another batch size than the batch.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    done = path.read_text(encoding="utf-8").count("\n") if append and path.exists() else 0
    lines = prediction_lines(
        plan_with_goal, plan_without_goal, batch, value_names, value_units, rollouts=rollouts, digits=digits
    )
    with path.open("a" if append else "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
    for row in range(min(charts, len(batch))):
        figure = fan_chart_of(
            batch, row, plan_with_goal, plan_without_goal, dimension, value_names, value_units, guides=guides
        )
        name = re.sub(r"\W+", "_", batch.series[row])
        save(figure, folder / f"fan_{done + row:04d}_{name}.png")
    return path


def prediction_lines(
    plan_with_goal: Plan | None,
    plan_without_goal: Plan,
    batch: Batch,
    value_names: Sequence[str],
    value_units: Sequence[str],
    *,
    rollouts: int | None = 16,
    digits: int = 2,
) -> list[str]:
    """A line of JSON for each window of a batch; arguments and errors as of `write_predictions`."""
    for plan in (plan_with_goal, plan_without_goal):
        if plan is not None and plan.rollouts.mean.shape[1] != len(batch):
            raise ValueError(f"a plan of {plan.rollouts.mean.shape[1]} windows was given with a batch of {len(batch)}")
    plans = {"with_goal": plan_with_goal, "without_goal": plan_without_goal}
    lines = []
    for row in range(len(batch)):
        line = _window(batch, row, digits) | {
            "value_names": list(value_names),
            "value_units": list(value_units),
            "quantile_levels": [float(level) for level in plan_without_goal.quantile_levels],
        }
        horizon = len(line["truth"])
        line |= {name: plan and _plan(plan, row, horizon, rollouts, digits) for name, plan in plans.items()}
        lines.append(json.dumps(line, allow_nan=False, ensure_ascii=False))
    return lines


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a file that `write_predictions` wrote."""
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def iso_time(hours: float) -> str:
    """Hours since 1970-01-01T00Z as ISO 8601 in UTC, to the minute: 2017-09-18T06:00Z."""
    moment = EPOCH + timedelta(minutes=round(hours * 60))
    return moment.strftime("%Y-%m-%dT%H:%MZ")


def _window(batch: Batch, row: int, digits: int) -> dict[str, Any]:
    """What is known of a window; its padding is left out."""
    steps, length = int(batch.step_mask[row].sum()), int(batch.context[row])
    value = batch.value[row, :steps].masked_fill(~batch.value_mask[row, :steps], torch.nan)
    time = [iso_time(float(hours)) for hours in batch.time[row, :steps]]
    return {
        "series": batch.series[row],
        "time": time,
        "context": _numbers(value[:length], digits),
        "truth": _numbers(value[length:], digits),
        "goal": batch.goal[row],
        "goal_step": int(batch.goal_step[row]),
        "goal_time": time[int(batch.goal_step[row])],
        "goal_low": _numbers(batch.goal_low[row], digits),
        "goal_high": _numbers(batch.goal_high[row], digits),
    }


def _plan(plan: Plan, row: int, horizon: int, rollouts: int | None, digits: int) -> dict[str, Any]:
    return {
        "mean": _numbers(plan.mean[row, :horizon], digits),
        "quantiles": _numbers(plan.quantiles[row, :horizon], digits),
        "rollouts": _numbers(plan.rollouts.mean[:rollouts, row, :horizon], digits),
        "text": plan.text[row][:horizon] or None,
    }


def _numbers(values: Tensor, digits: int) -> Any:
    """Nested lists of rounded numbers, None for NaN."""
    rounded = np.round(values.detach().double().cpu().numpy(), digits) + 0.0  # + 0.0: no negative zero
    return np.where(np.isfinite(rounded), rounded, None).tolist()
