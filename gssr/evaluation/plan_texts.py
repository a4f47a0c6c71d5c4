"""Do the texts of a plan say what its numbers say? A parser of storm advisories, and their agreement with the plan's own wind.

A status names a range of winds: below a tropical storm, a storm, a hurricane (`datamodules.best_tracks` writes it, never the wind).
An extratropical cyclone may have any wind, and its status is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device

from gssr.evaluation.bootstrap import Estimate, cluster_mean
from gssr.evaluation.imagining import device_of, evaluating, pick_evenly, seed_of
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
    """Shares of what could be judged, with errors by series; NaN where nothing could.

    `same`, `near`: texts whose level is that of their step's decoded wind, or that or a neighbouring one; `direction`: plans whose
    last named level lies above or below the first one and whose wind rises or falls alike; `judged`: share of texts that name one.
    """

    same: Estimate
    near: Estimate
    direction: Estimate
    judged: float


def agreement(
    texts: Sequence[Sequence[str]], wind: np.ndarray, series: Sequence[str], draws: int = 2000, seed: int = 0
) -> Agreement:
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
    owners, options = np.repeat(np.asarray(series), away.shape[1]), {"draws": draws, "seed": seed}
    same, near = (np.where(judged, away <= most, np.nan).ravel() for most in (0, 1))
    return Agreement(
        cluster_mean(same, owners, **options),
        cluster_mean(near, owners, **options),
        cluster_mean(alike, series, **options),
        float(judged.mean()),
    )


def plan_agreement(
    network: Any,
    batch: Batch,
    dimension: int,
    windows: int = 128,
    samples: int = 16,
    seed: int = 0,
    draws: int = 2000,
    batch_size: int = 64,
) -> dict[str, Agreement] | None:
    """Agreement of plans under the windows' own goals, and of the same texts shuffled between windows: step h of one plan with
    the wind of step h of another. None where the network writes no plans (`plan` with `texts` and `spoken`)."""
    picked = pick_evenly(len(batch), windows)
    texts, winds, series = [], [], []
    if not hasattr(network, "plan"):
        return None
    with evaluating(network, seed_of(seed, "plan texts")):
        for start in range(0, len(picked), batch_size):
            part = move_data_to_device(batch.select(picked[start : start + batch_size]), device_of(network))
            generator = torch.Generator().manual_seed(seed_of(seed, "plan texts", start))
            plan = network.plan(part, part.goal, samples, generator=generator)
            if getattr(plan, "spoken", None) is None:
                return None
            texts += plan.text
            winds.append(plan.spoken[..., dimension].cpu().numpy())
            series += part.series
    wind = np.concatenate(winds)
    other = np.roll(np.arange(len(wind)), len(wind) // 2)
    return {
        "own": agreement(texts, wind, series, draws, seed),
        "shuffled": agreement(texts, wind[other], series, draws, seed),
    }
