"""The report on storms: forecasts without a goal, goals that came true and borrowed ones, plausibility, belief.

    report = evaluate_storms(network, Storms())      # test years; split="val" while choosing
    print(report.to_markdown()); report.write(run_folder)

Every error is over storms. The bars at the end are the project's own: a network that ignores its goal fails
them, and so does one that jumps to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from datamodules.storms import tables
from datamodules.storms.evaluation import Evaluation
from gssr.evaluation.baselines import LinearAutoregression, persistence
from gssr.evaluation.imagining import imagine, pick_evenly, seed_of, window_key
from gssr.evaluation.network import SpeakingNetwork
from gssr.evaluation.report import Check, Report
from gssr.sequences.collate import collate
from gssr.sequences.goals import KINDS
from gssr.sequences.record import Batch
from gssr.sequences.source import SequenceSource

# Least share of hits: goals that came true, borrowed goals.
BARS = {
    "combinations": (0.85, 0.75),
    "numbers": (0.65, 0.65),
    "forms": (0.60, 0.60),
}
MOST_IMPLAUSIBLE = 2.0  # times the truth's share of large changes


def evaluate_storms(
    network: SpeakingNetwork,
    data: SequenceSource,
    split: str = "test",
    samples: int = 64,
    seed: int = 0,
    quick: bool = False,
    max_windows: int = 1500,
    tolerance: float = 10.0,
    batch_size: int = 256,
) -> Report:
    """Score a network on the windows of a split ("test" or "val"); the same arguments give the same numbers.

    The stages of `data` are set up here. At most `max_windows` windows a row are scored, evenly picked. `tolerance`, in
    the value's unit, decides what is a hit. `quick` shrinks windows and rollouts to a few seconds' work: a
    smoke test, not a result.

    Raises ValueError for another split and for fewer than 2 samples.
    """
    if split not in ("val", "test") or samples < 2:
        raise ValueError(
            f"evaluate_storms was given split {split!r} and {samples} samples; expected 'val' or 'test', and at least 2"
        )
    if quick:
        max_windows, samples = min(max_windows, 128), min(samples, 16)
    data.setup("fit")
    data.setup("test")
    windows = data.windows(split)
    windows = [windows[i] for i in pick_evenly(len(windows), max_windows)]
    with_goals = {kind: data.windows_evaluation(split, kind) for kind in KINDS}
    picked = {kind: [found[i] for i in pick_evenly(len(found), max_windows)] for kind, found in with_goals.items()}
    every = {window_key(record): record for part in (windows, *picked.values()) for record in part}
    training = collate(data.windows("train"))
    batch = collate(list(every.values()))
    index = {key: row for row, key in enumerate(every)}
    dimension = data.goal_dim
    evaluation = Evaluation(
        network=network,
        batch=batch,
        index=index,
        plain=[index[window_key(record)] for record in windows],
        unsteered=imagine(network, batch, None, samples, seed_of(seed, "no goal"), batch_size),
        persistent=persistence(batch),
        linear=LinearAutoregression().fit(training).predict(batch),
        dimension=dimension,
        name=data.value_names[dimension],
        unit=data.value_units[dimension],
        threshold=change_quantile(training, dimension, 0.99),
        samples=samples,
        seed=seed,
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
    validation = collate(data.windows("val"))
    made = [
        tables.forecasts(evaluation),
        *tables.goals(evaluation, steered),
        tables.plausibility(evaluation, steered),
        tables.intervals(evaluation),
        tables.belief(evaluation, validation, quick),
        tables.plan_texts(evaluation, collate(picked["combinations"]), None if lent is None else lent.batch, quick),
    ]
    context = int(batch.context[0])
    horizon, series = batch.value.shape[1] - context, len({record.series for record in windows})
    settings = {"split": split, "samples": samples, "seed": seed, "quick": quick, "max_windows": max_windows}
    settings |= {"context": context, "horizon": horizon, "tolerance": tolerance}
    settings |= {"change_threshold": evaluation.threshold, "windows": len(windows), "series": series}
    years = "validation" if split == "val" else "test"
    intro = (
        f"{years.capitalize()} years, {context} steps of context and {horizon} of horizon, {samples} "
        "rollouts, goals as text. ± is one standard error over storms. At most "
        f"{max_windows} windows a row, evenly picked"
    )
    intro += "; **shrunk for a quick look, not a result**." if quick else "."
    return Report(f"storms_{split}", f"Storms, {years} years", intro, settings, made, _checks(made, evaluation))


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
        return float(getattr(cell, part, cell))

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
    gained = number("belief", tables.GAINED_BY_ALL, "value", "low")
    name = "text, nats a token gained by belief, values and row, lower end of the 95 % interval"
    checks.append(Check(name, gained, 0.0))
    return checks
