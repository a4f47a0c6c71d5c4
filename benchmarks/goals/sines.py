"""Sines, whose best forecasts are known: how near a network comes to them, without a goal and with one in words.

    python train.py fit --data datamodules.Sines --run sines0
    python -m benchmarks.goals.sines runs/sines0 [runs/sines1 ...]        # a minute on a core

Mean absolute errors on test windows of the mean path, over the horizon and at the goal's step. The best possible path
without a goal knows the phase and what the text announces; with a goal it knows the drift as well, and what is left is
the noise of the value. `best of what was understood` knows the phase and the text, and that the condition holds which
the goal was read as: its path is the median of the drifts and noises that satisfy it. Goals stand in forms that
training leaves out, or `--goals combinations` of forms and numbers that it leaves out. A sentence that says "within" or
"over" names no step, though its goal is about the last one; so goals whose words name their step, or none, are shown by
themselves, too.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.goals.followed import KINDS, LOOSE
from benchmarks.goals.follower import Follower
from benchmarks.quality.report import table
from datamodules import Sines
from datamodules.sines import DRIFT
from gssr.backbone.cpu import prepare_cpu
from gssr.runs.folders import BEST, find_checkpoint
from gssr.runs.trained import load_trained
from gssr.runs.twists import training_data, twist_of
from gssr.sequences.collate import collate
from gssr.sequences.conditions import Condition
from gssr.sequences.record import Record
from gssr.sequences.vocabulary import Vocabulary

ROLLOUTS, DRAWN = 256, 65_536
METHODS = ("pull", "conditioned", "exact bounds")
ALL, NAMED = "with a goal", "with a goal whose words name its step"


def errors(run: Path, kind: str, windows: int, budget: int) -> dict[str, tuple[float, float]]:
    """By what is forecast: mean absolute errors over the horizon and at the goal's step."""
    checkpoint = str(run / "checkpoints" / f"{BEST}.ckpt")
    network, _ = load_trained(checkpoint)
    data = training_data(run)
    if not isinstance(data, Sines):
        raise SystemExit("the best possible forecasts are known for a run on datamodules.Sines alone")
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    every = [data.windows("test")[i] for i in range(len(data.windows("test")))]
    means = []
    for first in range(0, len(every), 64):
        batch = collate(every[first : first + 64])
        drawn = network.rollout(batch, [None] * len(batch), ROLLOUTS, calibrated=False)
        means.append(drawn.mean.mean(0)[..., 0])
    for record, mean in zip(every, torch.cat(means).numpy(), strict=True):
        truth = record.value[record.goal_start + 1 :, 0]
        found["without a goal: network"].append(abs(mean - truth))
        found["without a goal: best possible"].append(abs(data.expected(record) - truth))
    words = Vocabulary.of(data.value_names, data.value_units, data.goal_writer, data.goal_dim)
    follower = Follower(network, twist_of(network, find_checkpoint(checkpoint, None)), words, budget)
    goals, generator = data.windows_evaluation("test", kind), np.random.default_rng(0)
    for i in tqdm(range(min(windows, len(goals))), leave=False):
        record = goals[i * len(goals) // min(windows, len(goals))]
        truth = record.value[record.goal_start + 1 :, 0]
        followed = follower(record, METHODS)
        paths = {name: ensemble.mean[:, 0].numpy() for name, ensemble in followed.ensembles.items()}
        paths["best of what was understood"] = understood(data, record, followed.read.condition, generator)
        paths["best possible"] = data.expected(record, knows_goal=True)
        for group in (ALL, *([] if LOOSE.search(record.goal or "") else [NAMED])):
            for name, path in paths.items():
                found[f"{group}: {name}"].append(abs(path - truth))
    return {
        name: (float(np.mean(parts)), float(np.mean([part[-1] for part in parts]))) for name, parts in found.items()
    }


def understood(data: Sines, record: Record, text: str | None, generator: np.random.Generator) -> np.ndarray:
    """The best path (H) for one who knows phase and announcement, and that a condition holds."""
    free, steps = data.expected(record), len(record.value) - record.goal_start - 1
    drift = generator.uniform(-DRIFT, DRIFT, (DRAWN, 1)) * np.arange(1, steps + 1) / steps
    paths = free + drift + data.noise * generator.standard_normal((DRAWN, steps))
    if text is None:
        return free
    try:
        event = Condition(text, data.value_names, data.value_units).over(record.time[record.goal_start :])
    except ValueError:  # a time that is no step
        return free
    last = torch.from_numpy(record.value[record.goal_start])
    holds = event(torch.from_numpy(paths[..., None]).float(), last.float()).numpy()
    return np.median(paths[holds], 0) if holds.any() else free


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="run", help="folders of runs on sines")
    parser.add_argument("--goals", choices=KINDS, default="forms", help="what training leaves out; default forms")
    parser.add_argument("--windows", type=int, default=64, help="windows with a goal; default 64")
    parser.add_argument("--budget", type=int, default=8192)
    options = parser.parse_args()
    prepare_cpu()
    runs = [errors(run, options.goals, options.windows, options.budget) for run in options.runs]
    lines = []
    for name in runs[0]:
        best = f"{name.split(':')[0]}: best possible"
        cells = {"paths": name}
        for place, what in enumerate(("over the horizon", "at the goal's step")):
            each = [run[name][place] for run in runs]
            ratio = np.mean([run[name][place] / run[best][place] for run in runs])
            cells[what] = f"{np.mean(each):.2f}" + (f" ± {np.std(each):.2f}" if len(runs) > 1 else "")
            cells[f"times the best {what}"] = f"{ratio:.2f}"
        lines.append(cells)
    print("\n".join(table(lines)))


if __name__ == "__main__":
    main()
