"""What typed goals bring: paths under goals that came true, and under those borrowed from other windows.

    python -m benchmarks.goals.followed runs/storms-20250131-142501              # some minutes on a core
    python -m benchmarks.goals.followed runs/storms-20250131-142501 --windows 8  # a smoke test
    python -m benchmarks.goals.followed runs/seed0 runs/seed1 runs/seed2         # with the spread over runs

Goals are sentences in forms that training leaves out (or `--goals combinations` of forms and numbers that it leaves
out), of windows of the test part; a borrowed one is that of the window
of another series (of another stretch of time where there is one series) with the nearest first value at the start. Each
is read (`gssr.understanding`) and followed:

    no goal         1,024 rollouts
    pull            1,024 rollouts, pulled by the text, calibrated
    nearest         the 32 of 1,024 rollouts without a goal whose end is nearest to the goal's exact bounds
    conditioned     paths given what was understood, weighted
    exact bounds    paths given the goal's own bounds, weighted

All fans are as wide as validation found that they must be, those of conditioned paths as forecasts without a pull.

Columns: CRPS of each value before the goal's step and at it; truths in fans of 80 %, over all values and steps;
goals that the mean path hits. Where conditioning finds no path the pulled ones stand in, as in `gssr plan`. Errors are
standard errors over windows; of shares the least and the greatest of several runs are shown. `above 1e-4`: goals to
which the network gives such a chance. A sentence that says "within" or "over" names no step, though its goal is about
one; so goals whose words name their step are shown by themselves, too.

Log density is that of x and of all values without a goal, in nats, unstretched, mean over paths: what paths of the
network's own have is that of no goal. Large changes are those of the first value that 5 % of the steps of training
windows exceed; their share of a path's steps over that of what came to pass in the same windows.

Chances of true and borrowed goals are compared by how often that of the true one is greater, with what was understood:
within a window, where a goal borrowed from a like start is about as likely; with a goal drawn from all windows; and
over all pairs of windows. Beside the network stands a linear autoregression with normal errors.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.goals.follower import METHODS, Follower, scores, share
from benchmarks.goals.linear import LinearGaussian
from benchmarks.goals.typical import large, log_densities, threshold
from benchmarks.quality.report import table
from gssr.backbone.cpu import prepare_cpu
from gssr.evaluation.forecast_report import stretches
from gssr.runs.folders import BEST, find_checkpoint
from gssr.runs.trained import load_trained
from gssr.runs.twists import training_data, twist_of
from gssr.sequences.collate import collate
from gssr.sequences.record import Record
from gssr.sequences.vocabulary import Vocabulary

LEAST = 1e-4
KINDS = ("forms", "combinations", "numbers")
SHARES = ("in 80 %", "hit", "hit, above 1e-4", "borrowed hit", "borrowed, above 1e-4")
LOOSE = re.compile(r"\b(within|over|by|before|during|until)\b", re.IGNORECASE)
ALL, NAMED = "all goals", "goals whose words name their step"
COMPARED = ("a like start", "any start")
TRUE, BORROWED = "true goals", "borrowed"


@dataclass
class Found:
    """Of one run: scores by group of goals, method and name, and chances of true and of borrowed goals."""

    scores: dict[str, dict[str, dict[str, list[float]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    )
    chances: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    unread: int = 0
    typical: dict[tuple[str, str], list[tuple[float, float, float]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, goal: str | None, method: str, name: str, value: float) -> None:
        for group in (ALL, NAMED):
            if group == ALL or not LOOSE.search(goal or ""):
                self.scores[group][method][name].append(value)


def borrowed(records: Sequence[Record]) -> list[Record]:
    """Each window with the goal of the window of another series whose first value at the start is nearest."""
    starts = [float(record.value[record.goal_start, 0]) for record in records]
    places = stretches(collate(list(records)))
    found = []
    for i, record in enumerate(records):
        others = [j for j, other in enumerate(records) if places[j] != places[i] and other.goal != record.goal]
        found.append(with_goal(record, records[min(others, key=lambda j: abs(starts[j] - starts[i]))]))
    return found


def with_goal(record: Record, other: Record) -> Record:
    given = {name: getattr(other, name) for name in ("goal", "goal_low", "goal_high")}
    return replace(record, **given)


def spread(records: Sequence[Record], count: int) -> list[Record]:
    """So many windows, evenly spaced, with values at every step."""
    full = [record for record in records if np.isfinite(record.value).all()]
    return [full[i * len(full) // count] for i in range(min(count, len(full)))]


def above(pairs: Sequence[tuple[float, float]], every: bool = False) -> float:
    """How often the first of a pair is greater, ties counted half; ``every`` first with every second: the AUC."""
    firsts, seconds = np.array(pairs).T
    if every:
        firsts, seconds = firsts[:, None], seconds[None]
    return float(((firsts > seconds) + 0.5 * (firsts == seconds)).mean())


def follow(run: Path, options: argparse.Namespace) -> Found:
    """All scores of a run."""
    checkpoint = str(run / "checkpoints" / f"{BEST}.ckpt")
    network, _ = load_trained(checkpoint)
    data = training_data(run)
    words = Vocabulary.of(data.value_names, data.value_units, data.goal_writer, data.goal_dim)
    twist = twist_of(network, find_checkpoint(checkpoint, None))
    follower = Follower(network, twist, words, options.budget, options.closeness, not options.unstretched)
    records = spread(data.windows_evaluation(options.part, options.goals), options.windows)
    linear = LinearGaussian(data.windows("train"))
    tolerance, names = network.validation.tolerance, network.value_names
    most, generator, found = (
        threshold(data.windows("train"), data.value_resolution[0]),
        np.random.default_rng(0),
        Found(),
    )
    for record, other in zip(tqdm(records, leave=False), borrowed(records), strict=True):
        true, lent = follower(record), follower(other, ("conditioned",))
        found.unread += true.read.condition is None
        for method, row in scores(true.ensembles, record, tolerance, names).items():
            for name, value in row.items():
                found.add(record.goal, method, name, value)
            if true.chances.get(method, true.chances["conditioned"]) > LEAST:
                found.add(record.goal, method, "hit, above 1e-4", row["hit"])
        batch = collate([record])
        for kind, followed in ((TRUE, true), (BORROWED, lent)):
            for method, drawn in followed.drawn.items():
                density = float(log_densities(network, batch, drawn).mean())
                found.typical[kind, method].append((density, *large_of(record, drawn.sample[:, 0], most)))
        for method, row in scores(lent.ensembles, other, tolerance, names).items():
            found.add(other.goal, method, "borrowed hit", row["hit"])
            if lent.chances["conditioned"] > LEAST:
                found.add(other.goal, method, "borrowed, above 1e-4", row["hit"])
        any_other = with_goal(record, records[generator.integers(len(records))])
        own = {
            "network": follower.free(batch),
            "linear": linear.paths(batch, 4096, torch.Generator().manual_seed(0)),
        }
        asked = [true.read.condition, lent.read.condition, follower.read(any_other).condition]
        for name, paths in own.items():
            first, *seconds = (share(text, paths, network, batch) for text in asked)
            for kind, second in zip(COMPARED, seconds, strict=True):
                found.chances[name, kind].append((first, second))
    return found


def large_of(record: Record, paths: Tensor, most: float) -> tuple[float, float]:
    """Shares of large changes of paths (S, H, Y), and of what came to pass."""
    last, ahead = (torch.from_numpy(part) for part in np.split(record.value[record.goal_start :], [1]))
    return large(paths, last[0], most), large(ahead[None], last[0], most)


def typical(runs: Sequence[Found]) -> list[dict[str, str]]:
    """A row a method: log density of its paths, and their large changes over those of what came to pass."""
    lines = []
    for method in METHODS:
        cells = {"paths": method}
        for kind in (TRUE, BORROWED):
            each = [np.array(run.typical[kind, method]) for run in runs if run.typical[kind, method]]
            if not each:
                continue
            densities, shares = [part[:, 0].mean() for part in each], [part[:, 1:].mean(0) for part in each]
            cells[f"log density, {kind}"] = f"{np.mean(densities):.0f} ± {np.std(densities):.0f}"
            ratios = [share[0] / share[1] if share[1] else np.nan for share in shares]
            cells[f"large changes, times the truth's, {kind}"] = f"{np.mean(ratios):.2f} ± {np.std(ratios):.2f}"
        lines.append(cells)
    names = list(dict.fromkeys(name for line in lines for name in line))
    return [{name: line.get(name, "–") for name in names} for line in lines if len(line) > 1]


def rows(runs: Sequence[Found], group: str) -> list[dict[str, str]]:
    """A row a method: the mean of runs, and the standard error over the windows of one."""
    lines = []
    for method in METHODS:
        cells = {"paths": method}
        for name in runs[0].scores[group][method]:
            parts = [run.scores[group][method][name] for run in runs]
            means = [float(np.mean(part)) for part in parts if part]
            if name in SHARES:
                shown = f"{100 * np.mean(means):.0f} %"
                shown += f" ({100 * min(means):.0f}–{100 * max(means):.0f})" if len(runs) > 1 else ""
                cells[name] = shown + (f" of {len(parts[0])}" if "above" in name else "")
            else:
                # Runs have the same windows, so that more runs tell no more of other windows.
                error = np.concatenate(parts).std() / np.mean([len(part) for part in parts]) ** 0.5
                cells[name] = f"{np.mean(means):.2f} ± {error:.2f}"
        lines.append(cells)
    names = list(dict.fromkeys(name for line in lines for name in line))
    return [{name: line.get(name, "–") for name in names} for line in lines]


def compared(runs: Sequence[Found]) -> list[dict[str, str]]:
    """How often a true goal has a greater chance than a borrowed one, a row a forecaster."""
    lines = []
    for name in ("network", "linear"):
        cells = {"chances of": name}
        for kind in COMPARED:
            for what, every in ((f"goal of {kind}", False), (f"{kind}, all pairs", True)):
                found = [above(run.chances[name, kind], every) for run in runs]
                cells[what] = f"{np.mean(found):.2f}" + (f" ± {np.std(found):.2f}" if len(runs) > 1 else "")
        lines.append(cells)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="run", help="folders of runs on the same data")
    parser.add_argument("--part", choices=["val", "test"], default="test", help="whose windows; default test")
    parser.add_argument("--goals", choices=KINDS, default="forms", help="what training leaves out; default forms")
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--budget", type=int, default=8192)
    parser.add_argument("--closeness", type=float, default=1.0, help="what a number means, in the default's (1)")
    parser.add_argument("--unstretched", action="store_true", help="leave fans other than the pull's as they are")
    options = parser.parse_args()
    prepare_cpu()
    found: list[Found] = []
    for run in options.runs:
        found.append(follow(run, options))
        show(found)


def show(found: Sequence[Found]) -> None:
    """The tables of the runs so far."""
    for group in (ALL, NAMED):
        count = len(next(iter(found[0].scores[group]["no goal"].values()), []))
        print(f"\n{group}: {count} windows, {len(found)} run{'s' * (len(found) > 1)}\n")
        if count:
            print("\n".join(table(rows(found, group))))
    print("\nhow typical of the network its unstretched paths are, ± over runs:\n")
    print("\n".join(table(typical(found))))
    print("\nchance of the true goal above that of another:\n")
    print("\n".join(table(compared(found))))
    print(f"\ntrue goals that were read as none: {', '.join(str(each.unread) for each in found)}", flush=True)


if __name__ == "__main__":
    main()
