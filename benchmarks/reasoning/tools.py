"""How many tasks a small model solves with tools that really run, by kind of task.

    python train.py fit --config configs/pretrain_tools.yaml
    python -m benchmarks.reasoning.tools

Names, numbers and files of each task are new, and the numbers of its last computation are a pair that training never
had. A task is solved if the answer is right within four calls.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from datamodules.lookups.traces import KINDS, TOOLS, task
from gssr.backbone import FrozenBackbone
from gssr.backbone.cpu import prepare_cpu
from gssr.reasoning.evaluation import interval
from gssr.reasoning.tools import sandbox
from gssr.reasoning.tools.agent import work
from gssr.reasoning.tools.model import Model
from gssr.reasoning.tools.toolbox import Toolbox


def solved(backbone: FrozenBackbone, kind: str, seed: int) -> tuple[bool, int]:
    """Whether a task is solved, and the calls that were refused."""
    wanted = task(np.random.default_rng([seed, 13, KINDS.index(kind)]), kind, held_out=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "work"
        folder.mkdir()
        wanted.write(folder)
        file = Path(place) / "tools.yaml"
        file.write_text(yaml.safe_dump({"tools": TOOLS, "limits": {"calls": 4, "seconds": 20}}))
        found = work(wanted.lines[0], Model(backbone, 12), Toolbox.read(file), Path(place) / "log")
    return found.answer == wanted.answer, found.refused


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="corpus/tools", help="folder of the model; default corpus/tools")
    parser.add_argument("--cases", type=int, default=100, help="tasks of each kind; default 100")
    options = parser.parse_args(arguments)
    if options.cases < 1 or not Path(options.backbone).is_dir():
        parser.error(
            "give --cases of at least 1, and a model: python train.py fit --config configs/pretrain_tools.yaml"
        )
    prepare_cpu()
    backbone, right, refused = FrozenBackbone(options.backbone), Counter[str](), Counter[str]()
    for kind in tqdm(KINDS):
        for seed in range(options.cases):
            is_right, count = solved(backbone, kind, seed)
            right[kind] += is_right
            refused[kind] += count
    table = Table(
        "tools", "tasks", "solved", "95 % interval", "calls refused", title=f"isolation: {sandbox.isolation()}"
    )
    groups = {kind: [kind] for kind in KINDS} | {"two calls": [kind for kind in KINDS if " " in kind]}
    for name, kinds in groups.items():
        n = options.cases * len(kinds)
        share = sum(right[kind] for kind in kinds) / n
        low, high = interval(share, n)
        count = sum(refused[kind] for kind in kinds)
        table.add_row(name, str(n), f"{share:.3f}", f"{low:.3f} to {high:.3f}", str(count))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
