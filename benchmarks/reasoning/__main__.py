"""How deep do thoughts go? Accuracy by lookups for each way back, where the head halts, and bytes by thoughts.

    python train.py fit --config configs/pretrain_thoughts.yaml     # the model, once
    python -m benchmarks.reasoning
    python -m benchmarks.reasoning --quick --tasks chains           # three minutes

Each way back is trained anew for each seed, around the same frozen model, on the same problems. What is finished is
read from --out; an interrupted call goes on.

soft token   softmax of what would be said, by the embeddings, and a learned correction
untrained    the same without the correction
linear       a learned linear map of the hidden state
spacer       a learned constant, written: more positions, no way back
written      the likeliest token, written: a chain of thought in words
"""

import argparse
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.reasoning import measures
from benchmarks.short_training import train
from datamodules.lookups import ThoughtChains
from datamodules.lookups.tasks import TASKS
from gssr.backbone import FrozenBackbone
from gssr.backbone.config import BackboneConfig
from gssr.backbone.cpu import prepare_cpu
from gssr.files import atomic_write
from gssr.reasoning.saved import load_thinker
from gssr.reasoning.thinker import Memory, Thinker
from gssr.reasoning.thoughts import LinearThought, SoftToken, Spacer, Thought, WrittenToken
from gssr.reasoning.training import ThoughtTraining

WAYS: dict[str, tuple[type[Thought], Memory]] = {
    "soft token": (SoftToken, "read_only"),
    "linear": (LinearThought, "read_only"),
    "spacer": (Spacer, "write"),
    "written": (WrittenToken, "write"),
}
RESULTS = "reasoning.json"
EXTRA = 4  # steps beyond those that are needed
THRESHOLD = 0.9


def trained(way: str, seed: int, options: argparse.Namespace, backbone: FrozenBackbone) -> Thinker:
    """The way back and its head, from --out or trained now."""
    file = options.out / f"{way.replace(' ', '-')}-{seed}.safetensors"
    if file.exists():
        return load_thinker(file, backbone)
    kind, memory = WAYS[way]
    # A written token learns nothing; its head does.
    data = ThoughtChains(tuple(options.tasks), 32, 32 * options.steps, 32, seed + 1)
    module = partial(ThoughtTraining, BackboneConfig(options.backbone), kind, memory, export=str(file))
    train(module, data, options.steps, seed)
    return load_thinker(file, backbone)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    backbone = FrozenBackbone(options.backbone)
    cells = {
        (task, d): measures.problems(task, d, options.cases, seed=1000)
        for task in options.tasks
        for d in measures.SIZES[task]
    }
    file = options.out / RESULTS
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for way, seed in tqdm([(way, seed) for way in options.ways for seed in options.seeds], unit="training"):
        if way == "untrained" and seed != options.seeds[0]:
            continue
        done = [
            found.get(task, {}).get(way, {}).get(str(d), {}).get(str(seed), {}).get("cases") == options.cases
            for task, d in cells
        ]
        if all(done):
            continue
        thinker = trained("soft token" if way == "untrained" else way, seed, options, backbone)
        if way == "untrained":
            plain = SoftToken()
            plain.prepare(backbone)
            thinker = replace(thinker, thought=plain.requires_grad_(False))
        more = EXTRA if way == "soft token" else 0
        courses = {
            # Problems of trained depths take equally many steps, so that they can be looked at together.
            (task, d): measures.course(thinker, batches, (max(d, measures.TRAINED[task]) if more else d) + more)
            for (task, d), batches in cells.items()
        }
        for (task, d), each in courses.items():
            result = measures.by_step(measures.Course(*(part[:, : d + more] for part in each)), THRESHOLD)
            found.setdefault(task, {}).setdefault(way, {}).setdefault(str(d), {})[str(seed)] = result
        for task in options.tasks if way == "soft token" else ():
            deepest = measures.TRAINED[task]
            known = [courses[task, d] for d in measures.SIZES[task] if d <= deepest]
            together = measures.Course(*map(torch.cat, zip(*known, strict=True)))
            about = found.setdefault("about", {}).setdefault(task, {})
            about.setdefault("halting", {})[str(seed)] = measures.halting(together, deepest, THRESHOLD)
            for memory in ("read_only", "write"):
                policy = replace(thinker, memory=memory)
                share = measures.swapped(policy, task, deepest, options.cases, seed=2000)
                about.setdefault(f"swapped, {memory}", {})[str(seed)] = share
        with atomic_write(file) as draft:
            json.dump(found, draft, indent=1)
    return found


