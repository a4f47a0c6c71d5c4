"""Kill training with `kill -9` at random points, go on every time, and compare with a run that was not killed.

    python -m benchmarks.kills --kills 20
    python -m benchmarks.kills --kills 5 --seed 1 --folder /tmp/kills

A small goal network around a tiny random backbone, 24 optimizer steps on storms, 3 validations, 2 plan pictures. Kills
come from outside at a random time (while it starts, while it trains) and from inside at places that are hard to hit
from outside: with half of a checkpoint written, before and after a checkpoint takes its name, in a validation, a
picture, a row of the log, the text cache. After each
`python train.py fit --ckpt_path last` goes on. A run that ends before all kills are used is compared, and another one
begun. At last two runs are started at the same moment. Weights, optimizer, generators and all logged rows must be equal
bit for bit.

Every attempt is a process of its own, forked from one that has only imported. Needs a Unix.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

import callbacks.atomic_io
import callbacks.csv_log
import callbacks.plan_rollouts
import gssr.runs.command_line  # noqa: F401 (imported here once, not by every process that is forked)
import train
from gssr.files import atomic_write
from gssr.network import GoalNetwork
from gssr.runs.checkpoint_file import read_checkpoint, steps_done
from gssr.runs.folders import BEST, CONFIG, LAST, checkpoint_file, runs
from gssr.runs.options import DEFAULT_CONFIG

OUTSIDE = ("while it started", "while it trained")
INSIDE = (
    "with half of a checkpoint written",
    "before a checkpoint took its name",
    "after a checkpoint took its name",
    "in a validation",
    "in a plan picture",
    "in a row of the log",
    "as the text cache was written",
)
GO_ON = ["fit", "--ckpt_path", "last"]


def make_config(folder: Path) -> None:
    """Make a tiny random backbone and a config that names it; in a child process, so that this one stays fork-safe."""
    from transformers import GraniteMoeHybridForCausalLM

    from datamodules.text.corpus import train_tokenizer
    from gssr.training.architectures import nano_config

    torch.manual_seed(0)
    texts = ["Weaken to 35 knots in 48 hours", "Hurricane Ian near 20.1 north 83.5 west, pressure 955 hPa."]
    GraniteMoeHybridForCausalLM(nano_config(vocab_size=400, hidden_size=96, layers=4)).save_pretrained(folder / "tiny")
    train_tokenizer(texts * 4, 400).save_pretrained(folder / "tiny")
    config = yaml.safe_load((DEFAULT_CONFIG.parent / "debug.yaml").read_text(encoding="utf-8"))
    config |= {"threads": 1, "checkpoint": {"every_n_steps": 3, "keep": 2}}
    config["trainer"] |= {"max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False}
    config["plan_rollouts"]["texts"] = False
    model = config["model"]["init_args"]
    model["backbone"] = {"name": str(folder / "tiny")}
    model["world"] |= {"text_layers": [1], "goal_layer": 1}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


# ---------------------------------------------------------------------- processes that die


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(owner: Any, name: str, count: int, when: Callable[..., bool] = lambda *_: True) -> None:
    """In place of the count-th call of `owner.name` for which `when(*args)` holds, die."""
    original, calls = getattr(owner, name), itertools.count(1)

    def call(*args: Any, **kwargs: Any) -> Any:
        if when(*args) and next(calls) == count:
            die()
        return original(*args, **kwargs)

    setattr(owner, name, call)


def arm(place: str, count: int, share: float) -> None:
    """Make this process die the count-th time that it reaches a place, with a `share` of that write done."""
    if place == "with half of a checkpoint written":
        calls = itertools.count(1)

        class Half:
            def __init__(self, file: Any) -> None:
                self.file = file

            def write(self, content: Any) -> None:
                self.file.write(content[: int(share * len(content))])
                self.file.flush()
                die()

        @contextlib.contextmanager
        def half(path: Path, mode: str) -> Iterator[Any]:
            with atomic_write(path, mode) as file:
                yield Half(file) if next(calls) == count else file

        callbacks.atomic_io.atomic_write = half
    elif place == "before a checkpoint took its name":
        die_at(os, "replace", count, lambda _, target: str(target).endswith(".ckpt"))
    elif place == "after a checkpoint took its name":
        die_at(os, "link", count)
    elif place == "in a validation":
        die_at(GoalNetwork, "validation_step", 1)
    elif place == "in a plan picture":
        die_at(callbacks.plan_rollouts, "fan_chart_of", 1)
    elif place == "as the text cache was written":
        die_at(os, "replace", 1, lambda _, target: Path(target).name.startswith("texts-"))
    elif place == "in a row of the log":
        rows = itertools.count(1)
        writer = csv.DictWriter

        class HalfRow(writer):
            def __init__(self, file: Any, columns: Any) -> None:
                super().__init__(file, columns)
                self.file, self.columns = file, columns

            def writerow(self, row: Any) -> Any:
                if next(rows) < 4 * count:
                    return super().writerow(row)
                line = io.StringIO()
                writer(line, self.columns).writerow(row)
                self.file.write(line.getvalue()[: int(share * len(line.getvalue()))])
                self.file.flush()
                die()

        callbacks.csv_log.csv.DictWriter = HalfRow


def start(
    function: Callable[[], Any], folder: Path, place: str | None = None, count: int = 1, share: float = 0.5
) -> int:
    """The number of a new process that runs a function in a folder, and dies at a place inside if there is one."""
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        os.environ["GSSR_CACHE"] = str(folder / "cache")
        if place in INSIDE:
            arm(place, count, share)
        function()
        code = 0
    except SystemExit as stop:
        print(stop.code)
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def finish(number: int, folder: Path) -> bool:
    """Wait for a process; True if it ended by itself, False if it was killed. Raises RuntimeError if it failed."""
    code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"training ended with {code}; see {folder / 'log.txt'}")
    return code == 0


def ended(number: int) -> bool:
    """Whether a process has ended, which stays to be waited for."""
    return os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


# ---------------------------------------------------------------------- runs that are killed


class Victim:
    """Runs in a folder, one after the other, that are killed as long as there are kills left.

    Args:
        folder: where its `runs` lie.
        begin: the command line of a new run.
        draw: decides about the kills.
        starting: seconds from the start of a process to its first step.
    """

    def __init__(self, folder: Path, begin: list[str], draw: random.Random, starting: float) -> None:
        self.folder, self.begin, self.draw, self.starting = folder, begin, draw, starting
        self.finished = 0  # runs
        self._steps = 0

    @property
    def run(self) -> Path | None:
        """The run under way; None where the next process begins one."""
        begun = [run for run in runs(self.folder / "runs") if (run / CONFIG).exists()]
        return begun[0] if len(begun) > self.finished else None

    def logged(self) -> int:
        """Rows in the log of the run under way."""
        file = None if self.run is None else self.run / "metrics.csv"
        return len(file.read_bytes().splitlines()) if file is not None and file.exists() else 0

    def attempt(self, place: str | None) -> bool:
        """Begin a run or go on with it; whether it was killed at the place (False: it ended before it got there)."""
        if place == "as the text cache was written":
            shutil.rmtree(self.folder / "cache", ignore_errors=True)
        args = list(self.begin if self.run is None else GO_ON)
        number = start(lambda: train.main(args), self.folder, place, self.draw.randint(1, 4), self.draw.random())
        if place == OUTSIDE[0]:
            time.sleep(self.draw.uniform(0, self.starting))
            os.kill(number, signal.SIGKILL)
        elif place == OUTSIDE[1]:
            rows = None
            wanted = self.draw.randint(1, 9)
            while not ended(number):
                time.sleep(0.002)
                if rows is None or self.logged() < rows:  # rows after the checkpoint are dropped as it goes on
                    rows = self.logged()
                if self.logged() >= rows + wanted:
                    time.sleep(self.draw.uniform(0, 0.3))
                    os.kill(number, signal.SIGKILL)
                    break
        done = finish(number, self.folder)
        self.check()
        self.finished += done
        return not done

    def check(self) -> None:
        """What was saved before is still there, and can be read."""
        run = self.run
        steps = steps_done(checkpoint_file(run, LAST)) if run is not None and checkpoint_file(run, LAST).exists() else 0
        assert run is None or steps >= self._steps, f"{run} stood at step {self._steps}, and now at {steps}"
        self._steps = steps


def differences(a: Any, b: Any, name: str = "") -> list[str]:
    """Names of all values in two nested structures that are not equal bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape
        same = same and torch.equal(
            a.reshape(-1).contiguous().view(torch.uint8), b.reshape(-1).contiguous().view(torch.uint8)
        )
        return [] if same else [name]
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [*a, *(key for key in b if key not in a)]
        return [d for key in keys for d in differences(a.get(key), b.get(key), f"{name}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{name}/{i}")]
    return [] if type(a) is type(b) and (a == b or (a != a and b != b)) else [name]


