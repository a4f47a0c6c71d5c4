"""Places inside training that are hard to hit from outside, and how a process is made to die there.

Nothing in the package knows of this: a forked process replaces a function by one that dies at a chosen call. Most aims
are renames, since every file is written beside its place and takes its name by one; that catches a write whoever does
it.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import callbacks.csv_log
import callbacks.plan_rollouts
import gssr.backbone
import gssr.backbone.table
from datamodules.tables.store import Writer
from gssr.network import GoalNetwork

PARTS = ("with a part written", "before it took its name", "after it took its name")


@dataclass(frozen=True)
class Aim:
    """Where a process dies.

    kind: name for `--aim`; words: the place.
    arm: prepares this process to die there the n-th time, with a share of the write done; None: a kill from outside.
    most: largest n that a run is sure to reach.
    forgets: files of the cache that are deleted before, as a pattern, so that they are made again.
    rank: which of two processes dies; None: training has one process.
    """

    kind: str
    words: str
    arm: Callable[[int, float], None] | None = None
    most: int = 1
    forgets: str | None = None
    rank: int | None = None


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(owner: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> Callable[[int, float], None]:
    """Arm: die in place of the n-th call of `owner.name` for which `when(*args)` holds."""

    def arm(n: int, share: float) -> None:
        original, calls = getattr(owner, name), itertools.count(1)

        def call(*args: Any, **kwargs: Any) -> Any:
            if when(*args) and next(calls) == n:
                die()
            return original(*args, **kwargs)

        setattr(owner, name, call)

    return arm


def die_at_rename(target: str, part: str) -> Callable[[int, float], None]:
    """Arm: die at the n-th rename to a path like the pattern `target`; `part` is one of PARTS."""

    def arm(n: int, share: float) -> None:
        original, calls = os.replace, itertools.count(1)

        def call(draft: Any, path: Any, **kwargs: Any) -> None:
            if not fnmatch(str(path), target) or next(calls) != n:
                return original(draft, path, **kwargs)
            if part == PARTS[0]:
                cut(Path(draft), share)
            elif part == PARTS[2]:
                original(draft, path, **kwargs)
            return die()

        os.replace = call

    return arm


def cut(draft: Path, share: float) -> None:
    """Keep the first part of a draft; of a folder the files up to one that is cut, as they are written."""
    files = sorted(file for file in draft.rglob("*") if file.is_file()) if draft.is_dir() else [draft]
    last = int(share * len(files))
    os.truncate(files[last], int(share * files[last].stat().st_size))
    for file in files[last + 1 :]:
        file.unlink()


def die_in_row(n: int, share: float) -> None:
    """Arm: die in the n-th row that is added to the log, with a part of its line written."""
    rows, writer = itertools.count(1), csv.DictWriter

    class HalfRow(writer):
        def __init__(self, file: Any, columns: Any) -> None:
            super().__init__(file, columns)
            self.file, self.columns = file, columns

        def writerow(self, row: Any) -> Any:
            if next(rows) < 4 * n:
                return super().writerow(row)
            line = io.StringIO()
            writer(line, self.columns).writerow(row)
            self.file.write(line.getvalue()[: int(share * len(line.getvalue()))])
            self.file.flush()
            die()

    callbacks.csv_log.csv.DictWriter = HalfRow


def small_groups() -> None:
    """Read texts in small groups and save after each, so that a build of the text cache has several parts."""
    gssr.backbone.table.TEXTS_PER_STEP = 2
    gssr.backbone.table.SECONDS_BETWEEN_SAVES = 0.0


def forget(cache: Path, pattern: str) -> bool:
    """Delete what matches in a cache; whether there was anything."""
    found = list(cache.glob(pattern))
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return bool(found)


def renames(kind: str, what: str, target: str, most: int, forgets: str | None = None) -> list[Aim]:
    """The three moments of a file that is written."""
    return [Aim(kind, f"{what}, {part}", die_at_rename(target, part), most, forgets) for part in PARTS]


TEXTS, TABLES = "texts-*", "tables"
IN_VALIDATION = Aim("validation", "in a validation", die_at(GoalNetwork, "validation_step"))
IN_STEP = Aim("step", "in a training step", die_at(GoalNetwork, "training_step"), 3)
WRITES = renames("write", "a checkpoint", "*.ckpt", 3)
ALONE = (
    Aim("random", "while it started"),
    Aim("random", "while it trained"),
    *WRITES,
    Aim("write", "after a checkpoint got a second name", die_at(os, "link")),
    IN_VALIDATION,
    Aim("validation", "in a plan picture", die_at(callbacks.plan_rollouts, "fan_chart_of")),
    Aim("log", "in a row of the log", die_in_row, 2),
    *renames("log", "the log", "*/metrics.csv", 2),
    Aim("cache", "between two groups of texts", die_at(gssr.backbone.FrozenBackbone, "mean_states"), 4, TEXTS),
    *renames("cache", "the text cache", f"*/{TEXTS}", 4, TEXTS),
    Aim("store", "as a table was read", die_at(Writer, "add"), 1, TABLES),
    *renames("store", "a table store", f"*/{TABLES}/*", 1, TABLES),
)
PAIR = tuple(
    replace(aim, kind="ddp", words=f"rank {rank} of 2, {aim.words}", rank=rank)
    for rank, aims in ((0, [IN_STEP, IN_VALIDATION, *WRITES]), (1, [IN_STEP, IN_VALIDATION]))
    for aim in aims
)
AIMS = (*ALONE, *PAIR)
KINDS = tuple(dict.fromkeys(aim.kind for aim in AIMS))
