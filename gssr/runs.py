"""Run folders and the checkpoints in them: where a run lives, which one is the newest, what `last` and `best` mean.

    runs/storms-20250131-142501/
        config.yaml                 every option of the run
        checkpoints/last.ckpt       newest, best.ckpt by the monitored score, step-000400.ckpt older ones
        metrics.csv, events.out...  logs

Nothing but the standard library is used here.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

RUNS = Path("runs")
CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
LAST, BEST = "last", "best"
STAGES = ("fit", "validate", "test", "predict")
_STAMP = "%Y%m%d-%H%M%S"
_STAMPED = re.compile(r"-(\d{8}-\d{6})(?:-(\d+))?$")


class RunError(ValueError):
    """What was asked for is not there; the message says what is, and what to do."""


@dataclass(frozen=True)
class Found:
    """A checkpoint file and the run that it belongs to (None: it lies outside of any run)."""

    checkpoint: Path
    run: Path | None

    @property
    def is_last(self) -> bool:
        """Whether this is where its run stands, so that training from here goes on with that run."""
        return self.run is not None and self.checkpoint == checkpoint_file(self.run, LAST)


def choose(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take what decides about the run off the command line: it must be known before the options can be read.

    Lightning, given `ckpt_path` among its options, would also put the checkpoint's hyper-parameters over the user's.

    Returns:
        stage, ckpt_path, run (None where they are not given) and asks (for help); and the other arguments.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--ckpt_path")
    parser.add_argument("--run")
    chosen, rest = parser.parse_known_args(args)
    if chosen.ckpt_path in ("null", "None", "none", ""):
        chosen.ckpt_path = None
    chosen.stage = rest[0] if rest and rest[0] in STAGES else None
    chosen.asks = any(arg in ("-h", "--help") or ".help" in arg.split("=")[0] for arg in rest)
    if chosen.run is not None and chosen.ckpt_path is None and chosen.stage != "fit":
        chosen.ckpt_path = BEST
    return chosen, rest


def checkpoint_file(run: Path, name: str) -> Path:
    return run / CHECKPOINTS / f"{name}.ckpt"


def new_folder(parent: Path, name: str, now: datetime | None = None) -> Path:
    """Make and return `parent/name-<date-time>`, with -2, -3, … behind it where that is taken.

    `mkdir` either makes the folder or fails, so that two processes that ask at the same moment get two folders.
    """
    stem = f"{name}-{(now or datetime.now()).strftime(_STAMP)}"
    parent.mkdir(parents=True, exist_ok=True)
    count = 1
    while True:
        folder = parent / (stem if count == 1 else f"{stem}-{count}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            count += 1


def new_run(data: str, name: str | None = None, root: Path = RUNS) -> Path:
    """The folder of a new run, named after its data and the time, or as the user says. Raises RunError if that is taken."""
    if name is None:
        return new_folder(root, data)
    folder = run_path(name, root)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise RunError(
            f"a run {folder} exists; go on with it by adding --ckpt_path last, or choose another name for --run"
        ) from None
    return folder


def run_path(name: str, root: Path = RUNS) -> Path:
    """`NAME` means `runs/NAME`; anything with a folder in it, or a folder that exists as given, means itself."""
    path = Path(name)
    return path if len(path.parts) > 1 or path.is_absolute() or (path / CONFIG).exists() else root / name


def runs(root: Path = RUNS) -> list[Path]:
    """All runs, the one that was started last first."""
    found = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    return sorted(found, key=_started, reverse=True)


def find_checkpoint(which: str, run: str | None = None, root: Path = RUNS) -> Found:
    """The file that `which` means: `last` or `best` of the named run, or of the newest run that has one, or a path.

    Raises RunError when there is none.
    """
    if which not in (LAST, BEST):
        return _explicit(which, run, root)
    if run is not None:
        folder = run_path(run, root)
        if not folder.is_dir():
            raise RunError(f"no run {folder}; {_list(root)}")
        file = checkpoint_file(folder, which)
        if not file.exists():
            raise RunError(f"run {folder} has no {file.relative_to(folder)}; it has {_have(folder)}")
        return Found(file, folder)
    everything = runs(root)
    for folder in everything:
        file = checkpoint_file(folder, which)
        if file.exists():
            return Found(file, folder)
    what = f"none of the {len(everything)} runs there" if everything else "there is no run, and so none of them"
    raise RunError(
        f"--ckpt_path {which}: {what} has a {which} checkpoint under {root}; train first: python train.py fit"
    )


def _explicit(which: str, run: str | None, root: Path) -> Found:
    file = Path(which)
    if run is not None and not file.exists():
        folder = run_path(run, root)
        candidates = [folder / which, folder / CHECKPOINTS / which, checkpoint_file(folder, which)]
        file = next((path for path in candidates if path.is_file()), file)
    if not file.is_file():
        raise RunError(
            f"--ckpt_path {which}: no such file; expected {LAST}, {BEST} or the path of a checkpoint; {_list(root)}"
        )
    folder = file.parent.parent
    return Found(file, folder if file.parent.name == CHECKPOINTS and (folder / CONFIG).exists() else None)


def _started(run: Path) -> tuple[datetime, int]:
    """When a run began: its name says so, else the age of its config (a run that was named by its user)."""
    match = _STAMPED.search(run.name)
    if match:
        try:
            return datetime.strptime(match[1], _STAMP), int(match[2] or 1)
        except ValueError:
            pass
    config = run / CONFIG
    return datetime.fromtimestamp((config if config.exists() else run).stat().st_mtime), 1


def _have(run: Path) -> str:
    return ", ".join(sorted(path.name for path in (run / CHECKPOINTS).glob("*.ckpt"))) or "no checkpoint at all"


def _list(root: Path) -> str:
    names = [path.name for path in runs(root)]
    if not names:
        return f"there are no runs under {root}"
    return "runs, newest first: " + ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
