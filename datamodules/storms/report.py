"""The report on storms: forecasts without a goal, goals that came true and borrowed ones, plausibility, belief.

    report = evaluate_storms(network, datamodule)      # test years; split="val" while choosing
    print(report.to_markdown()); report.write(run_folder)

Every error is a bootstrap over storms. The bars at the end are the project's own: a network that ignores its goal fails
them, and so does one that leaps to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.storms import tables
from gssr.evaluation.baselines import LinearAutoregression, persistence
from gssr.evaluation.imagining import Imagined, borrow, imagine, pick_evenly, seed_of, window_key
from gssr.evaluation.report import Check, Report
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record

KINDS = {
    "combinations": "combinations not trained on",
    "numbers": "numbers not trained on",
    "forms": "sentence forms never seen",
}
BARS = {  # least share of hits: goals that came true, borrowed goals
    "combinations": (0.85, 0.75),
    "numbers": (0.65, 0.65),
    "forms": (0.60, 0.60),
}
MOST_IMPLAUSIBLE = 2.0  # times the truth's share of large changes
HOURS = (24, 48)


class StormsReport(Report):
    """What `evaluate_storms` returns."""


@dataclass
class Steered:
    """Rollouts under goals: the windows with the goals they were given, and their rows in the evaluation's batch."""

    batch: Batch
    rows: list[int]
    paths: Imagined


@dataclass
class Evaluation:
    """What every table needs: windows of the split, forecasts for them, and the options."""

    network: Any
    batch: Batch  # the union of all windows that any table scores
    index: dict[tuple[str, float], int]  # of a window in `batch`
    plain: list[int]  # windows scored without a goal
    unsteered: Imagined  # for `batch`
    persistent: Tensor  # (B, H, Y), for `batch`
    linear: Tensor  # (B, H, Y), for `batch`
    dimension: int
    name: str  # of that dimension
    unit: str
    threshold: float
    samples: int
    seed: int
    draws: int
    tolerance: float
    batch_size: int

    @property
    def hours(self) -> dict[int, int]:
        """Hours ahead to report -> horizon step; the horizon's end instead of hours that lie behind it."""
        start = int(self.batch.goal_start[0])
        ahead = (self.batch.time[0, start + 1 :] - self.batch.time[0, start]).round().int().tolist()
        return {hour: ahead.index(hour) for hour in HOURS if hour in ahead} | {ahead[-1]: len(ahead) - 1}

    @property
    def bootstrap(self) -> dict[str, int]:
        """The options of every bootstrap."""
        return {"draws": self.draws, "seed": self.seed}

    def steer(self, kind: str, records: Sequence[Record], donors: Sequence[Record] | None) -> Steered | None:
        """Rollouts under the windows' own goals, or under goals borrowed from `donors`; None where there is no
        window.
        """
        if not records:
            return None
        batch, rows = collate(records), [self.index[window_key(record)] for record in records]
        if donors is not None:
            lenders = collate(donors)
            kept, chosen = borrow(batch, lenders, self.dimension, self.tolerance, seed_of(self.seed, kind))
            if not kept:
                return None
            lent = lenders.select(chosen)
            batch = batch.select(kept).with_goals(lent.goal, lent.goal_low, lent.goal_high)
            rows = [rows[i] for i in kept]
        seed = seed_of(self.seed, kind, "came true" if donors is None else "borrowed")
        return Steered(batch, rows, imagine(self.network, batch, batch.goal, self.samples, seed, self.batch_size))


