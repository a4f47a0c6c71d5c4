"""What typed goals bring: paths under goals that came true, and under those borrowed from other windows.

    python -m benchmarks.goals.followed runs/storms-20250131-142501              # some minutes on a core
    python -m benchmarks.goals.followed runs/storms-20250131-142501 --windows 8  # a smoke test

Goals are sentences in forms that training leaves out, of test windows of different storms; a borrowed one is that of
the window of another storm with the nearest wind at the start. Each is read (`gssr.understanding`) and followed:

    no goal         1,024 rollouts
    pull            1,024 rollouts, pulled by the text, calibrated
    nearest         the 32 of 1,024 rollouts without a goal whose end is nearest to the goal's exact bounds
    conditioned     paths given what was understood, weighted
    exact bounds    paths given the goal's own bounds, weighted

Columns: CRPS of each value before the goal's step and at it; truths in fans of 80 %, over all values and steps;
goals that the mean path hits. Where conditioning finds no path the pulled ones stand in, as in `gssr plan`. Errors are
standard errors over windows. AUC: how often a true goal has a greater chance than the borrowed one of its window.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.quality.report import table
from gssr.backbone.cpu import prepare_cpu
from gssr.metrics import goal_hits, weighted_crps, weighted_quantiles
from gssr.network import GoalNetwork
from gssr.runs.folders import BEST, find_checkpoint
from gssr.runs.trained import load_trained
from gssr.runs.twists import training_data, twist_of
from gssr.search.beliefs import Twist, condition
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record
from gssr.sequences.vocabulary import Vocabulary
from gssr.understanding.asking import setting
from gssr.understanding.reader import Reader, Setting, Understood

ROLLOUTS, NEAREST, LEAST = 1024, 32, 1e-4
METHODS = ("no goal", "pull", "nearest", "conditioned", "exact bounds")


@dataclass
class Ensemble:
    """Paths (S, H, Y) with weights (S)."""

    paths: Tensor
    weights: Tensor

    @classmethod
    def equal(cls, paths: Tensor) -> Ensemble:
        return cls(paths, torch.full((len(paths),), 1 / len(paths)))

    @property
    def mean(self) -> Tensor:
        return (self.weights.view(-1, 1, 1) * self.paths).sum(0)


@dataclass
class Followed:
    """A window under a goal: ensembles by method, the chance, and what was understood."""

    ensembles: dict[str, Ensemble]
    chance: float
    read: Understood
    reached: bool  # by a path of the network


class Follower:
    """Follows goals with one network.

    Args:
        words: of the values, which older checkpoints lack.
    """

    def __init__(self, network: GoalNetwork, twist: Twist | None, words: Vocabulary, budget: int) -> None:
        self.network, self.twist, self.words, self.budget = network, twist, words, budget
        self.reader = Reader.bundled()

    def __call__(self, record: Record, exact: bool = True) -> Followed:
        batch, first = collate([record]), record.goal_start
        free, pulled = (
            self.network.rollout(
                batch, [goal], ROLLOUTS, torch.Generator().manual_seed(0), calibrated=goal is not None
            ).sample[:, 0]
            for goal in (None, record.goal)
        )
        known = setting(self.network, record.time[first:], record.value[: first + 1], record.goal_step - first)
        known = Setting(**{**known.__dict__, "words": self.words})
        read = self.reader.read(record.goal, known)
        found = {"no goal": Ensemble.equal(free), "pull": Ensemble.equal(pulled)}
        low, high = (torch.tensor(end) for end in (record.goal_low, record.goal_high))
        at = record.goal_step - first - 1
        miss = torch.relu(torch.maximum(low - free[:, at], free[:, at] - high)).nan_to_num() / self._std
        nearest = miss.sum(-1).argsort()[:NEAREST]
        found["nearest"] = Ensemble.equal(free[nearest])
        chance, reached = 0.0, False
        texts = {"conditioned": read.condition} | ({"exact bounds": self._bounds(record)} if exact else {})
        for name, text in texts.items():
            ensemble = found["pull"]
            if text is not None:
                given, probability = self._conditioned(batch, text)
                ensemble = given or ensemble
                if name == "conditioned":
                    chance, reached = probability, given is not None
            found[name] = ensemble
        return Followed(found, chance, read, reached)

    def _conditioned(self, batch: Batch, text: str) -> tuple[Ensemble | None, float]:
        try:
            (given,) = condition(self.network, batch, text, 64, self.budget, twist=self.twist)
        except ValueError:  # a time that is no step
            return None, 0.0
        if len(given.weights) < 2:
            return None, given.chance.probability
        return Ensemble(given.rollouts.sample[:, 0], given.weights.float()), given.chance.probability

    def _bounds(self, record: Record) -> str:
        slack = self.network.validation.tolerance.tolist()
        parts = []
        for y, name in enumerate(self.network.value_names):
            low, high = float(record.goal_low[y]), float(record.goal_high[y])
            if np.isfinite(low):
                low, high = (low - slack[y], high + slack[y]) if low == high else (low, high)
                parts.append(f"{name} {low:.6g}..{high:.6g} at {record.goal_step - record.goal_start} steps")
        return " and ".join(parts)

    @property
    def _std(self) -> Tensor:
        return self.network.world.scaler.std


def scores(found: Followed, record: Record, tolerance: Tensor, names: list[str]) -> dict[str, dict[str, float]]:
    """By method: CRPS before the goal's step and at it for each value, coverage and hits."""
    truth = torch.tensor(record.value[record.goal_start + 1 :])
    at = record.goal_step - record.goal_start - 1
    low, high = (torch.tensor(end)[None] for end in (record.goal_low, record.goal_high))
    rows = {}
    for method, ensemble in found.ensembles.items():
        crps = weighted_crps(ensemble.paths, ensemble.weights, truth)
        least, most = weighted_quantiles(ensemble.paths, ensemble.weights, (0.1, 0.9))
        row = {f"{name}, before": crps[:at, y].mean().item() for y, name in enumerate(names)}
        row |= {f"{name}, at": crps[at, y].item() for y, name in enumerate(names)}
        row["in 80 %"] = ((least <= truth) & (truth <= most)).float().mean().item()
        row["hit"] = goal_hits(ensemble.mean[None, at], low, high, tolerance).float().item()
        rows[method] = row
    return rows


