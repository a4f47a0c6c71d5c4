"""The report on any data module: forecasts without a goal by horizon beside their baselines, and goals that came true.

    report = evaluate_forecasts(network, datamodule)      # test part; split="val" while choosing
    print(report.to_markdown()); report.write(run_folder)

Errors are a bootstrap over series, or over stretches of time where there are few series.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gssr.evaluation.baselines import LinearAutoregression, horizon_truth, persistence, seasonal_naive
from gssr.evaluation.bootstrap import Estimate, cluster_difference, cluster_mean
from gssr.evaluation.imagining import imagine, pick_evenly, seed_of, window_key
from gssr.evaluation.report import Report, Table
from gssr.metrics import at_step, fair_crps, goal_hits, interval_covers, speaks
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record

NETWORK, LINEAR, PERSISTENCE, SEASONAL = "network", "linear autoregression", "persistence", "seasonal naive"
KINDS = {
    "combinations": "combinations not trained on",
    "numbers": "numbers not trained on",
    "forms": "sentence forms never seen",
}
RIDGE = 0.01  # parts of few windows are common here, and plain least squares would be no fair baseline there
FEW_SERIES = 10
TOLERANCE = 0.2  # standard deviations within which a goal counts as reached, where that is more than two resolutions
MOST_COLUMNS = 6


def evaluate_forecasts(
    network: Any,
    datamodule: Any,
    split: str = "test",
    samples: int = 64,
    seed: int = 0,
    quick: bool = False,
    max_windows: int = 1500,
    batch_size: int = 256,
) -> Report:
    """Score a network on the windows of a split ("test" or "val"); the same arguments give the same numbers.

    `network` has `rollout` (see `imagining.Imagines`), `datamodule` is a `datamodules.SequenceData`; its stages are set up
    here. Scores are of the dimension `goal_dim`, in data units. At most `max_windows` windows, evenly picked. `quick`
    shrinks windows, rollouts and bootstrap draws to a few seconds' work: a smoke test, not a result.

    Raises ValueError for another split, for fewer than 2 samples, and for windows of different context lengths.
    """
    if split not in ("val", "test") or samples < 2:
        raise ValueError(
            f"evaluate_forecasts was given split {split!r} and {samples} samples; expected 'val' or 'test', and at least 2"
        )
    if quick:
        max_windows, samples = min(max_windows, 64), min(samples, 16)
    for stage in ("fit", "test"):
        datamodule.setup(stage)
    windows = {part: _plain(getattr(datamodule, f"{part}_records")) for part in ("train", "val", "test")}
    scored = [windows[split][i] for i in pick_evenly(len(windows[split]), max_windows)]
    training = [windows["train"][i] for i in pick_evenly(len(windows["train"]), 20_000)]
    y = getattr(datamodule, "goal_dim", 0)
    batch = collate(scored)
    truth = horizon_truth(batch)[..., y]
    rollouts = imagine(network, batch, None, samples, seed_of(seed, "no goal"), batch_size)
    steps = horizon_columns(truth.shape[1])
    clusters = stretches(batch)
    bootstrap = {"draws": 200 if quick else 2000, "seed": seed}
    linear = LinearAutoregression(RIDGE).fit(training)
    paths = {
        NETWORK: rollouts.mean[..., y].mean(0),
        LINEAR: linear.predict(batch)[..., y],
        PERSISTENCE: persistence(batch)[..., y],
    }
    period = getattr(datamodule, "season_steps", None)
    if period:
        every = [window for part in windows.values() for window in part]
        paths[SEASONAL] = seasonal_naive(every, batch, period)[..., y]
    unit = datamodule.value_units[y]
    of = f"{datamodule.value_names[y]}{' in ' + unit if unit else ''}"
    tables = [
        *_errors(paths, truth, steps, clusters, bootstrap, of),
        _spread(rollouts.sample[..., y], truth, steps, clusters, bootstrap),
    ]
    index = {window_key(record): row for row, record in enumerate(scored)}
    tolerance = tolerance_of(datamodule, training, y)
    goals = {}
    for kind, words in (
        KINDS.items() if getattr(datamodule, "goal_writer", None) else {"combinations": "own goals"}.items()
    ):
        records = [r for r in datamodule.windows_evaluation(split, kind) if window_key(r) in index]
        row = _hits(network, records, index, paths, tolerance, samples, seed_of(seed, kind), batch_size, bootstrap, y)
        if row is not None:
            goals[f"came true, {words}"] = row
    if goals:
        note = (
            f"Share of windows whose mean of {samples} rollouts (whose forecast) lies within {tolerance:.3g}"
            f"{' ' + unit if unit else ''} of the goal's range at the goal's step."
        )
        tables.append(Table("goals", "With a goal: hits", note, goals, unit="%"))
    context, part = int(batch.context[0]), "validation" if split == "val" else "test"
    settings = {
        "split": split,
        "samples": samples,
        "seed": seed,
        "quick": quick,
        "context": context,
        "horizon": truth.shape[1],
        "tolerance": tolerance,
        "windows": len(scored),
        "series": len(set(batch.series)),
    }
    over = (
        "series"
        if len(set(batch.series)) >= FEW_SERIES
        else "stretches of time as long as the horizon, counted as series"
    )
    intro = (
        f"The {part} part, {context} steps of context and {truth.shape[1]} of horizon, {samples} rollouts. ± is one standard "
        f"error by bootstrap over {over}."
    )
    if quick:
        intro += " **Shrunk for a quick look, not a result.**"
    name = type(datamodule).__name__
    return Report(f"{name.lower()}_{split}", f"{name}, {part} part", intro, settings, tables, [])


def horizon_columns(horizon: int) -> list[int]:
    """The horizon steps, from 0, that a table shows: all of a short horizon, else some with the first and the last."""
    return pick_evenly(horizon, MOST_COLUMNS)


def stretches(batch: Batch) -> list[str]:
    """What each window is drawn with: its series, or, where these are few, its series and the stretch of H steps it starts in.

    Windows of one series that start less than H steps apart share steps of their horizons.
    """
    if len(set(batch.series)) >= FEW_SERIES:
        return list(batch.series)
    horizon = batch.value.shape[1] - int(batch.context[0])
    names = []
    for row, series in enumerate(batch.series):
        length = float((batch.time[row, horizon] - batch.time[row, 0]).clamp(min=1e-9))
        names.append(f"{series} {int(batch.time[row, 0] / length)}")
    return names


def _plain(dataset: Any) -> Sequence[Record]:
    """The windows without writing goals, where a data set can do so; of a table on disk they are read as they are picked."""
    return getattr(dataset, "records", dataset)


def _errors(
    paths: dict[str, Tensor],
    truth: Tensor,
    steps: Sequence[int],
    clusters: Sequence[str],
    bootstrap: dict[str, int],
    of: str,
) -> list[Table]:
    """Mean absolute and root mean square errors of every forecast, by horizon step and over all."""
    errors = {name: (path - truth).abs().numpy() for name, path in paths.items()}
    score = partial(cluster_mean, clusters=clusters, **bootstrap)
    whole = {name: _row_mean(error) for name, error in errors.items()}
    absolute = {
        name: {f"step {h + 1}": score(error[:, h]) for h in steps} | {"all steps": score(whole[name])}
        for name, error in errors.items()
    }
    for other in (LINEAR, PERSISTENCE, SEASONAL):
        if other in errors:
            absolute[f"network − {other}"] = {
                f"step {h + 1}": cluster_difference(errors[NETWORK][:, h], errors[other][:, h], clusters, **bootstrap)
                for h in steps
            } | {"all steps": cluster_difference(whole[NETWORK], whole[other], clusters, **bootstrap)}
    square = {
        name: {f"step {h + 1}": _root(score(error[:, h] ** 2)) for h in steps}
        | {"all steps": _root(score(_row_mean(error**2)))}
        for name, error in errors.items()
    }
    digits = _digits(np.nanmean(whole[PERSISTENCE]))
    return [
        Table("forecast", f"Without a goal: mean absolute error of {of}", "", absolute, digits=digits),
        Table("forecast_rmse", f"Without a goal: root mean square error of {of}", "", square, digits=digits),
    ]


def _spread(
    samples: Tensor, truth: Tensor, steps: Sequence[int], clusters: Sequence[str], bootstrap: dict[str, int]
) -> Table:
    """CRPS and coverage of the rollouts with value noise, by horizon step."""
    covered = interval_covers(samples, truth, 0.8).float().masked_fill(truth.isnan(), torch.nan).numpy()
    crps = fair_crps(samples, truth).numpy()
    score = partial(cluster_mean, clusters=clusters, **bootstrap)
    columns = {f"step {h + 1}": (crps[:, h], covered[:, h]) for h in steps}
    columns["all steps"] = _row_mean(crps), _row_mean(covered)
    rows = {name: {"CRPS": score(a), "coverage of 80 % intervals": score(b)} for name, (a, b) in columns.items()}
    return Table(
        "intervals",
        "Without a goal: rollouts with value noise",
        "",
        rows,
        digits=_digits(np.nanmean(crps)),
        units={"coverage of 80 % intervals": "%"},
    )


def _hits(
    network: Any,
    records: Sequence[Record],
    index: dict[tuple[str, float], int],
    paths: dict[str, Tensor],
    tolerance: float,
    samples: int,
    seed: int,
    batch_size: int,
    bootstrap: dict[str, int],
    y: int,
) -> dict[str, Estimate] | None:
    """Hits of goals that came true, steered and not; None where no window has a goal with known bounds."""
    records = [r for r in records if r.goal is not None and np.isfinite(r.goal_low[y])]
    if not records:
        return None
    batch = collate(records)
    rows = [index[window_key(record)] for record in records]
    step = batch.goal_step - batch.context
    steered = imagine(network, batch, batch.goal, samples, seed, batch_size).mean[..., y].mean(0)
    forecasts = {"steered": steered, "unsteered": paths[NETWORK][rows]}
    forecasts |= {name: path[rows] for name, path in paths.items() if name != NETWORK}
    low, high = batch.goal_low[:, y : y + 1], batch.goal_high[:, y : y + 1]
    assert speaks(low, high).all()
    clusters = stretches(batch)
    return {
        name: cluster_mean(
            goal_hits(at_step(path[..., None], step), low, high, tolerance).float().numpy(), clusters, **bootstrap
        )
        for name, path in forecasts.items()
    }


def tolerance_of(datamodule: Any, training: Sequence[Record], y: int) -> float:
    """Two resolutions of the value, at least a share of the training values' standard deviation, as in validation."""
    scaler = getattr(datamodule, "scaler", None)
    spread = scaler.std[y].item() if scaler is not None else np.nanstd([r.value[:, y] for r in training])
    return max(2 * float(datamodule.value_resolution[y]), TOLERANCE * float(spread))


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


def _digits(size: float) -> int:
    """Digits behind the point that show three figures of a number of this size."""
    return int(np.clip(2 - np.floor(np.log10(size)), 0, 6)) if np.isfinite(size) and size > 0 else 2