def evaluate_storms(
    network: Any,
    datamodule: Any,
    split: str = "test",
    samples: int = 64,
    seed: int = 0,
    quick: bool = False,
    max_windows: int = 1500,
    tolerance: float = 10.0,
    batch_size: int = 256,
) -> StormsReport:
    """Score a network on the windows of a split ("test" or "val"); the same arguments give the same numbers.

    `network` has `rollout` (see `imagining.Imagines`) and, for the last table, what `belief` describes. `datamodule`
    is `datamodules.Storms` or a twin of it; its stages are set up here. At most `max_windows` windows a row, evenly
    picked; `tolerance`, in the value's unit, decides what is a hit. `quick` shrinks windows, rollouts and bootstrap
    draws to a few seconds' work: a smoke test, not a result.

    Raises ValueError for another split and for fewer than 2 samples.
    """
    if split not in ("val", "test") or samples < 2:
        raise ValueError(
            f"evaluate_storms was given split {split!r} and {samples} samples; expected 'val' or 'test', and at least 2"
        )
    if quick:
        max_windows, samples = min(max_windows, 128), min(samples, 16)
    datamodule.setup("fit")
    datamodule.setup("test")
    windows = plain_windows(getattr(datamodule, f"{split}_records"))
    windows = [windows[i] for i in pick_evenly(len(windows), max_windows)]
    with_goals = {kind: datamodule.windows_evaluation(split, kind) for kind in KINDS}
    picked = {kind: [found[i] for i in pick_evenly(len(found), max_windows)] for kind, found in with_goals.items()}
    every = {window_key(record): record for part in (windows, *picked.values()) for record in part}
    training = collate(plain_windows(datamodule.train_records))
    batch = collate(list(every.values()))
    index = {key: row for row, key in enumerate(every)}
    dimension = datamodule.goal_dim
    evaluation = Evaluation(
        network=network,
        batch=batch,
        index=index,
        plain=[index[window_key(record)] for record in windows],
        unsteered=imagine(network, batch, None, samples, seed_of(seed, "no goal"), batch_size),
        persistent=persistence(batch),
        linear=LinearAutoregression().fit(training).predict(batch),
        dimension=dimension,
        name=datamodule.value_names[dimension],
        unit=datamodule.value_units[dimension],
        threshold=change_quantile(training, dimension, 0.99),
        samples=samples,
        seed=seed,
        draws=200 if quick else 2000,
        tolerance=tolerance,
        batch_size=batch_size,
    )
    steered = {
        f"{'borrowed' if borrowed else 'came true'}, {words}": evaluation.steer(
            kind, picked[kind], with_goals[kind] if borrowed else None
        )
        for borrowed in (False, True)
        for kind, words in KINDS.items()
    }
    steered = {name: row for name, row in steered.items() if row is not None}
    lent = steered.get(f"borrowed, {KINDS['combinations']}")
    validation = collate(plain_windows(datamodule.val_records))
    made = [
        tables.forecasts(evaluation),
        *tables.goals(evaluation, steered),
        tables.plausibility(evaluation, steered),
        tables.intervals(evaluation),
        tables.belief(evaluation, validation, quick),
        tables.plan_texts(evaluation, collate(picked["combinations"]), None if lent is None else lent.batch, quick),
    ]
    context = int(batch.context[0])
    settings = {
        "split": split,
        "samples": samples,
        "seed": seed,
        "quick": quick,
        "max_windows": max_windows,
        "context": context,
        "horizon": batch.value.shape[1] - context,
        "tolerance": tolerance,
        "change_threshold": evaluation.threshold,
        "windows": len(windows),
        "series": len({record.series for record in windows}),
    }
    years = "validation" if split == "val" else "test"
    intro = (
        f"{years.capitalize()} years, {context} steps of context and {settings['horizon']} of horizon, {samples} "
        "rollouts, goals as text. ± is one standard error by bootstrap over storms. At most "
        f"{max_windows} windows a row, evenly picked"
    )
    intro += "; **shrunk for a quick look, not a result**." if quick else "."
    return StormsReport(f"storms_{split}", f"Storms, {years} years", intro, settings, made, _checks(made, evaluation))


def plain_windows(dataset: Any) -> list[Record]:
    """The windows of a data set without writing goals, where it can do so."""
    return list(getattr(dataset, "records", dataset))


def change_quantile(batch: Batch, dimension: int, level: float) -> float:
    """Quantile of a value's absolute one-step changes, each step of a series once although windows overlap."""
    value = batch.value[..., dimension].masked_fill(~batch.value_mask[..., dimension], torch.nan)
    change = value.diff(dim=1).abs().numpy()
    series = np.unique(np.asarray(batch.series), return_inverse=True)[1]
    place = np.stack([np.repeat(series, change.shape[1]), batch.time[:, 1:].numpy().reshape(-1)], axis=1)
    once = change.reshape(-1)[np.unique(place, axis=0, return_index=True)[1]]
    return float(np.quantile(once[~np.isnan(once)], level))


def _checks(made: Sequence[tables.Table], evaluation: Evaluation) -> list[Check]:
    rows = {table.key: table.rows for table in made}

    def number(table: str, row: str, column: str, part: str = "value") -> float:
        cell = rows[table].get(row, {}).get(column, float("nan"))
        return getattr(cell, part, cell)  # type: ignore[return-value]

    last = f"{max(evaluation.hours)} h"
    ours = number("forecast", tables.NETWORK, last)
    bar = sum(number("forecast", tables.LINEAR, last, part) for part in ("value", "error"))
    checks = [Check(f"error at {last} without a goal, at most linear autoregression plus its error", ours, bar, True)]
    names = {f"{('came true', 'borrowed')[i]}, {words}": BARS[kind][i] for i in (0, 1) for kind, words in KINDS.items()}
    for name, least in names.items():
        checks.append(Check(f"hits, {name}", number("goals", name, "steered"), least))
    for name in names:
        ratio = number("plausibility", name, "steered / truth")
        checks.append(Check(f"large changes, times the truth's, {name}", ratio, MOST_IMPLAUSIBLE, True))
    checks.append(Check("share of latent dimensions in use", number("belief", tables.USED, "value"), 0.25))
    checks.append(Check("value error with x permuted, times its own", number("belief", tables.PERMUTED, "value"), 2.0))
    gained = number("belief", tables.GAINED, "value", "low")
    checks.append(Check("text, nats a token gained, lower end of the 95 % interval", gained, 0.0))
    return checks
