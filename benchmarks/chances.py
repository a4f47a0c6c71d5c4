"""Particles against plain rollouts: how well chances of rare events are known, and how many paths are in them.

    python -m benchmarks.chances runs/storms-20250131-142501          # some five minutes on a core
    python -m benchmarks.chances runs/storms-20250131-142501 --windows 2 --rollouts 8192      # a smoke test

Events are of five kinds about the first two values. In each validation window their numbers are chosen so that a
quarter of the plain rollouts give them a set chance; the others say what the chance is. The twist is that of the run,
learned if there is none.

Rows: unsteered rollouts; particles with a twist; particles with a twist and a guide. Columns, of 64 paths unless said:
relative error (root of the mean square of estimate / truth - 1), bias (sum of estimates / sum of truths, with the
standard error over windows), estimates that are 0, share of paths in the event, effective samples (Kish), ancestors,
large changes of the first value in weighted paths over those in rollouts that satisfy the event (beyond 95 % of all in
the window), CPU time a path against a plain rollout; and for a relative error of 0.05 the time of so many thousand
plain rollouts, which the ladder weighs: it counts where that is least without particles.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.quality.report import table
from gssr.backbone.cpu import prepare_cpu
from gssr.network import GoalNetwork
from gssr.runs.folders import BEST, find_checkpoint
from gssr.runs.trained import load_trained
from gssr.runs.twists import training_data, twist_of
from gssr.search.beliefs import smc
from gssr.search.beliefs.rejection import last_values
from gssr.search.beliefs.rolling import Dynamics
from gssr.sequences.collate import collate
from gssr.sequences.conditions import Condition, ConditionEvent
from gssr.sequences.record import Batch

CHANCES = {"1 in 30": 1 / 30, "1 in 1,000": 1 / 1000}
UNSTEERED, TWISTED, GUIDED = "unsteered", "twisted", "twisted and guided"
AT_A_TIME = 4096  # rollouts
SIZE = smc.ISLAND
WANTED = 0.05  # relative error
LARGE = 0.95  # quantile of changes
MANY = 4  # islands, whose mean is a larger estimate


@dataclass
class Measured:
    """Estimates (M) of islands and the truth of one event in one window, and what its particles are like; ``large``:
    how many changes of a weighted path are large, and of a rollout in the event.
    """

    window: int
    truth: float
    estimates: np.ndarray
    inside: float
    effective: float
    ancestors: float
    large: tuple[float, float]


@dataclass
class Row:
    """All events of a chance by one method."""

    found: list[Measured] = field(default_factory=list)
    seconds: float = 0.0
    paths: int = 0

    def cells(self, plain: float) -> dict[str, str]:
        def error(size: int) -> float:
            means = [each.estimates.reshape(-1, size).mean(1) / each.truth - 1 for each in self.found]
            return float(np.sqrt(np.mean([np.mean(np.square(mean)) for mean in means])))

        def mean(of: Callable[[Measured], float]) -> float:
            return float(np.mean([of(each) for each in self.found]))

        bias, spread = self._bias()
        cost = self.seconds / self.paths / plain
        return {
            f"relative error, {SIZE}": f"{error(1):.2f}",
            f"{MANY * SIZE}": f"{error(MANY):.2f}",
            "bias": f"{bias:.2f} ± {spread:.2f}",
            "estimates of 0": f"{100 * mean(lambda each: float((each.estimates == 0).mean())):.0f} %",
            "in the event": f"{100 * mean(lambda each: each.inside):.0f} %",
            "effective samples": f"{mean(lambda each: each.effective):.0f}",
            "ancestors": f"{mean(lambda each: each.ancestors):.0f}",
            "large changes": f"{mean(lambda each: each.large[0]) / mean(lambda each: each.large[1]):.2f}",
            "time": f"{cost:.1f}",
            "for 0.05": f"{(error(1) / WANTED) ** 2 * SIZE * cost / 1000:.0f}",
        }

    def _bias(self) -> tuple[float, float]:
        """With its standard error over windows, whose events share rollouts."""
        sums = np.zeros((2, 1 + max(each.window for each in self.found)))
        for each in self.found:
            sums[:, each.window] += each.estimates.mean(), each.truth
        above, below = sums
        bias, count = above.sum() / below.sum(), len(above)
        return bias, float(np.sqrt(np.square(above - bias * below).sum() * count / max(1, count - 1)) / below.sum())


def kinds(names: list[str], paths: Tensor, last: Tensor) -> Iterator[tuple[str, Callable[[float], str]]]:
    """Kinds of events; a level from 0 to 1 makes them rarer."""
    horizon = paths.shape[1]
    a, b = (f'"{name}"' for name in (names[0], names[min(1, len(names) - 1)]))
    first, second = paths[..., 0], paths[..., min(1, len(names) - 1)]
    half, later = max(1, horizon // 2), max(1, 3 * horizon // 4)
    peak, most = first[:, :half].amax(1), first[:, :later].amax(1)

    def at(values: Tensor, level: float) -> str:
        return f"{float(values.quantile(level)):.4f}"

    def change(level: float) -> str:
        return f"{float((peak - last[0]).quantile(level).clamp(min=0)):.4f}"

    spread = float(first[:, -1].std())
    yield "low end", lambda level: f"{a} <= {at(first[:, -1], 1 - level)} at {horizon}"
    yield "rise", lambda level: f"{a} +{change(level)} within {half}"
    yield (
        "reached, not passed",
        lambda level: (
            f"{a} >= {at(most, level)} within {later} and {a} <= {float(at(most, level)) + 0.7 * spread:.4f} until "
            f"{horizon}"
        ),
    )
    yield (
        "up and down",
        lambda level: f"{a} >= {at(peak, level)} within {half} and {a} <= {at(first[:, -1], 1 - level)} at {horizon}",
    )
    yield (
        "two values",
        lambda level: (
            f"{a} >= {at(first[:, -1], level)} at {horizon} and {b} >= {at(second[:, half - 1], level)} at {half}"
        ),
    )


def event_of(text: str, network: GoalNetwork, batch: Batch) -> ConditionEvent:
    first = int(batch.context[0])
    return Condition(text, network.value_names, network.value_units).over(batch.time[0, first - 1 :].numpy())


def chosen(
    write: Callable[[float], str], chance: float, paths: Tensor, last: Tensor, network: GoalNetwork, batch: Batch
) -> ConditionEvent:
    """The event of a kind that has a chance, by bisection of its level."""
    low, high = 0.0, 1.0
    for _ in range(14):
        level = (low + high) / 2
        share = float(event_of(write(level), network, batch)(paths, last).double().mean())
        low, high = (level, high) if share > chance else (low, level)
    return event_of(write(low), network, batch)


def of_rollouts(event: ConditionEvent, paths: Tensor, last: Tensor, window: int, truth: float) -> Measured:
    """Plain rollouts as estimates."""
    hits = event(paths[: len(paths) // SIZE // MANY * SIZE * MANY], last).view(-1, SIZE).double().sum(1).numpy()
    share, count = float(hits.mean()) / SIZE, float(hits.mean())
    return Measured(window, truth, hits / SIZE, share, count, count, (1.0, 1.0))


def of_particles(found: smc.Particles, window: int, truth: float, large: Tensor, usual: float) -> Measured:
    """``large`` (N) counts the large changes of each path; ``usual`` is their mean over rollouts in the event."""
    weights, origins = found.log_weights.view(-1, SIZE).softmax(1).nan_to_num(0.0), found.origins.view(-1, SIZE)
    inside = found.log_weights.view(-1, SIZE).isfinite()
    effective = (1 / weights.square().sum(1)).nan_to_num(posinf=0.0).mean()
    ancestors = [len(row[alive].unique()) for row, alive in zip(origins, inside, strict=True)]
    share, count = float(inside.double().mean()), float(large.double() @ found.log_weights.softmax(0))
    beginnings = float(np.mean(ancestors))
    return Measured(window, truth, found.chances.numpy(), share, float(effective), beginnings, (count, usual))


def changes(paths: Tensor, last: Tensor) -> Tensor:
    """Sizes (S, H) of the changes of the first value of paths (S, H, Y), from the last observed values (Y) on."""
    return torch.cat([last[:1].expand(len(paths), 1), paths[..., 0]], 1).diff(dim=1).abs()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with a best checkpoint")
    parser.add_argument("--windows", type=int, default=6, help="validation windows, evenly spaced (default: 6)")
    parser.add_argument("--rollouts", type=int, default=131_072, help="plain rollouts a window (default: 131072)")
    parser.add_argument("--islands", type=int, default=32, help=f"of {SIZE} particles an event (default: 32)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prepare_cpu()
    torch.set_num_threads(1)
    checkpoint = find_checkpoint(BEST, str(options.run.absolute()))
    network, _ = load_trained(BEST, str(options.run.absolute()))
    twist = twist_of(network, checkpoint)
    if twist is None:
        raise SystemExit("without a twist there is nothing to measure")
    windows = training_data(options.run).windows("val")
    rows = {(chance, method): Row() for chance in CHANCES for method in (UNSTEERED, TWISTED, GUIDED)}
    for number in tqdm(range(options.windows), desc="windows"):
        batch = collate([windows[(2 * number + 1) * len(windows) // (2 * options.windows)]])
        last = last_values(batch)
        network.rollout(batch, [None], SIZE)  # reads the texts
        started, parts = time.process_time(), []
        generator = torch.Generator().manual_seed(options.seed + 1000 * number)
        for begin in range(0, options.rollouts, AT_A_TIME):
            size = min(AT_A_TIME, options.rollouts - begin)
            parts.append(network.rollout(batch, [None], size, generator, calibrated=False).sample[:, 0])
        seconds = (time.process_time() - started) / len(CHANCES)
        numbers, *others = torch.cat(parts).chunk(4)
        known = torch.cat(others)
        most = float(np.quantile(changes(numbers, last).numpy(), LARGE))
        for name, chance in CHANCES.items():
            rows[name, UNSTEERED].seconds += seconds
            rows[name, UNSTEERED].paths += options.rollouts // len(CHANCES)
            for _, write in kinds(network.value_names, numbers, last):
                event = chosen(write, chance, numbers, last, network, batch)
                truth = float(event(known, last).double().mean())
                if not chance / 3 < truth < 3 * chance:
                    continue  # a kind that has no such event here
                rows[name, UNSTEERED].found.append(of_rollouts(event, known, last, number, truth))
                usual = float((changes(known[event(known, last)], last) > most).double().sum(1).mean())
                asked = smc.Asked(event, last, network.world.scaler.std)
                for method in (TWISTED, GUIDED):
                    row, generator = rows[name, method], torch.Generator().manual_seed(options.seed + 1000 * number + 1)
                    started = time.process_time()
                    dynamics = Dynamics(network.forecaster, batch)
                    found = smc.draw(dynamics, twist, asked, options.islands, generator, guided=method == GUIDED)
                    row.seconds += time.process_time() - started
                    row.paths += len(found.paths)
                    large = (changes(found.paths, last) > most).sum(1)
                    row.found.append(of_particles(found, number, truth, large, usual))
    shown = []
    for name in CHANCES:
        plain = rows[name, UNSTEERED].seconds / rows[name, UNSTEERED].paths
        for method in (UNSTEERED, TWISTED, GUIDED):
            row = rows[name, method]
            shown.append({"chance": f"{name} ({len(row.found)} events)", "paths": method} | row.cells(plain))
    print("\n".join(table(shown)))


if __name__ == "__main__":
    main()
