"""Train and plan for long in one process, and see whether memory, open files and threads stay flat.

    python -m benchmarks.soak
    python -m benchmarks.soak --steps 200 --plans 50 --folder /tmp/soak --plot soak.svg

A small job on storms with the bundled backbone: 2,000 optimizer steps with a validation every 40 and a picture every
160, TensorBoard and checkpoints as in any run; then 500 times `gssr plan` with a JSON and a chart, every tenth time
with texts. After a warm-up of two fifths, the allocated memory of each phase must rise by no more than `--most` MB
in 1,000 steps (the median of the slopes between all pairs of samples), and no file or thread may be added. Resident
memory holds gaps that malloc keeps, and the system takes pages back when others need them. Needs Linux with glibc.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from lightning import Callback, LightningModule, Trainer
from tqdm import trange

from gssr.runs.options import DEFAULT_CONFIG

WARM_UP = 0.4
MEMORY, COUNTS = ("resident", "anonymous", "allocated"), ("files", "threads")
EVERY = 10  # steps between two samples of training
GOAL = "Become a category 3 hurricane in 48 hours"


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of glibc, in bytes."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = list(zip(_names, [ctypes.c_size_t] * len(_names), strict=True))


def measure() -> dict[str, float]:
    """Memory of this process in MB, open files and threads.

    resident: all pages; anonymous: those of no file, swapped ones too; allocated: what was asked of malloc and not yet
    given back, which is free of the gaps that malloc keeps; blocks: objects of Python, in thousands.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    resident, anonymous, swapped = (int(status[key].split()[0]) / 1024 for key in ("VmRSS", "RssAnon", "VmSwap"))
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Mallinfo
    found = mallinfo()
    return {
        "resident": resident,
        "anonymous": anonymous + swapped,
        "allocated": (found.uordblks + found.hblkhd) / 2**20,
        "blocks": sys.getallocatedblocks() / 1000,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
    }


class Meter(Callback):
    """Appends a sample to `file` after every few steps."""

    def __init__(self, file: str) -> None:
        self.file = file

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step % EVERY == 0:
            append(Path(self.file), trainer.global_step)


def append(file: Path, step: int) -> None:
    gc.collect()  # what waits for the collector is no leak
    with open(file, "a", encoding="utf-8") as samples:
        samples.write(json.dumps({"step": step, **measure()}) + "\n")


