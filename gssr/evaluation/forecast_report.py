"""The report on any data module: forecasts without a goal by horizon beside their baselines, and goals that came true.

    report = evaluate_forecasts(network, data)      # test part; split="val" while choosing
    print(report.to_markdown()); report.write(run_folder)

Errors are over series, or over stretches of time where there are few series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gssr import shown
from gssr.evaluation.baselines import LinearAutoregression, horizon_truth, persistence, seasonal_naive
from gssr.evaluation.imagining import imagine, pick_evenly, recent_spread, seed_of, window_key
from gssr.evaluation.intervals import TOO_FEW, Estimate, cluster_difference, cluster_mean
from gssr.evaluation.network import ForecastNetwork
from gssr.evaluation.report import Report, Table, digits_for
from gssr.metrics import at_step, fair_crps, goal_hits, interval_covers, speaks
from gssr.sequences.collate import collate
from gssr.sequences.goals import KINDS
from gssr.sequences.record import Batch, Record
from gssr.sequences.source import SequenceSource

NETWORK, LINEAR, PERSISTENCE, SEASONAL = "network", "linear autoregression", "persistence", "seasonal naive"
RIDGE = 0.01  # many parts have few windows, where plain least squares would be no fair baseline
FEW_SERIES = 10
TOLERANCE = 0.2  # standard deviations within which a goal counts as reached, where that is more than two resolutions
MOST_COLUMNS = 6
MOST_TRAINING = 20_000  # windows that the linear baseline is fitted on


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of one value dimension without a goal, what happened, and what errors are over.

    `paths`: point forecasts (B, H) by name; `samples` (S, B, H): the network's rollouts with value noise; `truth`
    (B, H), NaN where not observed; `name`: the dimension with its unit; `clusters` (B): what errors are over.
    """

    network: ForecastNetwork
    batch: Batch
    dimension: int
    name: str
    truth: Tensor
    paths: dict[str, Tensor]
    samples: Tensor
    clusters: list[str]
    seed: int
    batch_size: int

    def by_step(self, scores: np.ndarray, minus: np.ndarray | None = None) -> dict[str, Estimate]:
        """Mean scores (B, H) by horizon step and over all steps, or paired differences from other scores."""

        parts = [
            {f"step {h + 1}": part[:, h] for h in horizon_columns(part.shape[1])} | {"all steps": _row_mean(part)}
            for part in (scores, minus)
            if part is not None
        ]
        if minus is None:
            return {name: cluster_mean(column, self.clusters) for name, column in parts[0].items()}
        return {name: cluster_difference(column, parts[1][name], self.clusters) for name, column in parts[0].items()}


def evaluate_forecasts(
    network: ForecastNetwork,
    data: SequenceSource,
    split: str = "test",
    samples: int = 64,
    seed: int = 0,
    quick: bool = False,
    max_windows: int = 1500,
    batch_size: int = 256,
) -> Report:
    """Score a network on the windows of a split ("test" or "val"); the same arguments give the same numbers.

    The stages of `data` are set up here. Scores are of the dimension `data.goal_dim`, in data units, on at most
    `max_windows` windows, evenly picked. `quick` shrinks windows and rollouts to a few seconds' work: a smoke
    test, not a result.

    Raises ValueError for another split, for fewer than 2 samples, and for windows of different context lengths.
    """
    if split not in ("val", "test") or samples < 2:
        raise ValueError(
            f"evaluate_forecasts was given split {split!r} and {samples} samples; expected 'val' or 'test', and at "
            "least 2"
        )
    if quick:
        max_windows, samples = min(max_windows, 64), min(samples, 16)
    for stage in ("fit", "test"):
        data.setup(stage)
    found = data.windows(split)
    scored = [found[i] for i in pick_evenly(len(found), max_windows)]
    forecasts = _forecast(network, data, scored, samples, seed, batch_size)
    tolerance = tolerance_of(data, forecasts.dimension)
    tables = [*_errors(forecasts), _spread(forecasts), *_goals(forecasts, data, split, scored, samples, tolerance)]
    context, horizon = int(forecasts.batch.context[0]), forecasts.truth.shape[1]
    series, part = len(set(forecasts.batch.series)), "validation" if split == "val" else "test"
    settings = {"split": split, "samples": samples, "seed": seed, "quick": quick, "context": context}
    settings |= {"horizon": horizon, "tolerance": tolerance, "windows": len(scored), "series": series}
    over = "series" if series >= FEW_SERIES else "stretches of time as long as the horizon, counted as series"
    intro = (
        f"The {part} part, {context} steps of context and {horizon} of horizon, {samples} rollouts. ± is one standard "
        f"error over {len(set(forecasts.clusters))} {over}; {TOO_FEW}."
    )
    if quick:
        intro += " **Shrunk for a quick look, not a result.**"
    name = type(data).__name__
    return Report(f"{name.lower()}_{split}", f"{name}, {part} part", intro, settings, tables, [])


