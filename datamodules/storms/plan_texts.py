"""A parser of storm advisories, and how well the texts of a plan agree with the plan's own wind.

An advisory names a status, never the wind (`datamodules.storms.best_tracks`). A status names a range of winds: below a
tropical storm, a tropical storm, a hurricane. An extratropical cyclone may have any wind, so its status is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from tqdm import tqdm

from gssr.evaluation.imagining import evaluating, seed_of
from gssr.evaluation.intervals import Estimate, cluster_mean
from gssr.evaluation.network import SpeakingNetwork
from gssr.sequences.record import Batch

WEAK, STORM, HURRICANE = range(3)
LEVELS = (
    (re.compile(r"\s*(sub)?tropical depression\b", re.IGNORECASE), WEAK),
    (re.compile(r"\s*tropical wave\b", re.IGNORECASE), WEAK),
    (re.compile(r"\s*(low|disturbance)\b", re.IGNORECASE), WEAK),
    (re.compile(r"\s*(sub)?tropical storm\b", re.IGNORECASE), STORM),
    (re.compile(r"\s*hurricane\b", re.IGNORECASE), HURRICANE),
)
LEAST_WIND = {STORM: 34.0, HURRICANE: 64.0}  # knots


def named_level(text: str) -> int | None:
    """The level that an advisory names in its first words; None for an extratropical cyclone and for anything else."""
    return next((level for pattern, level in LEVELS if pattern.match(text)), None)


def wind_level(wind: float) -> int:
    """The level of a wind in knots."""
    return max((level for level, least in LEAST_WIND.items() if wind >= least), default=WEAK)


@dataclass(frozen=True)
class Agreement:
    """Shares with errors by series; NaN where nothing could be judged.

    `same`: texts that name the level of their step's decoded wind; `near`: or a neighbouring level. `direction`: plans
    whose wind rises or falls as the named level does from the first text to the last, of those where it changes.
    `judged`: texts that name a level.
    """

    same: Estimate
    near: Estimate
    direction: Estimate
    judged: float


def agreement(texts: Sequence[Sequence[str]], wind: np.ndarray, series: Sequence[str]) -> Agreement:
    """Agreement of N plans' texts (H each) with the winds (N, H) in knots."""
    named = np.array([[np.nan if (n := named_level(text)) is None else n for text in row] for row in texts])
    own = np.array([[wind_level(w) for w in row] for row in wind], dtype=float)
    away = np.abs(named - own)
    judged = ~np.isnan(away)
    alike = np.full(len(named), np.nan)
    for row in range(len(named)):
        known = np.flatnonzero(judged[row])
        if len(known) > 1 and (turn := named[row, known[-1]] - named[row, known[0]]):
            alike[row] = turn * (wind[row, known[-1]] - wind[row, known[0]]) > 0
    owners = np.repeat(np.asarray(series), away.shape[1])
    same, near = (np.where(judged, away <= most, np.nan).ravel() for most in (0, 1))
    return Agreement(
        cluster_mean(same, owners),
        cluster_mean(near, owners),
        cluster_mean(alike, series),
        float(judged.mean()),
    )


@dataclass(frozen=True)
class PlanTexts:
    """Plans of N windows: texts (N lists of H), the winds (N, H) that they are written from, and the series (N)."""

    texts: list[list[str]]
    wind: np.ndarray
    series: list[str]


def write_plans(
    network: SpeakingNetwork,
    batch: Batch,
    dimension: int,
    goals: bool,
    samples: int = 16,
    seed: int = 0,
    batch_size: int = 64,
    gain: float = 1.0,
) -> PlanTexts:
    """Plans under the windows' own goals, every gain times ``gain``, or without goals."""
    texts, winds = [], []
    with evaluating(network, seed_of(seed, "plan texts")):
        starts = range(0, len(batch), batch_size)
        for start in tqdm(starts, desc="plans in words", leave=False, disable=None):
            rows = list(range(start, min(start + batch_size, len(batch))))
            part = move_data_to_device(batch.select(rows), network.device)
            generator = torch.Generator().manual_seed(seed_of(seed, "plan texts", start))
            asked = part.goal if goals else [None] * len(part)
            plan = network.plan(part, asked, samples, generator=generator, gain=gain)
            assert plan.spoken is not None
            texts += plan.text
            winds.append(plan.spoken[..., dimension].cpu().numpy())
    return PlanTexts(texts, np.concatenate(winds), batch.series)


def plan_agreement(plans: PlanTexts) -> tuple[Agreement, Agreement]:
    """Agreement of plans with their own winds, and with the winds of other plans at the same step."""
    other = np.roll(np.arange(len(plans.wind)), len(plans.wind) // 2)
    return (
        agreement(plans.texts, plans.wind, plans.series),
        agreement(plans.texts, plans.wind[other], plans.series),
    )


def _asked(batch: Batch, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """The wind at goal_start and the middle of the goal's bounds, (B,) each."""
    rows = torch.arange(len(batch), device=batch.value.device)
    start, middle = batch.value[rows, batch.goal_start, dimension], (batch.goal_low + batch.goal_high)[:, dimension] / 2
    return start.cpu().numpy(), middle.cpu().numpy()


def clear_cases(batch: Batch, dimension: int, least: float = 10.0) -> list[int]:
    """Rows whose goal clearly asks for another level.

    The wind at goal_start and the middle of the goal's bounds lie on different levels, each at least `least` knots away
    from the bounds of all levels.
    """
    start, middle = _asked(batch, dimension)
    bounds = np.array(list(LEAST_WIND.values()))
    away = np.minimum(*(np.abs(winds[:, None] - bounds).min(1) for winds in (start, middle)))
    return [
        row for row in range(len(batch)) if away[row] >= least and wind_level(start[row]) != wind_level(middle[row])
    ]


def turned_to_goal(
    texts: Sequence[Sequence[str]],
    batch: Batch,
    dimension: int,
    from_now: bool = False,
) -> Estimate:
    """Share of plans whose named level moves towards the goal's level, from the first text that names one to the last.

    A plan's first text is one step ahead and may already name the goal's level; with `from_now` the last text is
    compared with the level of the wind at goal_start instead. Only windows whose goal asks for another level than that
    wind's count. A plan whose texts name the same level at both ends, or none, has not turned.
    """
    turned = np.full(len(batch), np.nan)
    start, middle = _asked(batch, dimension)
    for row in range(len(batch)):
        if np.isnan(middle[row]) or (asked := wind_level(middle[row]) - wind_level(start[row])) == 0:
            continue
        named = [level for text in texts[row] if (level := named_level(text)) is not None]
        before = wind_level(start[row]) if from_now else named[0] if named else 0
        turned[row] = bool(named) and (named[-1] - before) * asked > 0
    return cluster_mean(turned, batch.series)
