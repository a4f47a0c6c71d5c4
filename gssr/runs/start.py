"""Where a stage starts from and where it writes: a checkpoint, the options that changed since then, a folder."""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment

from gssr import ranks
from gssr.files import atomic_write
from gssr.runs.checkpoint_file import readable
from gssr.runs.config import read_run_config
from gssr.runs.folders import (
    CHECKPOINTS,
    CONFIG,
    RUNS,
    Found,
    RunError,
    claim,
    find_checkpoint,
    new_folder,
    new_run,
    refuse_links,
    run_path,
)
from gssr.runs.options import flat

# What the first process passes on to those that Lightning starts from it.
FOLDER_OF_FIRST, CHECKPOINT_OF_FIRST = "GSSR_RUN_FOLDER", "GSSR_CHECKPOINT"


class Start:
    """The checkpoint and the folder of one call of train.py.

    Args:
        chosen: stage, ckpt_path, run and asks, from `choose`.

    Raises RunError where there is no such checkpoint, or none is given where one is needed.
    """

    def __init__(self, chosen: Namespace) -> None:
        self.stage: str = chosen.stage
        self.run_name: str | None = chosen.run
        self.found: Found | None = None
        self.note = ""  # about a damaged checkpoint, for the user
        self.done_steps = 0
        self.folder: Path | None = None
        self._claim: Any = None  # the open lock file of a run that this process trains
        if chosen.ckpt_path is not None:
            # Another run may have become the newest since the first process looked.
            path = None if ranks.is_first() else os.environ.get(CHECKPOINT_OF_FIRST)
            if path is None:
                self.found = find_checkpoint(chosen.ckpt_path, chosen.run, to_train=self.stage == "fit")
            else:
                self.found = find_checkpoint(path)
            if self.found.run is not None:
                refuse_links(self.found.run)
            self.found, self.done_steps, self.note = readable(self.found, self.stage == "fit")
            if self.found.checkpoint is not None:
                os.environ[CHECKPOINT_OF_FIRST] = str(self.found.checkpoint)
        elif self.stage != "fit" and not chosen.asks:
            raise RunError(f"{self.stage} needs a trained network: add --ckpt_path best, or the path of a checkpoint")

    @property
    def checkpoint(self) -> Path | None:
        return None if self.found is None else self.found.checkpoint

    @property
    def run(self) -> Path | None:
        """The run of the checkpoint; None where there is no checkpoint or it lies outside of any run."""
        return None if self.found is None else self.found.run

    @property
    def continues(self) -> bool:
        """Whether the folder is a run that existed before."""
        return self.found is not None and self.folder == self.found.run

    @property
    def is_empty(self) -> bool:
        """Whether the folder has no checkpoint yet."""
        return self.folder is not None and not any((self.folder / CHECKPOINTS).glob("*.ckpt"))

    def make_folder(self, data: str, options: str, from_outside: bool) -> Path:
        """A new run, the run that goes on, or a folder for the results of a checkpoint, inside its run.

        Args:
            data: name of the data, for the name of a new run.
            options: of a new run, as YAML.
            from_outside: see `started_from_outside`.
        """
        if not ranks.is_first():
            self.folder = self._folder_of_first()
            return self.folder
        if self.stage != "fit":
            folder = new_folder(self.run or RUNS, self.stage)
        elif self.found is not None and self.found.is_last:
            assert self.found.run is not None
            folder = self.found.run
            self._claim = claim(folder)
        else:
            name = None if self.found is not None else self.run_name
            if name is None and from_outside:
                raise RunError(
                    "processes that torchrun, srun or several nodes start cannot agree on the name of a new run; start "
                    "it with --run NAME, or go on with a run by --run NAME --ckpt_path last"
                )
            folder = new_run(data, name)
            self._claim = claim(folder)  # before the folder has a config, by which others find it
            with atomic_write(folder / CONFIG) as file:
                file.write(options)
        os.environ[FOLDER_OF_FIRST] = str(folder)
        self.folder = folder
        return folder

    def _folder_of_first(self) -> Path:
        """The folder that the first process makes; the others do not write into it."""
        if FOLDER_OF_FIRST in os.environ:
            return Path(os.environ[FOLDER_OF_FIRST])
        if self.found is not None:
            return self.found.run or RUNS
        return RUNS if self.run_name is None else run_path(self.run_name)

    def discard(self) -> bool:
        """Remove a new run that failed before it saved anything, so that `last` skips it. Returns whether it did."""
        if self._claim is None or self.continues or not self.is_empty:
            return False
        shutil.rmtree(str(self.folder), ignore_errors=True)
        return True

    def release(self) -> None:
        """Let other processes train this run."""
        if self._claim is not None:
            self._claim.close()


class Changes:
    """Options that differ from those of the run whose checkpoint is used, as {dotted name: (old, new)}."""

    def __init__(self) -> None:
        self.options: dict[str, tuple[Any, Any]] = {}

    def find(self, run: Path, options: dict[str, Any], trains: bool) -> None:
        """Compare with a run's config. Raises RunError for another seed where training (`trains`) goes on."""
        old, new = flat(read_run_config(run)), flat(options)
        keys = sorted({key for key in {*old, *new} if old.get(key) != new.get(key)})
        self.options = {key: (old.get(key), new.get(key)) for key in keys}
        seeds = [key for key in keys if key.split(".")[-1] in ("seed", "seed_everything")]
        if trains and seeds:
            raise RunError(
                f"{', '.join(map(self._line, seeds))}: a resumed run goes on with the random numbers of its "
                "checkpoint; leave the seed as it was, or start a new run without --ckpt_path"
            )

    def of_model(self) -> bool:
        return any(key.startswith("model.") for key in self.options)

    def listed(self) -> str:
        """One indented line an option."""
        return "".join(f"\n  {self._line(key)}" for key in self.options)

    def _line(self, key: str) -> str:
        old, new = self.options[key]
        return f"{key.replace('.init_args', '')} {old} -> {new}"


def started_from_outside(num_nodes: int | None) -> bool:
    """Whether some processes of this run are not started by this one (torchrun, srun, several nodes)."""
    if num_nodes not in (None, 1):
        return True
    name = "SLURM_NTASKS" if SLURMEnvironment.detect() else "WORLD_SIZE"
    return int(os.environ.get(name, "1")) > 1
