"""Run folders and the checkpoints in them: the newest run, and the files that `last` and `best` name.

    runs/storms-20250131-142501/
        config.yaml                 every option of the run
        .claim                      locked by the process that trains it
        checkpoints/last.ckpt       newest, best.ckpt by the monitored score, step-000400.ckpt older ones
        metrics.csv, events.out...  logs

Uses nothing but the standard library.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from gssr import shown
from gssr.files import DRAFT

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None

RUNS = Path("runs")
CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
CLAIM = ".claim"
LAST, BEST = "last", "best"
_STAMP = "%Y%m%d-%H%M%S"
_STAMPED = re.compile(r"-(\d{8}-\d{6})(?:-(\d+))?$")


class RunError(ValueError):
    """A run, checkpoint or option that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Found:
    """A checkpoint file and the run that it belongs to (None: it lies outside of any run).

    A run that was stopped before its first checkpoint has none; training begins it anew. `stands_in` marks an older
    state that replaces a `last` that cannot be read.
    """

    checkpoint: Path | None
    run: Path | None
    stands_in: bool = False

    @property
    def is_last(self) -> bool:
        """Whether this is the newest state of its run, so that training from here goes on in the run's folder."""
        if self.run is None or self.checkpoint is None:
            return self.run is not None
        return self.stands_in or self.checkpoint == checkpoint_file(self.run, LAST)


def checkpoint_file(run: Path, name: str) -> Path:
    return run / CHECKPOINTS / f"{name}.ckpt"


def new_folder(parent: Path, name: str, now: datetime | None = None) -> Path:
    """Make and return `parent/name-<date-time>`, with -2, -3, … appended where that exists.

    `mkdir` either makes the folder or fails, so that two processes at the same moment get two folders.
    """
    stem = f"{name}-{(now or datetime.now()).strftime(_STAMP)}"
    parent.mkdir(parents=True, exist_ok=True)
    folder, count = parent / stem, 1
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            count += 1
            folder = parent / f"{stem}-{count}"


def new_run(data: str, name: str | None = None, root: Path = RUNS) -> Path:
    """The folder of a new run, named by the user or after its data and the time. Raises RunError if the name exists."""
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
    """`NAME` means `runs/NAME`, anything with a folder in it means itself.

    Where `runs/NAME` has no checkpoints, a folder NAME that has some means itself. An export has none, so that a run
    and an export may have one name.
    """
    path, usual = Path(name), root / name
    here = (path / CHECKPOINTS).is_dir() and not (usual / CHECKPOINTS).is_dir()
    return path if len(path.parts) > 1 or path.is_absolute() or here else usual


def run_argument(run: Path, root: Path = RUNS) -> str:
    """What names a run behind `--run`, quoted for a shell."""
    names = (run.name, str(run), str(run.absolute()))
    means = (name for name in names if run_path(name, root) in (run, run.absolute()) and not name.startswith("-"))
    return shown.argument(next(means))


def runs(root: Path = RUNS) -> list[Path]:
    """All runs, the newest first, without drafts."""
    found = [path for path in root.iterdir() if path.is_dir() and path.suffix != DRAFT] if root.is_dir() else []
    return sorted(found, key=_started, reverse=True)


def find_checkpoint(which: str, run: str | None = None, root: Path = RUNS, to_train: bool = False) -> Found:
    """The file that `which` names: `last` or `best` of the named run, or of the newest run that has one, or a path.

    With `to_train`, `last` may be a run that was stopped before its first checkpoint, which then begins anew: a user
    who was stopped wants to go on with that run, not with the one before it.

    Raises RunError when there is none.
    """
    if which not in (LAST, BEST):
        return _explicit(which, run, root)
    folders = runs(root) if run is None else [run_path(run, root)]
    for folder in folders:
        file = checkpoint_file(folder, which)
        if to_train and which == LAST and (folder / CONFIG).exists():
            # `last` even where that cannot be read: an older state then replaces it.
            return Found(file if any(file.parent.glob("*.ckpt")) else None, folder)
        if file.exists():
            return Found(file, folder)
    if run is None:
        raise RunError(
            f"--ckpt_path {which}: there is no run with a {which} checkpoint among the {len(folders)} under {root}; "
            "train first: python train.py fit"
        )
    if not folder.is_dir():
        raise RunError(f"no run {folder}; {_list(root)}")
    have = ", ".join(sorted(path.name for path in file.parent.glob("*.ckpt"))) or "no checkpoint at all"
    raise RunError(f"run {folder} has no {file.relative_to(folder)}; it has {have}")


def claim(run: Path) -> IO[str]:
    """Lock a run for this process until the returned file is closed or the process ends, even by a kill.

    Removes drafts that a killed owner left. Raises RunError when another process trains this run.
    """
    refuse_links(run)
    file = open(run / CLAIM, "a+", encoding="utf-8")  # noqa: SIM115 (open for as long as the run is ours)
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise RunError(
                f"run {run} is being trained right now by {owner}; stop that, wait for it, or name another run by --run"
            ) from None
        except OSError:
            pass  # a file system without locks
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    for draft in (*run.glob(f"*{DRAFT}"), *(run / CHECKPOINTS).glob(f"*{DRAFT}")):
        draft.unlink(missing_ok=True)
    return file


def refuse_links(run: Path) -> None:
    """Raise RunError where a run holds links or devices: what is written to them would land elsewhere."""
    for folder in (run, run / CHECKPOINTS):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_symlink():
                raise RunError(
                    f"{path} is a link to {os.readlink(path)!r}, and the files of a run are written in place; put the "
                    "file or folder itself there"
                )
            if not (path.is_file() or path.is_dir()):
                raise RunError(f"{path} is neither file nor folder; remove it from the run")


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
    """When a run began, from its name; for a name that the user chose, from the time of its config."""
    match = _STAMPED.search(run.name)
    if match:
        try:
            return datetime.strptime(match[1], _STAMP), int(match[2] or 1)
        except ValueError:
            pass
    config = run / CONFIG
    return datetime.fromtimestamp((config if config.exists() else run).stat().st_mtime), 1


def _list(root: Path) -> str:
    names = [path.name for path in runs(root)]
    if not names:
        return f"there are no runs under {root}"
    return "runs, newest first: " + ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