def _forecast(
    network: ForecastNetwork,
    data: SequenceSource,
    windows: Sequence[Record],
    samples: int,
    seed: int,
    batch_size: int,
) -> Forecasts:
    """Forecasts of the windows by the network and by every baseline that the data allows."""
    y, batch = data.goal_dim, collate(windows)
    recent = recent_spread(network, batch, data)
    rollouts = imagine(network, batch, None, samples, seed_of(seed, "no goal"), batch_size, recent=recent)
    training = data.windows("train")
    linear = LinearAutoregression(RIDGE).fit([training[i] for i in pick_evenly(len(training), MOST_TRAINING)])
    paths = {
        NETWORK: rollouts.mean[..., y].mean(0),
        LINEAR: linear.predict(batch)[..., y],
        PERSISTENCE: persistence(batch)[..., y],
    }
    if data.season_steps:
        season = _a_season_before(data, windows, batch)[..., y]
        paths |= {} if season.isnan().all() else {SEASONAL: season}
    unit = data.value_units[y]
    return Forecasts(
        network,
        batch,
        y,
        f"{data.value_names[y]}{' in ' + unit if unit else ''}",
        horizon_truth(batch)[..., y],
        paths,
        rollouts.sample[..., y],
        stretches(batch),
        seed,
        batch_size,
    )


def _a_season_before(data: SequenceSource, windows: Sequence[Record], batch: Batch) -> Tensor:
    """The values (B, H, Y) one season before the horizons of windows, whose batch is given."""
    if hasattr(data, "a_season_before"):  # of all rows, where they are more than those of windows
        return data.a_season_before(windows)
    assert data.season_steps
    known = [window for part in ("train", "val", "test") for window in data.windows(part)]
    return seasonal_naive(known, batch, data.season_steps)


def horizon_columns(horizon: int) -> list[int]:
    """The horizon steps, from 0, that a table shows: all of a short horizon, else six with the first and the last."""
    return pick_evenly(horizon, MOST_COLUMNS)


def stretches(batch: Batch) -> list[str]:
    """What errors are over, for each window: its series, or where series are few its series and stretch of time.

    A stretch has H steps, because windows of one series that start less than H steps apart share steps of their
    horizons.
    """
    if len(set(batch.series)) >= FEW_SERIES:
        return list(batch.series)
    horizon = batch.value.shape[1] - int(batch.context[0])
    names = []
    for row, series in enumerate(batch.series):
        length = float((batch.time[row, horizon] - batch.time[row, 0]).clamp(min=1e-9))
        names.append(f"{series} {int(batch.time[row, 0] / length)}")
    return names


def _errors(forecasts: Forecasts) -> list[Table]:
    """Mean absolute and root mean square errors of every forecast, by horizon step and over all."""
    errors = {name: (path - forecasts.truth).abs().numpy() for name, path in forecasts.paths.items()}
    absolute = {name: forecasts.by_step(error) for name, error in errors.items()}
    for other in (LINEAR, PERSISTENCE, SEASONAL):
        if other in errors:
            absolute[f"network − {other}"] = forecasts.by_step(errors[NETWORK], errors[other])
    square = {
        name: {column: _root(mean) for column, mean in forecasts.by_step(error**2).items()}
        for name, error in errors.items()
    }
    digits = digits_for(float(np.nanmean(_row_mean(errors[PERSISTENCE]))), most=6)
    of = forecasts.name
    return [
        Table("forecast", f"Without a goal: mean absolute error of {of}", "", absolute, digits=digits),
        Table("forecast_rmse", f"Without a goal: root mean square error of {of}", "", square, digits=digits),
    ]


