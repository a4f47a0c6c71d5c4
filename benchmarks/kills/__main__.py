"""Kill training with `kill -9`, go on every time, and compare with a run that was not killed.

    python -m benchmarks.kills --kills 40
    python -m benchmarks.kills --kills 10 --aim write,cache --seed 1 --folder /tmp/kills

A small goal network around a tiny random backbone, 24 optimizer steps on a table, 3 validations, 2 plan pictures. Kills
come from outside at a random time (random), and from inside at places that are hard to hit from outside: a checkpoint
that is written (write), a validation and its picture (validation), the log (log), the text cache (cache), the store of
the table (store), and either of two processes that train together (ddp). A file that is written is hit with a part of
it there, before it takes its name, and after.

After each kill `python train.py fit --ckpt_path last` goes on, one time in three with the cache deleted. A run that
ends before all kills are used is compared, and another one begun. At last two runs are started at the same moment.
Weights, optimizer, generators and all logged rows must be equal bit for bit; each aim must have been hit.

Every attempt is a process of its own, forked from one that has only imported. Needs Linux.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tqdm import tqdm

import gssr.runs.command_line  # noqa: F401 (imported here once, not by every process that is forked)
from benchmarks.kills import job
from benchmarks.kills.aims import AIMS, KINDS, Aim, forget
from benchmarks.kills.compare import compare
from benchmarks.kills.processes import ended, finish, start
from benchmarks.kills.victim import Victim
from gssr.runs.checkpoint_file import steps_done
from gssr.runs.folders import LAST, checkpoint_file, runs

DELETED = 1 / 3  # share of the kills after which the cache is deleted


class Trial:
    """The kills of one run that is left alone and of others like it."""

    def __init__(self, folder: Path, processes: int, draw: random.Random) -> None:
        self.folder, self.processes, self.draw = folder, processes, draw
        self.different: dict[Path, list[str]] = {}
        self.deleted = 0
        for name in ("alone", "killed", "together"):
            self._place(name).mkdir()
        clock = time.monotonic()
        alone = Victim(self._place("alone"), processes, draw)
        numbers = alone.launch(None)
        while not any(map(ended, numbers)) and alone.logged() < 2:
            time.sleep(0.01)
        starting = time.monotonic() - clock
        finish(numbers, alone.folder)
        assert alone.run is not None
        self.reference = alone.run
        self.victim = Victim(self._place("killed"), processes, draw, starting)

    def _place(self, name: str) -> Path:
        return self.folder / f"{name}-{self.processes}"

    def kill(self, aim: Aim | None) -> bool:
        """One attempt; a run that ended is compared. Whether the kill came."""
        run = self.victim.run
        if self.victim.attempt(aim):
            if self.draw.random() < DELETED:
                self.deleted += forget(self.victim.folder / "cache", "*")
            return True
        run = run or runs(self.victim.folder / "runs")[0]
        self._compare(run)
        self.victim.steps = 0
        return False

    def together(self) -> None:
        """Two runs that are started at the same moment."""
        pair = Victim(self._place("together"), 1, self.draw)
        numbers = [number for _ in range(2) for number in pair.launch(None)]
        finish(numbers, pair.folder)
        twins = runs(pair.folder / "runs")
        assert len(twins) == 2, f"two runs share a folder: {twins}"
        for run in twins:
            self._compare(run)

    def _compare(self, run: Path) -> None:
        self.different[run] = found = compare(self.reference, run)
        tqdm.write(f"{run.parent.parent.name}/{run.name} ended: {'equal' if not found else found[:5]}")


def kill_often(trials: dict[int, Trial], aims: list[Aim], kills: int, draw: random.Random, bar: tqdm) -> Counter[Aim]:
    """Kill at all aims in turn, in a new order each turn, then let the runs end. Returns the kills of each aim."""
    count: Counter[Aim] = Counter()
    tried: Counter[Aim] = Counter()
    while count.total() < kills:
        # Those that a run did not get to come first in the next turn.
        for aim in sorted(draw.sample(aims, len(aims)), key=lambda aim: count[aim] > 0):
            if count.total() == kills:
                break
            bar.set_description(aim.words)
            trial = trials[1 if aim.rank is None else 2]
            tried[aim] += 1
            if trial.kill(aim):
                count[aim] += 1
                bar.update()
                saved = f"step {trial.victim.steps} saved" if trial.victim.steps else "no step saved"
                tqdm.write(f"kill {count.total():2d} {aim.kind}: {aim.words}, {saved}")
            elif tried[aim] >= 5 and not count[aim]:
                sys.exit(f"training never comes to a place: {aim.words}")
    bar.set_description("to the end")
    for trial in trials.values():
        if trial.victim.run is not None:
            trial.kill(None)
    return count


def report(trials: dict[int, Trial], count: Counter[Aim]) -> list[str]:
    """Print what was done; returns the runs that are not equal."""
    wrong, equal, ended_runs = [], 0, 0
    print()
    for aim, n in sorted(count.items(), key=lambda item: AIMS.index(item[0])):
        print(f"  {n:3d}  {aim.kind + ':':12s}{aim.words}")
    for trial in trials.values():
        steps = steps_done(checkpoint_file(trial.reference, LAST))
        with open(trial.reference / "metrics.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        print(
            f"{trial.processes} process(es): {trial.victim.finished} killed runs of {steps} steps, the cache deleted "
            f"before {trial.deleted} of the resumes; compared: last.ckpt, best.ckpt, {len(rows)} rows of metrics.csv"
        )
        for run, names in trial.different.items():
            ended_runs, equal = ended_runs + 1, equal + (not names)
            wrong += [f"{run}: {len(names)} differences, such as {names[:5]}"] if names else []
    print(f"{count.total()} kills; {equal} of {ended_runs} runs are equal bit for bit to the one left alone")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="how often training is killed (default: 40)")
    parser.add_argument(
        "--aim", default=",".join(KINDS), metavar="KINDS", help=f"of {','.join(KINDS)} (default: all of them)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order and the points of kills (default: 0)")
    parser.add_argument("--folder", type=Path, help="where to work; must be empty (default: a temporary folder)")
    options = parser.parse_args()
    if unknown := set(options.aim.split(",")) - set(KINDS):
        parser.error(f"--aim has {', '.join(sorted(unknown))}; expected some of {', '.join(KINDS)}")
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="kills-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"--folder {folder} is not empty; name another one")
    tqdm.monitor_interval = 0  # a thread, which a fork would not survive
    draw = random.Random(options.seed)
    aims = [aim for aim in AIMS if aim.kind in options.aim.split(",")]
    clock = time.monotonic()
    bar = tqdm(total=options.kills, unit="kill", desc="left alone", mininterval=5)
    finish([start(lambda: job.make(folder), folder)], folder)
    processes = sorted({1 if aim.rank is None else 2 for aim in aims})
    trials = {n: Trial(folder, n, draw) for n in processes}
    count = kill_often(trials, aims, options.kills, draw, bar)
    bar.set_description("two at once")
    if 1 in trials:
        trials[1].together()
    bar.close()
    wrong = report(trials, count)
    print(f"{time.monotonic() - clock:.0f} s")
    if wrong:
        sys.exit("\n".join([*wrong, f"NOT EQUAL; everything is in {folder}"]))
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
