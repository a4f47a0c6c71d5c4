"""Predictions as JSON Lines, one window a line, and a fan chart for each of the first ones.

A line holds (lists in order of time, values in data units, null = not known, each number with the digits that tell it
from its neighbours):

    series, value_names, value_units
    time            T times, ISO 8601 in UTC
    context         C rows of Y values; truth: H rows of Y values
    goal, goal_step, goal_time, goal_low, goal_high      a sentence or null; bounds of Y values
    understood      null, or what a typed goal means: {"kind": "goal", "other" or "none", "condition" or null, "sure",
                    "problem", "outside", "mode"}; mode says what made the paths: "condition", "pull" or "none"
    chance          null, or how likely the goal or condition is without any pull: {"probability", "error", "interval"
                    (95 %), "log_probability", "log_error", "hits", "rollouts", "method"}
    likeliest       null, or the likeliest path under the condition (`gssr plan --likeliest`): {"values": H x Y, "nats",
                    "typical_nats"}, by how much it and a typical rollout are less likely than the network's likeliest
    quantile_levels Q numbers
    with_goal, without_goal     each null, or {"mean": H x Y, "quantiles": H x Y x Q, "samples": S,
                                "rollouts": at most S x H x Y, "text": H texts or null, "futures": [{"share",
                                "values": H x Y, "text": H texts}]}

`rollouts` are the first of S imagined futures, decoded without value noise; mean and quantiles are of all of them.
`text` is that of the typical one, the nearest to the mean. `futures` are those that are told, this one first; `share`
is the share of all futures that each is the nearest to.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from gssr import shown
from gssr.evaluation.fan_chart import fan_chart_of, save
from gssr.evaluation.network import Plan
from gssr.files import atomic_write
from gssr.sequences.clock import iso_time
from gssr.sequences.record import Batch

FILE = "predictions.jsonl"


@dataclass
class Forecast:
    """Plans of a batch under its goals (None: it has none) and without goals.

    ``chances``: of the goal of each sequence, as they are written; None where they are unknown. ``understood``: what
    the goal means, likewise. ``likeliest``: its likeliest path, likewise.

    Raises ValueError when a plan is of another batch size than the batch.
    """

    batch: Batch
    with_goal: Plan | None
    without_goal: Plan
    value_names: Sequence[str]
    value_units: Sequence[str]
    chances: Sequence[dict[str, Any] | None] | None = None
    understood: Sequence[dict[str, Any] | None] | None = None
    likeliest: Sequence[dict[str, Any] | None] | None = None

    def __post_init__(self) -> None:
        for plan in filter(None, (self.with_goal, self.without_goal)):
            if (size := plan.rollouts.mean.shape[1]) != len(self.batch):
                raise ValueError(f"a plan of {size} windows was given with a batch of {len(self.batch)}")

    @classmethod
    def of(cls, network: Any, batch: Batch, with_goal: Plan | None, without_goal: Plan) -> Forecast:
        """Plans that a network made."""
        return cls(batch, with_goal, without_goal, network.value_names, network.value_units)

    def lines(self, rollouts: int | None = None) -> list[str]:
        """A line of JSON for each sequence, with so many of its rollouts (None: all)."""
        return [
            json.dumps(self._line(row, rollouts), allow_nan=False, ensure_ascii=False) for row in range(len(self.batch))
        ]

    def chart(self, row: int = 0, dimension: int = 0, guides: Sequence[tuple[float, str]] = ()) -> Figure:
        """The fan chart of a sequence and a value dimension; `guides` as in `fan_chart`."""
        said = None if self.understood is None else self.understood[row]
        batch = self.batch
        if said is not None and said["condition"] is not None and batch.goal[row] is not None:
            goals = list(batch.goal)
            goals[row] = f"{goals[row]} – {said['condition']}, by {said['mode']}"
            batch = replace(batch, goal=goals)
        plans, names = (self.with_goal, self.without_goal), (self.value_names, self.value_units)
        chance = None if self.chances is None else self.chances[row]
        likely = None if chance is None else _in_words(chance)
        return fan_chart_of(batch, row, *plans, dimension, *names, guides=guides, chance=likely)

    def write(
        self,
        folder: str | Path,
        *,
        dimension: int = 0,
        charts: int = 0,
        rollouts: int | None = None,
        guides: Sequence[tuple[float, str]] = (),
    ) -> Path:
        """Write `<folder>/predictions.jsonl`, in one step, and charts beside it; returns the path of the lines.

        Args:
            folder: Made where it is missing.
            rollouts: As in `lines`.
            dimension, charts, guides: As in `draw`.
        """
        path = Path(folder) / FILE
        with atomic_write(path) as file:
            file.writelines(line + "\n" for line in self.lines(rollouts))
        self.draw(folder, charts, dimension, guides)
        return path

    def draw(
        self, folder: str | Path, charts: int, dimension: int = 0, guides: Sequence[tuple[float, str]] = ()
    ) -> None:
        """Write the charts `fan_<line>_<series>.png` of the first sequences.

        Args:
            charts: Sequences that get a chart.
            dimension: Value of the charts.
            guides: As in `fan_chart`.
        """
        for row in range(min(charts, len(self.batch))):
            name = shown.file_name(self.batch.series[row])
            save(self.chart(row, dimension, guides), Path(folder) / f"fan_{row:04d}_{name}.png")

    def _line(self, row: int, rollouts: int | None) -> dict[str, Any]:
        """A window and its plans; padding is left out."""
        batch = self.batch
        steps, length, goal_step = int(batch.step_mask[row].sum()), int(batch.context[row]), int(batch.goal_step[row])
        value = batch.value[row, :steps].masked_fill(~batch.value_mask[row, :steps], torch.nan)
        time = [iso_time(float(hours)) for hours in batch.time[row, :steps]]

        def written(plan: Plan | None) -> dict[str, Any] | None:
            return plan and {
                "mean": _numbers(plan.mean[row, : steps - length]),
                "quantiles": _numbers(plan.quantiles[row, : steps - length]),
                "samples": len(plan.rollouts.mean),
                "rollouts": _numbers(plan.rollouts.mean[:rollouts, row, : steps - length]),
                "text": plan.text[row][: steps - length] or None,
                "futures": [
                    {
                        "share": round(future.share[row].item(), 4),
                        "values": _numbers(future.values[row, : steps - length]),
                        "text": future.text[row][: steps - length],
                    }
                    for future in plan.futures
                ],
            }

        return {
            "series": batch.series[row],
            "time": time,
            "context": _numbers(value[:length]),
            "truth": _numbers(value[length:]),
            "goal": batch.goal[row],
            "goal_step": goal_step,
            "goal_time": time[goal_step],
            "goal_low": _numbers(batch.goal_low[row]),
            "goal_high": _numbers(batch.goal_high[row]),
            "understood": None if self.understood is None else self.understood[row],
            "chance": None if self.chances is None else self.chances[row],
            "likeliest": None if self.likeliest is None else self.likeliest[row],
            "value_names": list(self.value_names),
            "value_units": list(self.value_units),
            "quantile_levels": [float(level) for level in self.without_goal.quantile_levels],
            "with_goal": written(self.with_goal),
            "without_goal": written(self.without_goal),
        }


def _in_words(chance: dict[str, Any]) -> str:
    """A chance as it is written, in words; without a hit its upper bound."""
    if chance["probability"]:
        return f"{chance['probability']:.2g} ± {chance['error']:.1g}"
    return f"less than 1 in {int(1 / chance['interval'][1]):,}"


def _numbers(values: Tensor) -> Any:
    """Nested lists of numbers, None for NaN and infinity; float32 as the shortest decimals that give it back."""
    written = values.detach().cpu()
    written = written if written.dtype == torch.float64 else written.float()
    decimals = (written.numpy() + 0).astype("U32").astype(np.float64)  # + 0: no negative zero
    return np.where(np.isfinite(decimals), decimals, None).tolist()