def compare(run: Path, other: Path) -> list[str]:
    """What differs between two runs: in their newest and best states, and in their logs."""
    found = []
    for name in (LAST, BEST):
        a, b = (read_checkpoint(checkpoint_file(folder, name)) for folder in (run, other))
        found += [f"{name}.ckpt{where}" for where in differences(a, b)]
    if (run / "metrics.csv").read_bytes() != (other / "metrics.csv").read_bytes():
        found.append("metrics.csv")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how often training is killed (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the points at which it is (default: 0)")
    parser.add_argument("--folder", type=Path, help="where to work; must be empty (default: a temporary folder)")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="kills-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"--folder {folder} is not empty; name another one")
    tqdm.monitor_interval = 0  # a thread, which a fork would not survive
    draw = random.Random(options.seed)
    begin = ["fit", "--config", str(folder / "tiny.yaml")]
    places = {name: folder / name for name in ("alone", "killed", "together")}
    for place in places.values():
        place.mkdir()
    finish(start(lambda: make_config(folder), folder), folder)

    bar = tqdm(total=options.kills + 2, unit="run", desc="left alone")
    clock = time.monotonic()
    number = start(lambda: train.main(begin), places["alone"])
    alone = Victim(places["alone"], begin, draw, 0.0)
    while not ended(number) and alone.logged() < 2:
        time.sleep(0.01)
    starting = time.monotonic() - clock
    finish(number, places["alone"])
    reference = alone.run
    assert reference is not None
    bar.update()

    victim = Victim(places["killed"], begin, draw, starting)
    count: Counter[str] = Counter()
    pool: list[str] = []
    different: dict[Path, list[str]] = {}
    while count.total() < options.kills or victim.run is not None:
        if not pool:
            pool = [*INSIDE, *OUTSIDE, OUTSIDE[1], OUTSIDE[1]]
            draw.shuffle(pool)
        place = pool.pop() if count.total() < options.kills else None
        bar.set_description(place or "to the end")
        run = victim.run
        if victim.attempt(place):
            assert place is not None
            count[place] += 1
            bar.update()
            where = "no step" if not victim._steps else f"step {victim._steps}"
            tqdm.write(f"kill {count.total():2d} {place}, {where} saved")
        else:
            run = run or runs(places["killed"] / "runs")[0]
            different[run] = compare(reference, run)
            tqdm.write(f"{run.name} ended: {'equal' if not different[run] else different[run][:5]}")
            victim._steps = 0

    bar.set_description("two at once")
    pair = [start(lambda: train.main(begin), places["together"]) for _ in range(2)]
    for number in pair:
        finish(number, places["together"])
    twins = runs(places["together"] / "runs")
    assert len(twins) == 2, f"two runs share a folder: {twins}"
    different |= {run: compare(reference, run) for run in twins}
    bar.update()
    bar.close()

    steps = steps_done(checkpoint_file(reference, LAST))
    with open(reference / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    values = sum(bool(value) for row in rows for name, value in row.items() if name.startswith(("train/", "val/")))
    print(f"\n{count.total()} kills in {victim.finished} runs of {steps} steps:")
    for place, n in sorted(count.items()):
        print(f"  {n:3d}  {place}")
    print(
        f"compared each with the run left alone: last.ckpt, best.ckpt, {len(rows)} rows with {values} train/* and "
        "val/* values"
    )
    equal = sum(not names for names in different.values())
    print(f"{equal} of {len(different)} runs ({victim.finished} killed, 2 started at once) are equal to it bit for bit")
    for run, names in different.items():
        if names:
            print(f"  {run}: {len(names)} differences, such as {names[:5]}")
    if equal < len(different):
        sys.exit(f"NOT EQUAL; everything is in {folder}")
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
