"""How good chances of events are: of the network, recalibrated, of a logistic regression, and how often they come true.

    python -m benchmarks.goals.events runs/storms-20250131-142501            # two minutes on a core
    python -m benchmarks.goals.events RUN --event "wind +10 within 12h"      # events of your own

Windows of the test part, 256 rollouts each. The regression is fitted to each event on windows of the training part: the
last values, their changes over one, two and four steps, and their squares. Skill is 1 - Brier score / that of the
event's share in the training part, over all windows; its difference has a 95 % interval over series. The calibration
error is the mean distance of chance and share over ten bins of chances, weighted by their windows. Beside it stands
that of right chances, drawn with one number for all windows of a series that start in one horizon's length of time:
they see much of the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.quality.report import table
from gssr.backbone.cpu import prepare_cpu
from gssr.evaluation.imagining import pick_evenly
from gssr.evaluation.intervals import cluster_mean
from gssr.network import GoalNetwork
from gssr.runs.folders import find_checkpoint
from gssr.runs.trained import load_trained
from gssr.runs.twists import training_data
from gssr.search.beliefs import recalibrate
from gssr.search.beliefs.rejection import alone, came_true, event_of, last_values
from gssr.sequences.collate import collate
from gssr.sequences.conditions import Condition
from gssr.sequences.record import Record

EVENTS = (
    *("wind +20 within 24h", "wind +30 within 24h", "wind >= 64 within 48h", "wind >= 96 within 48h"),
    *("wind < 35 within 48h", "pressure <= 960 within 48h"),
)
ROLLOUTS, TOGETHER, TRAINING, BINS, LAGS = 256, 32, 4000, 10, (1, 2, 4)
TRIALS = 200


def features(record: Record) -> np.ndarray:
    """What the regression sees of a window's context: last values, changes, squares; 0 where one is missing."""
    seen = record.value[: record.goal_start + 1]
    changes = [seen[-1] - seen[max(0, len(seen) - 1 - lag)] for lag in LAGS]
    flat = np.concatenate([seen[-1], *changes])
    return np.nan_to_num(np.concatenate([flat, flat**2]))


def truths(windows: Sequence[Record], events: Sequence[Condition]) -> np.ndarray:
    """Whether each event came true behind each window (N, events): 1, 0, or NaN where nothing tells."""
    found = np.full((len(windows), len(events)), np.nan)
    for row, record in enumerate(windows):
        one = collate([record])
        path, last = torch.from_numpy(record.value[record.goal_start + 1 :])[None], last_values(one)
        for column, event in enumerate(events):
            try:
                came = came_true(event_of(event, one), path, last)
            except ValueError:  # a window that is too short for the event
                continue
            found[row, column] = np.nan if came is None else came
    return found


@torch.no_grad()
def chances(network: GoalNetwork, windows: Sequence[Record], events: Sequence[Condition], seed: int) -> np.ndarray:
    """The share of rollouts in which each event holds behind each window, (N, events), NaN for one too short."""
    generator, found = torch.Generator().manual_seed(seed), np.full((len(windows), len(events)), np.nan)
    for start in range(0, len(windows), TOGETHER):
        batch = collate(windows[start : start + TOGETHER])
        drawn = network.rollout(batch, [None] * len(batch), ROLLOUTS, generator, calibrated=False).sample.cpu()
        for row in range(len(batch)):
            one = alone(batch, row)
            steps, last = one.value.shape[1] - int(one.context[0]), last_values(one)
            for column, event in enumerate(events):
                try:
                    held = event_of(event, one)(drawn[:, row, :steps], last)
                except ValueError:
                    continue
                found[start + row, column] = held.float().mean()
    return found


def calibration_error(chance: np.ndarray, true: np.ndarray) -> float:
    places = np.minimum((chance * BINS).astype(int), BINS - 1)
    sums = [abs((chance - true)[places == place].sum()) for place in range(BINS)]
    return float(sum(sums) / len(chance))


