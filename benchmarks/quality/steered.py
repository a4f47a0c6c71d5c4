"""The effect of goals: hits, distance and plausibility by goal and gain, and opposing goals from one context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.origins import Origins
from datamodules.storms.report import change_quantile
from gssr.evaluation.baselines import persistence
from gssr.evaluation.forecast_report import stretches, tolerance_of
from gssr.evaluation.imagining import imagine, match_donors, pick_evenly, seed_of, window_key
from gssr.evaluation.intervals import cluster_mean, cluster_ratio
from gssr.metrics import at_step, changes_beyond, goal_hits, outside, plotting_quantiles
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch

GAINS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
CAME_TRUE, BORROWED = "came true", "borrowed"
WEAK, STRONG = 0.1, 0.9  # quantiles of the goals of windows with a similar start: still plausible at either end
LEAST_DONORS = 10
CHARTS = 3
FAN = (0.1, 0.9)


@dataclass
class Goals:
    """Windows under their own goals, which came true, and under those of other windows with a similar start.

    A batch is None if no window qualifies. `weak` and `strong` hold the same windows, under the lowest and the highest
    plausible goal.
    """

    own: Batch | None
    borrowed: Batch | None
    weak: Batch | None
    strong: Batch | None
    tolerance: float


def find_goals(origins: Origins, most: int) -> Goals:
    """Goals in combinations that training leaves out, of at most `most` of the part's windows."""
    data, y = origins.data, origins.dimension
    scored = {(name, float(time)) for name, time in zip(origins.batch.series, origins.batch.time[:, 0], strict=True)}
    tolerance = tolerance_of(data, y)
    lenders = [
        r
        for r in data.windows_evaluation(origins.part, "combinations")
        if r.goal is not None and np.isfinite(r.goal_low[y])
    ]
    own = [record for record in lenders if window_key(record) in scored]
    own = [own[i] for i in pick_evenly(len(own), most)]
    if not own:
        return Goals(None, None, None, None, tolerance)
    batch, donors = collate(own), collate(lenders)
    # Windows of a single series lend to each other, so the stretch that a window starts in stands for its series.
    apart = [_renamed(part, stretches(part)) for part in (batch, donors)]
    kept, chosen = match_donors(*apart, y, tolerance, seed_of(0, origins.part))
    borrowed = _lent(batch, kept, donors, chosen) if kept else None
    rows, low, high = _opposing(*apart, y, tolerance)
    weak, strong = (_lent(batch, rows, donors, side) if rows else None for side in (low, high))
    return Goals(batch, borrowed, weak, strong, tolerance)


def _renamed(batch: Batch, names: Sequence[str]) -> Batch:
    return Batch(**{**vars(batch), "series": list(names)})


def _lent(batch: Batch, rows: Sequence[int], donors: Batch, chosen: Sequence[int]) -> Batch:
    lent = donors.select(chosen)
    return batch.select(rows).with_goals(lent.goal, lent.goal_low, lent.goal_high)


def _opposing(batch: Batch, donors: Batch, y: int, tolerance: float) -> tuple[list[int], list[int], list[int]]:
    """Windows with enough donors of a similar start, and for each a donor of a weak and one of a strong goal."""
    start, gives = (part.value[torch.arange(len(part)), part.goal_start, y].numpy() for part in (batch, donors))
    middle = ((donors.goal_low + donors.goal_high) / 2)[:, y].numpy()
    series = np.asarray(donors.series)
    rows, low, high = [], [], []
    for row, name in enumerate(batch.series):
        fits = np.flatnonzero((np.abs(gives - start[row]) <= tolerance) & (series != name))
        if len(fits) < LEAST_DONORS:
            continue
        ordered = fits[np.argsort(middle[fits], kind="stable")]
        weak, strong = (ordered[round(share * (len(fits) - 1))] for share in (WEAK, STRONG))
        # One forecast could reach both goals if they were nearer to each other.
        if donors.goal_low[strong, y] - donors.goal_high[weak, y] > 2 * tolerance:
            rows.append(row), low.append(int(weak)), high.append(int(strong))
    return rows, low, high