def _spread(forecasts: Forecasts) -> Table:
    """CRPS and coverage of the rollouts with value noise, by horizon step."""
    samples, truth = forecasts.samples, forecasts.truth
    covered = interval_covers(samples, truth, 0.8).float().masked_fill(truth.isnan(), torch.nan).numpy()
    crps, coverage = fair_crps(samples, truth).numpy(), "coverage of 80 % intervals"
    covers = forecasts.by_step(covered)
    rows = {name: {"CRPS": score, coverage: covers[name]} for name, score in forecasts.by_step(crps).items()}
    digits = digits_for(float(np.nanmean(crps)), most=6)
    title = "Without a goal: rollouts with value noise"
    return Table("intervals", title, "", rows, digits=digits, units={coverage: "%"})


def _goals(
    forecasts: Forecasts, data: SequenceSource, split: str, scored: Sequence[Record], samples: int, tolerance: float
) -> list[Table]:
    """Hits of goals that came true, by kind of goal; no table where no window has a goal with known bounds."""
    kinds = KINDS if data.goal_writer is not None else {"combinations": "own goals"}
    index = {window_key(record): row for row, record in enumerate(scored)}
    y, rows = forecasts.dimension, {}
    for kind, words in kinds.items():
        found = [r for r in data.windows_evaluation(split, kind) if window_key(r) in index]
        if records := [r for r in found if np.isfinite(r.goal_low[y])]:
            windows = [index[window_key(record)] for record in records]
            seed = seed_of(forecasts.seed, kind)
            rows[f"came true, {words}"] = _hits(forecasts, collate(records), windows, samples, seed, tolerance)
    if not rows:
        return []
    unit = data.value_units[y]
    note = (
        f"Share of windows whose mean of {samples} rollouts (whose forecast) lies within {tolerance:.3g}"
        f"{' ' + shown.markdown(unit) if unit else ''} of the goal's range at the goal's step."
    )
    return [Table("goals", "With a goal: hits", note, rows, unit="%")]


def _hits(
    forecasts: Forecasts, batch: Batch, rows: list[int], samples: int, seed: int, tolerance: float
) -> dict[str, Estimate]:
    """Hits of the steered network and of all forecasts; `rows` are the windows of `batch` among the forecasts."""
    y, step = forecasts.dimension, batch.goal_step - batch.context
    steered = imagine(forecasts.network, batch, batch.goal, samples, seed, forecasts.batch_size).mean[..., y].mean(0)
    paths = {"steered": steered, "unsteered": forecasts.paths[NETWORK][rows]}
    paths |= {name: path[rows] for name, path in forecasts.paths.items() if name != NETWORK}
    low, high = batch.goal_low[:, y : y + 1], batch.goal_high[:, y : y + 1]
    assert speaks(low, high).all()
    hits = {name: goal_hits(at_step(path[..., None], step), low, high, tolerance) for name, path in paths.items()}
    clusters = stretches(batch)
    return {name: cluster_mean(hit.float().numpy(), clusters) for name, hit in hits.items()}


def tolerance_of(data: SequenceSource, dimension: int) -> float:
    """Two resolutions of a value, at least a share of the training values' standard deviation, as in validation."""
    spread = data.scaler.std[dimension].item()
    return max(2 * float(data.value_resolution[dimension]), TOLERANCE * spread)


def _row_mean(scores: np.ndarray) -> np.ndarray:
    """Mean over the horizon of (B, H), NaN where nothing was observed."""
    seen = ~np.isnan(scores)
    return np.where(seen, scores, 0).sum(1) / np.where(seen.any(1), seen.sum(1), np.nan)


def _root(square: Estimate) -> Estimate:
    """The square root of an estimated mean square, its error by the delta method."""
    value = max(square.value, 0.0) ** 0.5
    error = square.error / (2 * value) if value > 0 else square.error
    low, high = (max(bound, 0.0) ** 0.5 for bound in (square.low, square.high))
    return Estimate(value, error, low, high, square.windows, square.series)
