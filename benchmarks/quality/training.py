"""Runs of the goal network: trained where they are missing, by train.py in a process of its own, and loaded again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality.cells import Cells
from benchmarks.quality.sets import DataSet
from gssr.network import GoalNetwork
from gssr.runs import BEST, CONFIG, checkpoint_file

TRAIN = Path(__file__).parents[2] / "train.py"
# What forecasts alone need, in runs of that name: texts are read, and not written.
NUMBERS = "numbers-seed"
NUMBERS_OPTIONS = ("--model.alpha_text=0",)
# What `--quick` trains: enough to see that everything runs.
QUICK_OPTIONS = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=8", "--trainer.limit_val_batches=2")


def trained(
    data: DataSet, folder: Path, seed: int, configs: Sequence[Path] = (), options: Sequence[str] = (), threads: int = 1
) -> Path:
    """The run in that folder, trained to its end if it is not yet; one that was interrupted goes on.

    `configs` are read on top of the data's, `options` on top of all. What is printed goes to a log beside the folder.

    Raises RuntimeError with the end of the log where training fails.
    """
    done = Cells(folder)
    settings = {"configs": [file.name for file in configs], "options": list(options), "seed": seed}
    if done.get("trained", settings) is not None and checkpoint_file(folder, BEST).exists():
        return folder
    seeds = [f"--{key}={seed}" for key in ("seed_everything", "model.seed", "data.seed")]
    command = [sys.executable, str(TRAIN), "fit", "--run", str(folder.resolve()), "--threads", str(threads)]
    if (folder / CONFIG).exists():
        command += ["--ckpt_path", "last"]
    else:
        command += [*data.arguments(configs), *seeds, *options]
    log = folder.parent / f"{folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=TRAIN.parent, check=False).returncode
    if code:
        end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise RuntimeError(f"training into {folder} ended with {code}:\n{end}")
    done.make("trained", settings, dict)
    return folder


def load(run: Path) -> GoalNetwork:
    """The network of a run's best checkpoint.

    Raises ValueError for a run without one.
    """
    file = checkpoint_file(run, BEST)
    if not file.exists():
        raise ValueError(f"{run} has no best checkpoint; train it first, or leave it to this command")
    return GoalNetwork.load_from_checkpoint(file, map_location="cpu").eval()


def identity(run: Path) -> dict[str, Any]:
    """Run, and size and time of its best checkpoint: another one makes its cells anew."""
    stat = checkpoint_file(run, BEST).stat()
    step = torch.load(checkpoint_file(run, BEST), map_location="cpu", weights_only=True)["global_step"]
    return {"run": run.name, "step": step, "bytes": stat.st_size, "modified": int(stat.st_mtime)}
