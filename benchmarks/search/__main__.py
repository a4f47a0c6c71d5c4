"""Selection on top of steering, speculative decoding, and a planner beside a text, on the nano model.

    python -m benchmarks.search                    # three seeds; hours on one core
    python -m benchmarks.search --seeds 0          # one seed
    python -m benchmarks.search --quick            # everything shrunk, three minutes; the numbers mean nothing
    python -m benchmarks.search --parts drafts --shape 350m

Prompts are 24 tokens of held-out text of one domain, the text should belong to another: 20 ordered pairs, as in
`benchmarks.steering`. After an interruption, the same command goes on behind the last finished piece.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from benchmarks.search import (
    aggregation,
    critics,
    drafts,
    injections,
    planner_cost,
    planning,
    pulling,
    refining,
    selecting,
)
from benchmarks.search.tables import tables
from benchmarks.steering.__main__ import Benchmark as Steering
from datamodules.facts.language import Language
from gssr.backbone import FrozenBackbone
from gssr.files import atomic_write

PARTS = ("selection", "drafts", "critic", "planner", "injections", "pulls", "refinement", "aggregation")


class Benchmark:
    """Pieces of work, each done once and kept in search.json of a folder."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.folder = options, options.out
        self.steering = Steering(options.corpus, options.out / "steering", options.quick, options.backbone)
        if options.steps is not None:
            self.steering.size = {**self.steering.size, "steps": options.steps}
        about = {"fingerprint": self.steering.backbone.fingerprint, "quick": options.quick, "size": self.steering.size}
        self.file = self.folder / "search.json"
        self.results: dict[str, Any] = {"about": about, "pieces": {}}
        if self.file.exists():
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            if kept["about"] != about:
                raise ValueError(
                    f"{self.file} holds results of another model or size; remove the folder, or give another --out"
                )
            self.results = kept

    def piece(self, key: str, measure: Callable[[], Any]) -> Any:
        if key not in self.results["pieces"]:
            self.results["pieces"][key] = measure()
            with atomic_write(self.file) as file:
                json.dump(self.results, file, indent=1)
        return self.results["pieces"][key]

    def selection(self) -> None:
        self.piece("real", self.steering._measure_real)
        scorer = selecting.train_scorer(self.steering, 60 if self.options.quick else 2000)
        cells = [
            (s, steered, way) for s in self.options.seeds for steered in selecting.STEERED for way in selecting.WAYS
        ]
        for seed, steered, way in tqdm(cells, unit="cell"):
            key = f"selection|{steered}|{way}|{seed}"
            if key not in self.results["pieces"]:
                states = self._states(seed) if steered == "learned state" else None
                self.piece(key, partial(selecting.measure, self.steering, scorer, states, way, seed))

    def _states(self, seed: int) -> dict[str, Any]:
        file = self.folder / f"states-{seed}.safetensors"
        if not file.exists():
            found = selecting.learned(self.steering, seed)
            save_file({f"{target}/{name}": x for target, parts in found.items() for name, x in parts.items()}, file)
        states: dict[str, dict[str, Any]] = {}
        for name, tensor in load_file(file).items():
            target, _, part = name.partition("/")
            states.setdefault(target, {})[part] = tensor
        return states

    def drafts(self) -> None:
        steps, count, tokens = (5, 2, 16) if self.options.quick else (600, self.options.texts, 128)
        for seed in self.options.seeds:
            file = self.folder / f"draft-{seed}.safetensors"
            drafter = drafts.trained(self.steering, file, steps, seed)
            self.piece(f"speed|{seed}", partial(drafts.speed, self.steering, drafter, count, tokens))
        prompt = self.steering.prompts[0, :1]
        texts = 20 if self.options.quick else 1500
        self.piece("chi-square", lambda: drafts.same_distribution(self.steering.backbone, drafter, prompt, texts))
        self.piece(
            f"calls|{self.options.backbone}",
            partial(drafts.cost_of_calls, self.steering.backbone, 3 if self.options.quick else 15),
        )
        for name in self.options.shape:
            self.piece(f"forced|{name}", partial(drafts.forced, name, 4 if self.options.quick else 16))

    def critic(self) -> None:
        steps, texts = (3, 8) if self.options.quick else (80, 60)
        for seed in self.options.seeds:
            self.piece(f"critic|{seed}", partial(critics.measure, self.steering, steps, texts, seed))

    def planner(self) -> None:
        scorer = selecting.train_scorer(self.steering, 60 if self.options.quick else 2000)
        texts, count, tokens = (1, 2, 16) if self.options.quick else (2, 40, 64)
        self.piece("beside a planner", lambda: planner_cost.cost(self.steering, count, tokens))
        repeats = 5 if self.options.quick else 100
        self.piece("planner snapshot", lambda: planner_cost.snapshot_cost(self.steering, repeats))
        cells = itertools.product(self.options.seeds, selecting.STEERED, planning.WAYS)
        for seed, steered, way in tqdm(list(cells), unit="cell"):
            states = self._states(seed) if steered == "learned state" else None
            measure = partial(planning.measure, self.steering, scorer, states, way, texts, seed)
            self.piece(f"planner|{steered}|{way}|{seed}", measure)

    def injections(self) -> None:
        tokens = 64 if self.options.quick else 1008
        for seed, way in tqdm(list(itertools.product(self.options.seeds, injections.WAYS)), unit="cell"):
            measure = partial(injections.measure, self.steering, self._states(seed), way, tokens, seed)
            self.piece(f"injections|{way}|{seed}", measure)

    def pulls(self) -> None:
        steps, texts = (2, 2) if self.options.quick else (40, 14)
        for seed in self.options.seeds:
            critic = pulling.trained(self.steering, self.folder / f"critic-{seed}.safetensors", steps, seed)
            self.piece(f"order|{seed}", partial(pulling.order, self.steering, critic, 3 * texts, seed))
            for way in tqdm(pulling.WAYS, unit="way"):
                self.piece(f"pulls|{way}|{seed}", partial(pulling.measure, self.steering, critic, way, texts, seed))

    def refinement(self) -> None:
        for seed in self.options.seeds:
            texts = 2 if self.options.quick else 14
            self.piece(f"refinement|{seed}", partial(refining.measure, self.steering, texts, seed))

    def aggregation(self) -> None:
        facts = FrozenBackbone(self.options.facts)
        language, states = Language(), 25 if self.options.quick else 125
        for seed in self.options.seeds:
            key = f"aggregation|{facts.fingerprint}|{seed}"
            self.piece(key, partial(aggregation.measure, facts, language, states, seed))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--corpus", type=Path, default=Path("corpus/corpus.parquet"), help="made by datamodules.text.build"
    )
    parser.add_argument("--backbone", default="nano", help="nano or a local folder of a model trained on the corpus")
    parser.add_argument("--facts", default="nano-facts", help="model of the part aggregation; default nano-facts")
    parser.add_argument("--texts", type=int, default=30, help="texts behind drafts; default 30")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default 0 1 2")
    parser.add_argument("--steps", type=int, help="steps in which states are learned; default 150")
    parser.add_argument("--shape", nargs="*", default=[], choices=["350m"], help="time forced drafts of this shape")
    parser.add_argument("--out", type=Path, help="folder of the results; default runs/search, or -quick behind it")
    parser.add_argument("--quick", action="store_true", help="a trial of the machinery, one seed")
    options = parser.parse_args(arguments)
    for name in ("steps", "texts"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} is a count of at least 1")
    options.out = options.out or Path("runs/search-quick" if options.quick else "runs/search")
    options.seeds = options.seeds[:1] if options.quick else options.seeds
    torch.set_num_threads(1)
    try:
        benchmark = Benchmark(options)
        for part in options.parts:
            getattr(benchmark, part)()
    except ValueError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    console = Console(width=160)
    for table in tables(benchmark.results["pieces"]):
        console.print(table)


if __name__ == "__main__":
    main()