def places(windows: Sequence[Record]) -> np.ndarray:
    """Numbers (N) that windows share which see much of the same."""
    found: dict[tuple[str, int], int] = {}
    keys = []
    for record in windows:
        length = float(record.time[-1] - record.time[record.goal_start])
        keys.append(found.setdefault((record.series, int(record.time[0] // length)), len(found)))
    return np.array(keys)


def error_of_right_chances(chance: np.ndarray, place: np.ndarray, seed: int = 0) -> float:
    """The mean calibration error of chances (N) that are right, where windows of a place come true together."""
    generator, most = np.random.default_rng(seed), int(place.max()) + 1
    drawn = generator.random((TRIALS, most))[:, place] < chance
    return float(np.mean([calibration_error(chance, true.astype(float)) for true in drawn]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run")
    parser.add_argument("--ckpt_path", default="best")
    parser.add_argument("--event", action="append", help="an event; default six of storms")
    parser.add_argument("--windows", type=int, default=1500, help="of the test part; default 1500")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from sklearn.linear_model import LogisticRegression  # of the extra bench
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    prepare_cpu()
    network, _ = load_trained(options.ckpt_path, options.run)
    run = find_checkpoint(options.ckpt_path, options.run).run
    assert run is not None
    data = training_data(run)
    events = [Condition(e, network.value_names, network.value_units) for e in options.event or EVENTS]
    every = {part: data.windows(part) for part in ("train", "val", "test")}
    train = [every["train"][i] for i in pick_evenly(len(every["train"]), TRAINING)]
    test = [every["test"][i] for i in pick_evenly(len(every["test"]), options.windows)]
    corrections = recalibrate(network, every["val"], events, options.seed)
    own, known = chances(network, test, events, options.seed), truths(test, events)
    learned, seen = truths(train, events), np.stack([features(record) for record in train])
    place = places(test)
    asked, series = np.stack([features(record) for record in test]), np.array([record.series for record in test])
    rows, skills, calibration = [], [], []
    for column, event in enumerate(events):
        there, taught = ~np.isnan(known[:, column] + own[:, column]), ~np.isnan(learned[:, column])
        true, usual = known[there, column], learned[taught, column].mean()
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(seen[taught], learned[taught, column].astype(int))
        given = {
            "network": own[there, column],
            "recalibrated": np.array([corrections[column](p) for p in own[there, column].clip(1e-3, 1 - 1e-3)]),
            "regression": model.predict_proba(asked[there])[:, 1],
        }
        climatology = (usual - true) ** 2
        skill = {name: 1 - ((p - true) ** 2).mean() / climatology.mean() for name, p in given.items()}
        more = ((given["regression"] - true) ** 2 - (given["recalibrated"] - true) ** 2) / climatology.mean()
        gain = cluster_mean(more, series[there])
        errors = [calibration_error(given[name], true) for name in ("network", "recalibrated")]
        errors.append(error_of_right_chances(given["recalibrated"], place[there]))
        calibration.append(errors)
        skills.append([skill[name] for name in given])
        rows.append(
            [event.text, f"{len(true)}", f"{true.mean():.3f}", *(f"{skill[name]:.3f}" for name in given)]
            + [f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})", *(f"{error:.3f}" for error in errors)]
        )
    mean = np.mean(skills, 0)
    errors = [f"{each:.3f}" for each in np.mean(calibration, 0)]
    rows.append(["mean", "", "", *(f"{each:.3f}" for each in mean), f"{mean[1] - mean[2]:+.3f}", *errors])
    names = ["event", "windows", "came true", "skill: network", "recalibrated", "regression"]
    names += ["recalibrated − regression", "calibration error: network", "of the recalibrated", "of right chances"]
    print("\n".join(table([dict(zip(names, row, strict=True)) for row in rows])))


if __name__ == "__main__":
    main()