def borrowed(records: list[Record]) -> list[Record]:
    """Each window with the goal of the window of another storm whose wind at the start is nearest."""
    starts = [float(record.value[record.goal_start, 0]) for record in records]
    found = []
    for i, record in enumerate(records):
        others = [j for j, other in enumerate(records) if other.series != record.series and other.goal != record.goal]
        j = min(others, key=lambda j: abs(starts[j] - starts[i]))
        given = {name: getattr(records[j], name) for name in ("goal", "goal_low", "goal_high")}
        found.append(Record(**{**record.__dict__, **given}))
    return found


def spread(records: list[Record], count: int) -> list[Record]:
    """So many windows, evenly spaced, with values at every step."""
    full = [record for record in records if np.isfinite(record.value).all()]
    return [full[i * len(full) // count] for i in range(min(count, len(full)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of storms")
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--budget", type=int, default=8192)
    options = parser.parse_args()
    prepare_cpu()
    network, _ = load_trained(str(options.run / "checkpoints" / f"{BEST}.ckpt"))
    file = find_checkpoint(str(options.run / "checkpoints" / f"{BEST}.ckpt"), None)
    data = training_data(options.run)
    words = Vocabulary.of(data.value_names, data.value_units, data.goal_writer, data.goal_dim)
    follower = Follower(network, twist_of(network, file), words, options.budget)
    records = spread(data.windows_evaluation("test", "forms"), options.windows)
    tolerance, names = network.validation.tolerance, network.value_names
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    chances: list[tuple[float, float]] = []
    reach: dict[str, list[float]] = defaultdict(list)
    misread = []
    for record, other in zip(tqdm(records, leave=False), borrowed(records), strict=True):
        true, lent = follower(record), follower(other, exact=False)
        misread += [record.goal] if true.read.condition is None else []
        for method, row in scores(true, record, tolerance, names).items():
            for name, value in row.items():
                found[method][name].append(value)
        for method, row in scores(lent, other, tolerance, names).items():
            if method in ("no goal", "pull", "conditioned"):
                found[method]["borrowed hit"].append(row["hit"])
                if lent.chance > LEAST:
                    reach[method].append(row["hit"])
        chances.append((true.chance, lent.chance))
    lines = []
    for method in METHODS:
        cells = {"paths": method}
        for name, values in found[method].items():
            mean, error = np.mean(values), np.std(values) / len(values) ** 0.5
            shown = f"{100 * mean:.0f} %" if name in ("in 80 %", "hit", "borrowed hit") else f"{mean:.2f} ± {error:.2f}"
            cells[name] = shown
        if reach[method]:
            cells["borrowed hit, P > 1e-4"] = f"{100 * np.mean(reach[method]):.0f} % of {len(reach[method])}"
        lines.append(cells)
    print("\n".join(table(lines)))
    wins = [float(true > lent) + 0.5 * float(true == lent) for true, lent in chances]
    every = [float(a > b) + 0.5 * float(a == b) for a, _ in chances for _, b in chances]
    print(f"\nP(true) above P(borrowed): {np.mean(wins):.2f} within windows, AUC over all {np.mean(every):.2f}")
    print(f"true goals that were read as none: {len(misread)} of {len(records)}", *misread[:5], sep="\n  ")


if __name__ == "__main__":
    main()
