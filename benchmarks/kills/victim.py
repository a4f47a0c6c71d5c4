"""Runs that are killed as long as there are kills left, and go on each time."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import train
from benchmarks.kills.aims import Aim, forget
from benchmarks.kills.job import CONFIGS
from benchmarks.kills.processes import ended, finish, ranks, start
from gssr.runs.checkpoint_file import steps_done
from gssr.runs.folders import CONFIG, LAST, checkpoint_file, runs


class Victim:
    """Runs in a folder, one after the other.

    Args:
        folder: where its `runs` and its `cache` lie; beside it are the configs.
        processes: of a run.
        draw: decides about the kills.
        starting: seconds from the start of a process to its first step.
    """

    def __init__(self, folder: Path, processes: int, draw: random.Random, starting: float = 0.0) -> None:
        self.folder, self.processes, self.draw, self.starting = folder, processes, draw, starting
        self.finished = 0  # runs
        self.steps = 0  # saved of the run under way
        self.begun = 0

    @property
    def run(self) -> Path | None:
        """The run under way; None where the next process begins one."""
        begun = [run for run in runs(self.folder / "runs") if (run / CONFIG).exists()]
        return begun[0] if len(begun) > self.finished else None

    def logged(self) -> int:
        """Rows in the log of the run under way."""
        file = None if self.run is None else self.run / "metrics.csv"
        return len(file.read_bytes().splitlines()) if file is not None and file.exists() else 0

    def launch(self, aim: Aim | None) -> list[int]:
        """Begin a run or go on with it, in processes that die at the aim."""
        if self.run is None:
            self.begun += 1
            args = ["fit", "--config", str(self.folder.parent / CONFIGS[self.processes])]
            args += ["--run", f"run-{self.begun}"] if self.processes > 1 else []
        else:
            args = ["fit", "--run", self.run.name, "--ckpt_path", "last"]
        n, share = self.draw.randint(1, 1 if aim is None else aim.most), self.draw.random()

        def train_and_die(rank: int) -> None:
            if aim is not None and aim.arm is not None and rank == (aim.rank or 0):
                aim.arm(n, share)
            train.main(list(args))

        places = ranks(self.processes)
        return [start(lambda rank=rank: train_and_die(rank), self.folder, env) for rank, env in enumerate(places)]

    def attempt(self, aim: Aim | None) -> bool:
        """Begin a run or go on with it; whether it was killed at the aim (False: it ended before it got there)."""
        if aim is not None and aim.forgets is not None:
            forget(self.folder / "cache", aim.forgets)
        numbers = self.launch(aim)
        if aim is not None and aim.arm is None:
            self._kill_from_outside(numbers[0], at_start=aim.words == "while it started")
        done = finish(numbers, self.folder)
        self.check()
        self.finished += done
        return not done

    def _kill_from_outside(self, number: int, at_start: bool) -> None:
        if at_start:
            time.sleep(self.draw.uniform(0, self.starting))
            os.kill(number, signal.SIGKILL)
            return
        rows, wanted = None, self.draw.randint(1, 9)
        while not ended(number):
            time.sleep(0.002)
            if rows is None or self.logged() < rows:  # rows after the checkpoint are dropped as it goes on
                rows = self.logged()
            if self.logged() >= rows + wanted:
                time.sleep(self.draw.uniform(0, 0.3))
                os.kill(number, signal.SIGKILL)
                return

    def check(self) -> None:
        """What was saved before is still there, and can be read."""
        run = self.run
        steps = steps_done(checkpoint_file(run, LAST)) if run is not None and checkpoint_file(run, LAST).exists() else 0
        assert run is None or steps >= self.steps, f"{run} stood at step {self.steps}, and now at {steps}"
        self.steps = steps