def train_long(folder: Path, steps: int, samples: Path) -> Path:
    """Train in this process; returns the best checkpoint."""
    import train
    from gssr.network import goal_encoder

    goal_encoder.KEPT_BYTES = 2**24  # kept goals reach their bound within the warm-up
    config = yaml.safe_load((DEFAULT_CONFIG.parent / "debug.yaml").read_text(encoding="utf-8"))
    meter = {"class_path": "benchmarks.soak.Meter", "init_args": {"file": str(samples)}}
    config["trainer"] |= {
        "max_epochs": -1, "max_steps": steps, "limit_train_batches": 40, "limit_val_batches": 2, "accelerator": "cpu",
        "enable_progress_bar": False, "callbacks": [meter],
    }  # fmt: skip
    config |= {"checkpoint": {"every_n_steps": 50, "keep": 1}}
    config["plan_rollouts"]["every_n_epochs"] = 4
    config["data"]["init_args"] |= {"stride": 8}
    (folder / "soak.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    train.main(["fit", "--config", str(folder / "soak.yaml")])
    (best,) = (folder / "runs").glob("*/checkpoints/best.ckpt")
    return best


def plan_long(folder: Path, plans: int, checkpoint: Path, samples: Path) -> None:
    """Call `gssr plan` in this process, each time as a user does: load, plan, write, print."""
    from gssr.commands.main import main as gssr

    lines = ["time,wind,pressure,latitude,longitude"]
    for i in range(8):
        moment = f"2026-09-{1 + i // 4:02d}T{6 * i % 24:02d}:00"
        lines.append(f"{moment},{50 + 3 * i},{990 - 2 * i},{20 + i / 4},{-60 - i / 2}")
    history = folder / "history.csv"
    history.write_text("\n".join(lines) + "\n", encoding="utf-8")
    args = ["plan", "--input", str(history), "--goal", GOAL, "--ckpt_path", str(checkpoint), "--samples", "8"]
    args += ["--json", str(folder / "plan.json"), "--plot", str(folder / "plan.png")]
    for i in trange(plans, unit="plan", mininterval=10):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            gssr([*args, "--seed", str(i), *([] if i % 10 == 0 else ["--no-texts"])])
        append(samples, i + 1)


def slope(steps: np.ndarray, values: np.ndarray) -> float:
    """The median of the slopes between all pairs of samples, a thousand steps; a jump moves it little."""
    a, b = np.triu_indices(len(steps), 1)
    return float(np.median((values[b] - values[a]) / (steps[b] - steps[a]))) * 1000


def judge(name: str, samples: list[dict[str, float]], most: float) -> list[str]:
    """Print what one phase did after the warm-up, and name what was not flat."""
    columns = {key: np.array([sample[key] for sample in samples]) for key in samples[0]}
    late = columns["step"] > WARM_UP * columns["step"][-1]
    early = ~late
    print(f"{name}: {len(samples)} samples to step {columns['step'][-1]:.0f}; after a warm-up of {WARM_UP:.0%}:")
    for key in (*MEMORY, "blocks"):
        part = columns[key][late]
        unit = "thousand" if key == "blocks" else "MB"
        rise = slope(columns["step"][late], part)
        print(f"  {key:9s} {part.min():6.1f} to {part.max():6.1f} {unit}, slope {rise:+.1f} in 1,000 steps")
    rise = slope(columns["step"][late], columns["allocated"][late])
    wrong = [f"{name}: allocated memory rises by {rise:.1f} MB in 1,000 steps"] if rise > most else []
    for key in COUNTS:
        before, after = int(columns[key][early].max()), int(columns[key][late].max())
        print(f"  {key} {int(columns[key][late].min())} to {after} (warm-up: at most {before})")
        wrong += [f"{name}: {key} rose from {before} to {after}"] if after > before else []
    return wrong


def draw(file: Path, phases: dict[str, list[dict[str, float]]]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(phases), figsize=(9, 4), sharex="col", squeeze=False, layout="constrained")
    for column, (name, samples) in enumerate(phases.items()):
        steps = [sample["step"] for sample in samples]
        for key in MEMORY:
            axes[0, column].plot(steps, [sample[key] for sample in samples], label=key, linewidth=1)
        for key in COUNTS:
            axes[1, column].plot(steps, [sample[key] for sample in samples], label=key, linewidth=1)
        for axis in axes[:, column]:
            axis.axvspan(0, WARM_UP * steps[-1], color="0.93")
            axis.set_ylim(bottom=0)
        axes[0, column].set_title(name)
        axes[1, column].set_xlabel(name)
    axes[0, 0].set_ylabel("memory (MB)")
    axes[1, 0].set_ylabel("count")
    for row in axes:
        row[0].legend(frameon=False)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def read(file: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps (default: 2000)")
    parser.add_argument("--plans", type=int, default=500, help="calls of gssr plan (default: 500)")
    parser.add_argument("--most", type=float, default=5.0, help="MB that memory may rise in 1,000 steps (default: 5)")
    parser.add_argument("--folder", type=Path, help="where to work, empty or new (default: a temporary folder)")
    parser.add_argument("--plot", type=Path, default=Path("soak.svg"), help="the picture (default: soak.svg)")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="soak-"))).resolve()
    plot = options.plot.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"--folder {folder} is not empty; name another one")
    os.environ.setdefault("GSSR_CACHE", str(folder / "cache"))
    os.chdir(folder)
    files = {name: folder / f"{name}.jsonl" for name in ("training steps", "plans")}
    clock = time.monotonic()
    best = train_long(folder, options.steps, files["training steps"])
    plan_long(folder, options.plans, best, files["plans"])
    phases = {name: read(file) for name, file in files.items()}
    draw(plot, phases)
    wrong = [reason for name, samples in phases.items() for reason in judge(name, samples, options.most)]
    print(f"{time.monotonic() - clock:.0f} s; samples in {folder}, picture {plot}")
    if wrong:
        sys.exit("NOT FLAT: " + "; ".join(wrong))
    print("flat")


if __name__ == "__main__":
    main()
