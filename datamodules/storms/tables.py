"""The tables of the report on storms, each a function of an `Evaluation`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from datamodules.storms.evaluation import Evaluation, Steered
from datamodules.storms.plan_texts import clear_cases, plan_agreement, turned_to_goal, write_plans
from gssr.evaluation.baselines import horizon_truth, straight_line
from gssr.evaluation.belief import latent_health, text_evidence
from gssr.evaluation.imagining import pick_evenly
from gssr.evaluation.intervals import cluster_difference, cluster_mean, cluster_ratio
from gssr.evaluation.report import Cell, Table
from gssr.metrics import at_step, changes_beyond, fair_crps, goal_hits, interval_covers
from gssr.sequences.record import Batch

Rows = dict[str, dict[str, Cell]]

NETWORK, LINEAR = "network, unsteered (mean of rollouts)", "linear autoregression"
USED = "latent dimensions above 0.02 nats (validation)"
PERMUTED = "value error with x permuted, times its own (validation)"
PLAN_TEXTS, PLAN_SHUFFLED = "plan texts", "the same texts, shuffled between plans"
TURNED, UNTURNED = "borrowed goals of another class", "the same windows, without the goal"
TURNED_TRULY = "what was written of the storms themselves, under their own goals of another class"
CLEAR, CLEAR_TRULY = (
    "borrowed goals of clearly another class",
    "the storms' own texts, where their own goals clearly are",
)
STRONG = (1.6, 2.4)  # times the gain: 2 and 3 times that of training, where the network has its usual strength of 1.25
GAINED = "text: nats a token gained over another storm's belief"
GAINED_BY_ALL = "text: nats a token gained over another storm's belief, values and row"


def forecasts(evaluation: Evaluation) -> Table:
    """Mean absolute error without a goal, by hour, of the network and of what it must beat."""
    rows, y = evaluation.plain, evaluation.dimension
    truth = horizon_truth(evaluation.batch)[rows][..., y]
    mean = evaluation.unsteered.mean[:, rows][..., y]
    paths = {
        NETWORK: mean.mean(0),
        "network, unsteered (median of rollouts)": mean.quantile(0.5, dim=0),
        LINEAR: evaluation.linear[rows][..., y],
        "persistence": evaluation.persistent[rows][..., y],
    }
    errors = {name: (path - truth).abs().numpy() for name, path in paths.items()}
    options = {"clusters": _series(evaluation, rows)}
    hours = evaluation.hours.items()
    cells: Rows = {
        name: {f"{hour} h": cluster_mean(error[:, step], **options) for hour, step in hours}
        for name, error in errors.items()
    }
    cells["network (mean) − linear autoregression"] = {
        f"{hour} h": cluster_difference(errors[NETWORK][:, step], errors[LINEAR][:, step], **options)
        for hour, step in hours
    }
    return Table(
        "forecast", f"Without a goal: mean absolute error of {evaluation.name} in {evaluation.unit}", "", cells
    )


def goals(evaluation: Evaluation, steered: dict[str, Steered]) -> list[Table]:
    """Hits of the mean of the rollouts beside the baselines', and hits of single rollouts."""
    of_means: Rows = {}
    of_singles: Rows = {}
    for name, row in steered.items():
        batch = row.batch
        unsteered = evaluation.unsteered.select(row.rows)
        means = {
            "steered": row.paths.mean.mean(0),
            "unsteered": unsteered.mean.mean(0),
            "linear autoregression": evaluation.linear[row.rows],
            "persistence": evaluation.persistent[row.rows],
            "straight line": straight_line(batch),
        }
        singles = {
            "steered": row.paths.mean,
            "unsteered": unsteered.mean,
            "steered, with value noise": row.paths.sample,
            "unsteered, with value noise": unsteered.sample,
        }
        for table, paths in ((of_means, means), (of_singles, singles)):
            table[name] = {key: _hits(path, batch, evaluation) for key, path in paths.items()}
    near = f"within {evaluation.tolerance:g} {evaluation.unit} of the goal's range at the goal's step"
    note = (
        f"Share of windows whose mean of {evaluation.samples} rollouts (whose forecast, whose line) lies {near}. "
        f"Borrowed: the goal of a window of another storm whose {evaluation.name} at the end of the context differs by "
        f"at most {evaluation.tolerance:g} {evaluation.unit}. The straight line knows the goal's number, so it "
        "always hits; a table below shows how plausible it is."
    )
    of_one = f"Share of single rollouts that lie {near}, decoded without value noise and with it."
    return [
        Table("goals", "With a goal: hits", note, of_means, unit="%"),
        Table("single_goals", "With a goal: hits of single rollouts", of_one, of_singles, unit="%"),
    ]


