"""How deep do thoughts go? Accuracy by lookups for each way back, where the head halts, and bytes by thoughts.

    python -m benchmarks.reasoning
    python -m benchmarks.reasoning --quick           # chains alone; minutes

For each kind of problem and each seed a small model is trained, and around it, frozen, each way back. What is finished
is read from --out; an interrupted call goes on.

soft token   softmax of what would be said, by the embeddings, and a learned correction
untrained    the same without the correction
linear       a learned linear map of the hidden state
spacer       a learned constant, written: more positions, no way back
written      the likeliest token, written: a chain of thought in words
control      another model, all of whose weights learn to answer at once, or behind constant tokens
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.reasoning import measures
from benchmarks.reasoning.models import model
from benchmarks.short_training import train
from datamodules.lookups import ThoughtChains
from datamodules.lookups.tasks import TASKS
from gssr.backbone import FrozenBackbone
from gssr.backbone.config import BackboneConfig
from gssr.backbone.cpu import prepare_cpu
from gssr.files import atomic_write
from gssr.reasoning.halting import HaltingHead
from gssr.reasoning.saved import load_thinker
from gssr.reasoning.thinker import Memory, Thinker
from gssr.reasoning.thoughts import LinearThought, SoftToken, Spacer, Thought, WrittenToken
from gssr.reasoning.training import ThoughtTraining

WAYS: dict[str, tuple[type[Thought], Memory]] = {
    "soft token": (SoftToken, "read_only"),
    "spacer": (Spacer, "write"),
    "written": (WrittenToken, "write"),
    "linear": (LinearThought, "read_only"),
    "untrained": (SoftToken, "read_only"),
}
UNTRAINED = ("written", "untrained")  # nothing to learn but a head, which is not looked at
RESULTS = "reasoning.json"
EXTRA = 4  # steps beyond those that are needed
LONG = 14  # steps of the longest course
FEWER = 500  # problems at most of the longest course, and pairs that change places
THRESHOLD = 0.9


def trained(way: str, task: str, seed: int, options: argparse.Namespace, backbone: FrozenBackbone) -> Thinker:
    """The way back and its head, from --out or trained now."""
    kind, memory = WAYS[way]
    if way in UNTRAINED:
        thought = kind()
        thought.prepare(backbone)
        return Thinker(backbone, thought, memory, HaltingHead(backbone.hidden_size))
    file = options.out / f"{way.replace(' ', '-')}-{task}-{seed}.safetensors"
    if not file.exists():
        data = ThoughtChains((task,), 32, 32 * options.steps, 32, seed + 1)
        config = BackboneConfig(backbone.name, dtype="float32")
        train(partial(ThoughtTraining, config, kind, memory, export=str(file)), data, options.steps, seed)
    return load_thinker(file, backbone)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    file = options.out / RESULTS
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    todo = [(task, way, seed) for seed in options.seeds for way in options.ways for task in options.tasks]
    for task, way, seed in tqdm(todo, unit="row"):
        ways = found.setdefault(task, {}).setdefault("ways", {})
        if _is_done(ways, way, task, seed, options.cases):
            continue
        batches = {d: measures.problems(task, d, options.cases, seed=1000) for d in measures.SIZES[task]}
        if way == "control":
            backbone = model(options.out, task, seed, options.model_steps, is_control=True)
            for d, cells in batches.items():
                for name, spacers in (("answer at once, trained", 0), ("constant tokens, trained", d - 1)):
                    result = measures.answered(backbone.model, cells, spacers)
                    ways.setdefault(name, {}).setdefault(str(d), {})[str(seed)] = result
        else:
            backbone = (
                FrozenBackbone(options.backbone, dtype="float32")
                if options.backbone
                else model(options.out, task, seed, options.model_steps)
            )
            thinker = trained(way, task, seed, options, backbone)
            courses = {d: measures.course(thinker, cells, _steps(task, way, d)) for d, cells in batches.items()}
            for d, each in courses.items():
                ways.setdefault(way, {}).setdefault(str(d), {})[str(seed)] = measures.by_step(each, THRESHOLD)
            if way == "soft token":
                about = found[task].setdefault("about", {})
                for name, result in causes(task, courses, thinker, options.cases).items():
                    about.setdefault(name, {})[str(seed)] = result
        with atomic_write(file) as draft:
            json.dump(found, draft, indent=1)
    return found


def _is_done(ways: dict[str, Any], way: str, task: str, seed: int, cases: int) -> bool:
    by_depth = ways.get("answer at once, trained" if way == "control" else way, {})
    return all(by_depth.get(str(d), {}).get(str(seed), {}).get("cases") == cases for d in measures.SIZES[task])


def _steps(task: str, way: str, lookups: int) -> int:
    """Steps that are taken; problems that are looked at together take equally many."""
    if way != "soft token":
        return lookups
    deepest = measures.TRAINED[task]
    return (deepest if lookups <= deepest else max(measures.SIZES[task])) + EXTRA


def causes(task: str, courses: dict[int, measures.Course], thinker: Thinker, cases: int) -> dict[str, Any]:
    """Where the head halts, at trained depths and at deeper ones, and thoughts that change places."""
    deepest = measures.TRAINED[task]
    groups = {"trained depths": [d for d in courses if d <= deepest], "deeper": [d for d in courses if d > deepest]}
    found, position = {}, None
    for name, depths in groups.items():
        together = measures.Course(*map(torch.cat, zip(*(courses[d] for d in depths), strict=True)))
        if position is None:
            position = measures.by_position(together)
        known = torch.nn.functional.pad(position, (0, max(0, together.right.shape[1] - len(position))), value=1.0)
        found[f"halting, {name}"] = measures.halting(together, max(depths), THRESHOLD, known)
    cases = min(cases, FEWER)
    long = measures.course(thinker, measures.problems(task, deepest, cases, seed=1000), LONG)
    found[f"{deepest} lookups"] = {
        f"right after {steps} steps": long.right[:, steps - 1].mean().item() for steps in (deepest, deepest + 1, LONG)
    }
    for memory in ("read_only", "write"):
        policy = replace(thinker, memory=memory)
        found[f"swapped, {memory}"] = measures.swapped(policy, task, deepest, cases, seed=2000)
    return found


def tables(found: dict[str, Any]) -> list[Table]:
    made = []
    for task, parts in found.items():
        ways = parts["ways"]
        depths = [str(d) for d in measures.SIZES[task]]
        title = (
            f"{task}: right with as many steps as lookups; chance {measures.CHANCE[task]:.2f}; training has at most "
            f"{measures.TRAINED[task]} lookups in a row"
        )
        table = Table("way back", "seeds", *depths, title=title)
        for way, by_depth in ways.items():
            seeds = str(len(by_depth[depths[0]]))
            cells = {d: [_after(result["right"], int(d)) for result in by_depth[d].values()] for d in depths}
            table.add_row(way, seeds, *(_range(cells[d]) for d in depths))
            if way != "soft token":
                continue
            shown: dict[str, Callable[[dict[str, Any], int], float]] = {
                "no thought": lambda result, d: result["right"][0],
                "one step fewer": lambda result, d: _after(result["right"], max(d - 1, 1)),
                f"{EXTRA} steps more": lambda result, d: _after(result["right"], d + EXTRA),
                "halted by the head": lambda result, d: result["halted_right"],
                "its steps": lambda result, d: result["halted_steps"],
                "its calibration error": lambda result, d: result["calibration_error"],
            }
            for name, value in shown.items():
                digits = {"its steps": 1, "its calibration error": 3}.get(name, 2)
                table.add_row(
                    f"  {name}",
                    seeds,
                    *(_range([value(result, int(d)) for result in by_depth[d].values()], digits) for d in depths),
                )
        made.append(table)
        if about := parts.get("about"):
            table = Table("", "measure", "seeds", title=f"{task}: where to end, and thoughts that change places")
            for what, by_seed in about.items():
                for name in next(iter(by_seed.values())):
                    table.add_row(what, name.replace("_", " "), _range([one[name] for one in by_seed.values()], 3))
            made.append(table)
    return made


def _after(right: list[float], steps: int) -> float:
    return right[min(steps, len(right)) - 1]


def _range(values: list[float], digits: int = 2) -> str:
    """The values of several seeds: one number where they agree."""
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", help="folder of a model to measure in place of small ones trained here")
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=["chains", "pointers", "permutations"], help="kinds of problems"
    )
    parser.add_argument(
        "--ways", nargs="+", choices=(*WAYS, "control"), default=["soft token", "spacer", "written", "control"],
        help="rows; default soft token, spacer, written, control",
    )  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of all trainings; default 0 1 2")
    parser.add_argument("--model-steps", type=int, default=800, help="optimizer steps of a small model; default 800")
    parser.add_argument("--steps", type=int, default=150, help="optimizer steps of a way back; default 150")
    parser.add_argument("--cases", type=int, default=2000, help="problems a cell; default 2000")
    parser.add_argument("--out", type=Path, default=Path("reasoning"), help="folder of the results; default reasoning")
    parser.add_argument("--quick", action="store_true", help="chains, one seed, 250 problems a cell")
    options = parser.parse_args(arguments)
    if options.quick:
        options.tasks, options.seeds, options.cases = options.tasks[:1], options.seeds[:1], 250
    if min(options.steps, options.model_steps, options.cases) < 1:
        parser.error("--steps, --model-steps and --cases are counts of at least 1")
    if options.backbone and not Path(options.backbone).is_dir():
        parser.error(f"there is no folder {options.backbone}; leave --backbone out, and small models are trained")
    options.out.mkdir(parents=True, exist_ok=True)
    prepare_cpu()
    found = measure(options)
    console = Console(width=160)
    for table in tables(found):
        console.print(table)
    print(f"wrote {options.out / RESULTS}", file=sys.stderr)


if __name__ == "__main__":
    main()