def measure(
    network: Any,
    origins: Origins,
    goals: Goals,
    samples: int,
    seed: int,
    tick: Callable[[], Any],
    gains: Sequence[float] = GAINS,
) -> dict[str, Any]:
    """Hits, distance and plausibility by gain of goals that came true and of borrowed ones, and disjoint fans.

    Returns:
        For each kind of goal a row for every gain (0: no goal). ``hit`` is the share of windows whose mean rollout
        lies within the tolerance of the goal's range at its step, ``distance`` that of the mean from the range in data
        units, ``jumps`` the share of large changes in single rollouts over that of the truth on the same windows.
    """
    y = origins.dimension
    threshold = change_quantile(origins.training, y, 0.99)
    found: dict[str, Any] = {"tolerance": goals.tolerance, "gains": gains, "threshold": threshold}
    for name, batch in ((CAME_TRUE, goals.own), (BORROWED, goals.borrowed)):
        if batch is None:
            continue
        rows = []
        for strength in gains:
            paths = imagine(network, batch, batch.goal, samples, seed_of(seed, name), gain=strength)
            rows.append(_scores(paths.mean, batch, y, goals.tolerance, threshold))
            tick()
        found[name] = rows
    if goals.weak is not None and goals.strong is not None:
        fans = []
        for batch in (goals.weak, goals.strong):
            fans.append(imagine(network, batch, batch.goal, samples, seed_of(seed, "opposing")).sample)
            tick()
        examples = _examples(network, goals, fans, y, samples, seed)
        found["opposing"] = _disjoint(*fans, goals.weak, y) | {"examples": examples}
    return found


def _scores(mean: Tensor, batch: Batch, y: int, tolerance: float, threshold: float) -> dict[str, Any]:
    clusters = stretches(batch)
    score = partial(cluster_mean, clusters=clusters)
    path, low, high = mean[..., y : y + 1], batch.goal_low[:, y : y + 1], batch.goal_high[:, y : y + 1]
    reached = at_step(path.mean(0), batch.goal_step - batch.context)
    hit = goal_hits(reached, low, high, tolerance).float().numpy()
    start = persistence(batch)[:, 0, y : y + 1]
    seen = batch.value_mask[:, -path.shape[-2] :, y : y + 1]
    truth = batch.value[:, -path.shape[-2] :, y : y + 1].masked_fill(~seen, torch.nan)
    jumps, own = (
        (beyond / judged).squeeze(-1)
        for beyond, judged in (changes_beyond(p, start, torch.tensor([threshold])) for p in (path, truth))
    )
    return {
        "hit": score(hit).to_dict(),
        "distance": score(outside(reached, low, high).squeeze(-1).numpy()).to_dict(),
        "jumps": cluster_ratio(jumps.mean(0).numpy(), own.numpy(), clusters).to_dict(),
    }


def _examples(
    network: Any, goals: Goals, fans: Sequence[Tensor], y: int, samples: int, seed: int
) -> list[dict[str, Any]]:
    """A few contexts for a chart: median and 80 % fan under both goals and without a goal."""
    assert goals.weak is not None and goals.strong is not None
    rows = pick_evenly(len(goals.weak), CHARTS)
    batch = goals.weak.select(rows)
    free = imagine(network, batch, None, samples, seed_of(seed, "opposing")).sample
    first = int(batch.context[0])
    value = batch.value[..., y].masked_fill(~batch.value_mask[..., y], torch.nan)

    def fan(sample: Tensor, goal: str | None) -> dict[str, Any]:
        return {"goal": goal, "quantiles": plotting_quantiles(sample, (FAN[0], 0.5, FAN[1]))}

    return [
        {
            "series": batch.series[i],
            "context": value[i, :first],
            "truth": value[i, first:],
            "none": fan(free[:, i, :, y], None),
            "weak": fan(fans[0][:, row, :, y], goals.weak.goal[row]),
            "strong": fan(fans[1][:, row, :, y], goals.strong.goal[row]),
        }
        for i, row in enumerate(rows)
    ]


def _disjoint(weak: Tensor, strong: Tensor, batch: Batch, y: int) -> dict[str, Any]:
    """Share of contexts whose 80 % fans under the weak and the strong goal are disjoint at the goal's step."""
    step = batch.goal_step - batch.context
    top = at_step(plotting_quantiles(weak[..., y : y + 1], FAN)[1], step).squeeze(-1)
    bottom = at_step(plotting_quantiles(strong[..., y : y + 1], FAN)[0], step).squeeze(-1)
    share = cluster_mean((top < bottom).float().numpy(), stretches(batch))
    return {"disjoint": share.to_dict(), "contexts": len(batch)}