def plausibility(evaluation: Evaluation, steered: dict[str, Steered]) -> Table:
    """How often paths change faster than almost all training storms did, and how many times as often as the truth."""
    y = evaluation.dimension
    truth = horizon_truth(evaluation.batch)

    def share(path: Tensor, rows: list[int]) -> np.ndarray:
        start = evaluation.persistent[rows][:, 0, y : y + 1]
        beyond, judged = changes_beyond(path[..., y : y + 1], start, torch.tensor([evaluation.threshold]))
        return _per_window((beyond / judged).squeeze(-1))

    def scores(rows: list[int], paths: dict[str, Tensor]) -> dict[str, Cell]:
        options = {"clusters": _series(evaluation, rows)}
        own = share(truth[rows], rows)
        cells: dict[str, Cell] = {"truth": cluster_mean(own, **options)}
        for name, path in paths.items():
            shares = share(path, rows)
            cells[name] = cluster_mean(shares, **options)
            cells[f"{name} / truth"] = cluster_ratio(shares, own, **options)
        return cells

    plain = evaluation.plain
    cells: Rows = {"no goal": scores(plain, {"unsteered": evaluation.unsteered.mean[:, plain]})}
    for name, row in steered.items():
        unsteered = evaluation.unsteered.mean[:, row.rows]
        paths = {"unsteered": unsteered, "steered": row.paths.mean, "straight line": straight_line(row.batch)}
        cells[name] = scores(row.rows, paths)
    note = (
        "Share of one-step changes (the first from the last context value) of single rollouts, decoded without value "
        f"noise, of more than {evaluation.threshold:.3g} {evaluation.unit}, the training years' 99 % quantile; and how "
        "many times the truth's share on the same windows that is."
    )
    ratios = {f"{name} / truth": "" for name in ("unsteered", "steered", "straight line")}
    return Table("plausibility", "How plausible the paths are", note, cells, unit="%", units=ratios)


def intervals(evaluation: Evaluation) -> Table:
    """Whether the spread of the rollouts is honest: coverage of 80 % intervals, and the fair CRPS."""
    rows, y = evaluation.plain, evaluation.dimension
    truth = horizon_truth(evaluation.batch)[rows][..., y]
    samples = evaluation.unsteered.sample[:, rows][..., y]
    covered = interval_covers(samples, truth, 0.8).float().masked_fill(truth.isnan(), torch.nan).numpy()
    crps = fair_crps(samples, truth).numpy()
    score = partial(cluster_mean, clusters=_series(evaluation, rows))
    coverage = "coverage of 80 % intervals"
    cells: Rows = {
        f"{hour} h": {coverage: score(covered[:, step]), f"CRPS ({evaluation.unit})": score(crps[:, step])}
        for hour, step in evaluation.hours.items()
    }
    return Table("intervals", "Without a goal: rollouts with value noise", "", cells, units={coverage: "%"})


def belief(evaluation: Evaluation, validation: Batch, quick: bool) -> Table:
    """Whether the latent is used (on validation windows), and whether it informs the language model."""
    rows: Rows = {}
    health = latent_health(evaluation.network, validation, windows=64 if quick else 384, seed=evaluation.seed)
    rows[USED] = {"value": health.used}
    rows[PERMUTED] = {"value": health.permuted_ratio}
    rows["raw KL, nats (validation)"] = {"value": sum(health.kl_per_dim)}
    windows = evaluation.batch.select(evaluation.plain)
    text = text_evidence(
        evaluation.network,
        windows,
        steps=60 if quick else 600,
        batch_size=evaluation.batch_size,
        seed=evaluation.seed,
    )
    if text is not None:
        for name, gain in ((GAINED, text.gain), (GAINED_BY_ALL, text.gain_of_all)):
            interval = f"{gain.low:.3f} to {gain.high:.3f}" if np.isfinite(gain.low) else "too few storms"
            rows[name] = {"value": gain, "95 % interval": interval}
        rows["text: nats a token behind its own belief"] = {"value": text.own}
        rows["text: nats a token behind another storm's belief"] = {"value": text.other}
    note = (
        "Text t behind x drawn from the prior given values and texts before t, without a goal, against such an x of "
        "another storm at a step of the same status, both behind the text's own history, row and values; and against "
        "that storm's belief with its row and values. Here windows are steps."
    )
    return Table("belief", "What the belief holds and expresses", note, rows, digits=3)


