"""Runs of the goal network: train.py trains a missing one in a process of its own; then they are loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import benchmarks.ablations  # noqa: F401  checkpoints of ablations name its classes
from benchmarks.quality.cells import Cells
from benchmarks.quality.sets import DataSet
from gssr.network import GoalNetwork
from gssr.runs.folders import BEST, CONFIG, LAST, checkpoint_file

TRAIN = Path(__file__).parents[2] / "train.py"
# Runs of this name read texts and write none, which forecasts do not need.
NUMBERS = "numbers-seed"
NUMBERS_OPTIONS = ("--model.objective.alpha_text=0",)
# `--quick` trains just enough to see that everything runs.
QUICK_OPTIONS = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=8", "--trainer.limit_val_batches=2")


def trained(
    data: DataSet, folder: Path, seed: int, configs: Sequence[Path] = (), options: Sequence[str] = (), threads: int = 1
) -> Path:
    """The run in a folder, trained to its end; an interrupted one continues.

    `configs` are read over those of the data, `options` over all. A log beside the folder holds what training prints.

    Raises RuntimeError with the end of the log if training fails.
    """
    settings = {"configs": [file.name for file in configs], "options": list(options), "seed": seed}
    seeds = [f"--{key}={seed}" for key in ("seed_everything", "model.seed", "data.seed")]
    return train(folder, [*data.arguments(configs), *seeds, *options], settings, threads)


def refitted(run: Path, folder: Path, threads: int = 1) -> Path:
    """The run in a folder, trained as `run` was, but on the validation part, too, for as many passes as were best.

    Raises RuntimeError as `trained` does, and ValueError for a run without a best checkpoint.
    """
    state = torch.load(_best(run), map_location="cpu", weights_only=True)
    passes = state["epoch"] + 1
    options = ["--data.train_through=val", "--checkpoint.monitor=null"]
    options += [f"--trainer.max_epochs={passes}", "--trainer.max_steps=-1"]
    settings = {"run": run.name, "step": state["global_step"], "passes": passes}
    return train(folder, ["--config", str((run / CONFIG).resolve()), *options], settings, threads)


def train(folder: Path, arguments: Sequence[str], settings: dict[str, Any], threads: int) -> Path:
    """The run in a folder by these arguments of `train.py fit`, which `settings` tell from others.

    Raises RuntimeError with the end of the log if training fails.
    """
    done = Cells(folder)
    if done.get("trained", settings) is not None and kept(folder).exists():
        return folder
    command = [sys.executable, str(TRAIN), "fit", "--run", str(folder.resolve()), "--threads", str(threads)]
    command += ["--ckpt_path", "last"] if (folder / CONFIG).exists() else arguments
    log = folder.parent / f"{folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=TRAIN.parent, check=False).returncode
    if code:
        end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise RuntimeError(f"training into {folder} ended with {code}:\n{end}")
    done.make("trained", settings, dict)
    return folder


def kept(run: Path) -> Path:
    """The checkpoint to measure: the best one, or the last of a run that has no best one (`refitted`)."""
    best = checkpoint_file(run, BEST)
    return best if best.exists() else checkpoint_file(run, LAST)


def load(run: Path) -> GoalNetwork:
    """The network of a run's checkpoint.

    Raises ValueError for a run without one.
    """
    file = kept(run)
    if not file.exists():
        raise ValueError(f"{run} has no checkpoint; train it first, or let this command train it")
    return GoalNetwork.load_from_checkpoint(file, map_location="cpu").eval()


def _best(run: Path) -> Path:
    file = checkpoint_file(run, BEST)
    if not file.exists():
        raise ValueError(f"{run} has no best checkpoint; train it first, or let this command train it")
    return file


def identity(run: Path) -> dict[str, Any]:
    """A run, and size and time of its checkpoint; cells of another checkpoint are made anew."""
    stat = kept(run).stat()
    step = torch.load(kept(run), map_location="cpu", weights_only=True)["global_step"]
    return {"run": run.name, "step": step, "bytes": stat.st_size, "modified": int(stat.st_mtime)}
