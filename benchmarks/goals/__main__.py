"""How well typed goals are understood: 323 sentences about a storm in 12 kinds, with their truth.

    python -m benchmarks.goals                       # of the reader of the package, a minute on a core
    python -m benchmarks.goals --wrong               # the sentences that are read wrongly, too
    python -m benchmarks.goals --layers 0 1 3 5      # heads learned on other layers of the model, some minutes each

A pair is a sentence and a path: 200 paths behind each of 12 windows of the test years, what came to pass bent to other
ends. A sentence's share of right pairs is the mean of that over the paths on which it is true and over those on which
it is false. A sentence that is no goal is right where the reader says so, and wrong on all pairs else; so is a goal
that is taken for none. `exact`: sentences that are right on every pair.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.goals.sentences import NOW, PHRASINGS, WINDOWS, Goal, bent_paths, holds, read_goals
from benchmarks.quality.report import table
from datamodules.storms import Storms
from gssr.backbone import FrozenBackbone
from gssr.backbone.cpu import prepare_cpu
from gssr.sequences.record import Record
from gssr.sequences.vocabulary import Vocabulary
from gssr.understanding.learn import learn
from gssr.understanding.reader import FILE, Reader, Setting


@dataclass
class Window:
    """The context of a window, and paths (S, H, Y) behind it."""

    setting: Setting
    paths: torch.Tensor

    @classmethod
    def of(cls, record: Record, data: Storms, generator: np.random.Generator) -> Window:
        first, scaler = record.goal_start, data.scaler
        time = NOW + record.time[first:] - record.time[first]
        tolerance = np.maximum(2 * np.array(data.value_resolution), 0.2 * scaler.std.numpy())
        seen = list(zip(scaler.low.tolist(), scaler.high.tolist(), strict=True))
        words = Vocabulary.of(data.value_names, data.value_units, data.goal_writer, data.goal_dim)
        setting = Setting(words, time, record.value[first].tolist(), tolerance.tolist(), seen)
        return cls(setting, bent_paths(record, generator))


@dataclass
class Scored:
    """A sentence, its share of right pairs, whether all were right, and what was read in the first window."""

    goal: Goal
    right: float
    exact: bool
    read: str


def windows() -> list[Window]:
    """Windows of different storms of the test years."""
    data, generator = Storms(), np.random.default_rng(0)
    firsts: dict[str, Record] = {}
    for record in data.windows("test"):
        if np.isfinite(record.value).all():
            firsts.setdefault(record.series, record)
    records = list(firsts.values())
    return [Window.of(records[i * len(records) // WINDOWS], data, generator) for i in range(WINDOWS)]


def score(reader: Reader, goal: Goal, places: list[Window]) -> Scored:
    """A sentence read in each window, and compared with its truth on the paths there."""
    shares, first = [], ""
    for window in places:
        setting = window.setting
        names, found = setting.words.names, reader.read(goal.text, setting)
        first = first or f"{found} ({found.sure:.0%})"
        truth = goal.condition(setting.last, names, setting.tolerance)
        if truth is None or found.condition is None:
            shares.append(float(truth is None and found.kind != "goal"))
            continue
        last = torch.tensor(setting.last)
        expected = holds(truth, window.paths, last, np.asarray(setting.time), names)
        try:
            given = holds(found.condition, window.paths, last, np.asarray(setting.time), names)
        except ValueError:  # a time beyond the horizon, or between steps
            shares.append(0.0)
            continue
        same = (given == expected).float()
        parts = [same[expected == side].mean().item() for side in (True, False) if (expected == side).any()]
        shares.append(float(np.mean(parts)))
    return Scored(goal, float(np.mean(shares)), min(shares) == 1.0, first)


def rows(scored: list[Scored]) -> list[dict[str, str]]:
    """A row a kind, and one for all."""
    kinds = defaultdict(list)
    for each in scored:
        kinds[each.goal.kind].append(each)
    found = []
    for kind, mine in [*kinds.items(), ("all", scored)]:
        row = {"kind": kind}
        for name in PHRASINGS:
            part = [each for each in mine if each.goal.phrasing == name]
            row |= {
                f"{name}: pairs right, %": f"{100 * np.mean([each.right for each in part]):.1f}",
                f"{name}: exact": f"{sum(each.exact for each in part)} of {len(part)}",
            }
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", type=Path, default=FILE, help="a file of gssr.understanding.learn")
    parser.add_argument("--wrong", action="store_true", help="print the sentences that are not exact")
    parser.add_argument("--layers", type=int, nargs="+", help="layers on which heads are learned and compared")
    options = parser.parse_args()
    prepare_cpu()
    backbone, places, goals = FrozenBackbone(), windows(), read_goals()
    if options.layers:
        found = []
        for layer in options.layers:
            reader = Reader(backbone, learn(backbone, layer=layer), layer)
            found.append({"layer": str(layer)} | rows([score(reader, goal, places) for goal in goals])[-1])
        print("\n".join(table(found)))
        return
    scored = [score(Reader.load(options.reader, backbone), goal, places) for goal in goals]
    print("\n".join(table(rows(scored))))
    for each in scored if options.wrong else ():
        if not each.exact:
            print(f"{each.right:.2f} {each.goal.kind}: {each.goal.text}\n     {each.goal.truth}\n     {each.read}")


if __name__ == "__main__":
    main()