def _series(evaluation: Evaluation, rows: list[int]) -> list[str]:
    return [evaluation.batch.series[row] for row in rows]


def _per_window(scores: Tensor) -> np.ndarray:
    """The score of each window from (B), or the mean over rollouts of (S, B)."""
    return (scores.mean(0) if scores.dim() == 2 else scores).numpy()


def _hits(path: Tensor, batch: Batch, evaluation: Evaluation) -> Cell:
    """Share of windows whose path lies within the tolerance of the goal's range at the goal's step."""
    reached = at_step(path, batch.goal_step - batch.context)
    hit = goal_hits(reached, batch.goal_low, batch.goal_high, evaluation.tolerance)
    return cluster_mean(_per_window(hit.float()), batch.series)


def _turned(texts: Sequence[Sequence[str]], batch: Batch, evaluation: Evaluation) -> dict[str, Cell]:
    ahead, now = (turned_to_goal(texts, batch, evaluation.dimension, f) for f in (False, True))
    return {"turns towards the goal": ahead, "ends towards it from now": now}


def _turned_clearly(evaluation: Evaluation, borrowed: Batch, windows: int) -> Rows:
    """The same for clear cases, by the strength of the goal's gain."""
    clear, rows = clear_cases(borrowed, evaluation.dimension), {}
    if not clear:
        return rows
    lent = borrowed.select([clear[i] for i in pick_evenly(len(clear), windows)])
    stronger = [(times, f", gain times {times}") for times in STRONG]
    for multiplier, words in ((1.0, ""), *stronger, (0.0, ", without the goal")):
        options = {"seed": evaluation.seed, "gain": multiplier}
        plans = write_plans(evaluation.network, lent, evaluation.dimension, True, **options)
        rows[CLEAR + words] = _turned(plans.texts, lent, evaluation)
    return rows


def plan_texts(evaluation: Evaluation, came_true: Batch, borrowed: Batch | None, quick: bool) -> Table:
    """Whether the texts of steered plans agree with the plans' own winds, and whether a goal turns the texts."""
    windows, dimension, rows = 16 if quick else 128, evaluation.dimension, {}
    own = came_true.select(pick_evenly(len(came_true), windows))
    plans = write_plans(evaluation.network, own, dimension, True, seed=evaluation.seed)
    for name, found in zip((PLAN_TEXTS, PLAN_SHUFFLED), plan_agreement(plans), strict=True):
        rows[name] = {
            "status of the wind's class": found.same,
            "or a neighbouring one": found.near,
            "rises or falls alike": found.direction,
            "texts with a status": found.judged,
        }
    first = int(came_true.goal_start[0]) + 1
    written = [[text or "" for text in row[first:]] for row in came_true.text]
    rows[TURNED_TRULY] = _turned(written, came_true, evaluation)
    if clear := clear_cases(came_true, dimension):
        rows[CLEAR_TRULY] = _turned([written[i] for i in clear], came_true.select(clear), evaluation)
    if borrowed is not None:
        lent = borrowed.select(pick_evenly(len(borrowed), 2 * windows))
        for name, steered in ((TURNED, True), (UNTURNED, False)):
            plans = write_plans(evaluation.network, lent, dimension, steered, seed=evaluation.seed)
            rows[name] = _turned(plans.texts, lent, evaluation)
        rows |= _turned_clearly(evaluation, borrowed, windows)
    note = (
        "Status that a step's text names, against the wind of the rollout it is written from, under goals that came "
        "true; and, under borrowed goals that ask for another class than the storm has now, whether the texts name a "
        "class nearer to it at the end than at the beginning, or than the storm's own class now: the first text of a "
        "plan is six hours ahead. Clearly another class: the wind now and the goal's are on different sides of a bound "
        "of classes, each 10 knots or more away from all of them."
    )
    return Table("plan_texts", "Plans in words", note, rows, unit="%")