def tables(found: dict[str, Any]) -> list[Table]:
    made = []
    for task, ways in found.items():
        if task == "about":
            continue
        depths = list(next(iter(ways.values())))
        title = (
            f"{task}: right with as many steps as lookups; chance {measures.CHANCE[task]:.2f}; training has at most "
            f"{measures.TRAINED[task]} lookups in such problems"
        )
        table = Table("way back", *depths, title=title)
        for way, by_depth in ways.items():
            table.add_row(way, *(_range([r["right"][int(d) - 1] for r in by_depth[d].values()]) for d in depths))
        if (soft := ways.get("soft token")) is None:
            made.append(table)
            continue
        table.add_row("no thought", *(_range([r["right"][0] for r in soft[d].values()]) for d in depths))
        table.add_row(
            "soft, one step fewer",
            *(_range([r["right"][max(int(d) - 2, 0)] for r in soft[d].values()]) for d in depths),
        )
        table.add_row(
            f"soft, {EXTRA} steps more", *(_range([r["right"][-1] for r in soft[d].values()]) for d in depths)
        )
        table.add_row(
            "soft, halted by the head", *(_range([r["halted_right"] for r in soft[d].values()]) for d in depths)
        )
        table.add_row("its steps", *(_range([r["halted_steps"] for r in soft[d].values()], 1) for d in depths))
        table.add_row(
            "its calibration error", *(_range([r["calibration_error"] for r in soft[d].values()], 3) for d in depths)
        )
        made.append(table)
    for task, about in found.get("about", {}).items():
        table = Table(title=f"{task}: where to end, all trained depths together; and thoughts that change places")
        rows = [
            (what, name, [result[name] for result in about[what].values()])
            for what in about
            for name in next(iter(about[what].values()))
        ]
        for head in ("", "measure", "seeds"):
            table.add_column(head)
        for what, name, values in rows:
            table.add_row(what, name, _range(values, 3))
        made.append(table)
    return made


def _range(values: list[float], digits: int = 2) -> str:
    """The values of several seeds: one number where they agree."""
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="corpus/lookups", help="folder of the model; default corpus/lookups")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="default: all")
    parser.add_argument(
        "--ways", nargs="+", choices=(*WAYS, "untrained"), default=[*WAYS, "untrained"], help="default: all"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the trainings; default 0 1 2")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps of a training; default 300")
    parser.add_argument("--cases", type=int, default=2000, help="problems a cell; default 2000")
    parser.add_argument("--out", type=Path, default=Path("reasoning"), help="folder of the results; default reasoning")
    parser.add_argument("--quick", action="store_true", help="one seed, 100 steps, 250 problems a cell")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seeds, options.steps, options.cases = options.seeds[:1], 100, 250
    if min(options.steps, options.cases) < 1:
        parser.error("--steps and --cases are counts of at least 1")
    if not Path(options.backbone).is_dir():
        parser.error(
            f"no model at {options.backbone}; train it: python train.py fit --config configs/pretrain_thoughts.yaml"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    prepare_cpu()
    found = measure(options)
    console = Console(width=160)
    for table in tables(found):
        console.print(table)
    print(f"wrote {options.out / RESULTS}", file=sys.stderr)


if __name__ == "__main__":
    main()
