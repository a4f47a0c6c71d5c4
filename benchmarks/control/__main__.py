"""What can be forced and written through the states of a model of facts?

    python -m benchmarks.control
    python -m benchmarks.control --quick           # some minutes: fewer cases, one seed, shorter trainings

Projectors are trained anew for each seed, around the same frozen model. Every cell is kept in --out as it is finished;
an interrupted call goes on there.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from rich.console import Console

from benchmarks.control import facts, forcing, report
from benchmarks.control.facts import Cell
from benchmarks.control.stream import stream
from benchmarks.short_training import train
from datamodules.facts import FactQuestions, ForcedTokens
from datamodules.facts.language import Language
from gssr.backbone import FrozenBackbone
from gssr.backbone.config import BackboneConfig
from gssr.backbone.cpu import prepare_cpu
from gssr.control.force import Force
from gssr.control.projector import FactProjector, Projector, TokenProjector
from gssr.control.saved import load_projector
from gssr.control.training import ProjectorTraining
from gssr.files import atomic_write

# By name: what is written, and whether controls stand beside it.
CELLS: dict[str, tuple[Cell, bool]] = {
    "1 fact": (Cell(1), True),
    "4 facts": (Cell(4), True),
    "8 facts": (Cell(8), True),
    "1 fact, 200 tokens later": (Cell(1, 200), False),
    "4 facts, 200 tokens later": (Cell(4, 200), False),
    "1 fact, 512 tokens later": (Cell(1, 512), False),
    "1 fact, 512 tokens later, half of them other facts": (Cell(1, 512, busy=True), False),
    "1 fact, 1,024 tokens later": (Cell(1, 1024), False),
    "1 fact, held-out phrasings": (Cell(1, new_phrases=True), False),
    "4 facts, held-out phrasings": (Cell(4, new_phrases=True), False),
    "8 facts, held-out phrasings": (Cell(8, new_phrases=True), False),
}
MANY_TARGETS = 4
RATES: dict[type[Projector], float] = {FactProjector: 3e-3, TokenProjector: 1e-2}


def trained(kind: type[Projector], data: LightningDataModule, seed: int, options: argparse.Namespace) -> Projector:
    """From --out, or trained now."""
    file = options.out / f"{kind.__name__}-{seed}.safetensors"
    if not file.exists():
        module = partial(ProjectorTraining, BackboneConfig(options.backbone), kind, str(file), RATES[kind])
        train(module, data, data.batches, seed)
    return load_projector(file, FrozenBackbone(options.backbone), kind)


class Kept:
    """Cells in a file, each computed once."""

    def __init__(self, file: Path, about: dict[str, Any]) -> None:
        self.file, self.found = file, {"about": about}
        if file.exists():
            self.found = json.loads(file.read_text(encoding="utf-8"))
            if self.found["about"] != about:
                raise ValueError(f"{file} was measured with {self.found['about']}, not {about}; give another --out")

    def cell(self, name: str, measure: Callable[[], Any]) -> None:
        if name not in self.found:
            print(f"measuring: {name}", file=sys.stderr)
            self.found[name] = measure()
            with atomic_write(self.file) as opened:
                json.dump(self.found, opened)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    backbone, language, cases = FrozenBackbone(options.backbone), Language(), options.cases
    about = {
        name: getattr(options, name) for name in ("cases", "seeds", "steps", "word_steps", "tokens", "optimisation")
    }
    kept = Kept(options.out / "control.json", {**about, "backbone": backbone.fingerprint})
    projectors = {}
    for seed in options.seeds:
        data = FactQuestions(batches=options.steps, seed=seed)
        name = "projector" if len(options.seeds) == 1 else f"projector, seed {seed}"
        projectors[name] = trained(FactProjector, data, seed, options)
    for name, (cell, controls) in CELLS.items():
        kept.cell(
            f"recall {name}",
            lambda cell=cell, controls=controls: facts.recall(
                backbone, language, facts.batches(language, cell, cases), projectors, controls
            ),
        )
    kept.cell("changed", lambda: _changed(backbone, language, cases))
    kept.cell("two hops", lambda: facts.two_hops(backbone, language, cases))
    kept.cell("stream", lambda: stream(backbone, language, options.tokens))
    how = Force(steps=options.optimisation)
    one = partial(forcing.optimised, backbone, language, cases)
    kept.cell("force 1 word", lambda: one(1, how, True))
    kept.cell(f"force {MANY_TARGETS} words", lambda: one(MANY_TARGETS, how, False))
    for seed in options.seeds:
        data = ForcedTokens(batches=options.word_steps, seed=seed)
        kept.cell(
            f"force a held-out word by a projector, seed {seed}",
            lambda data=data, seed=seed: forcing.projected(
                backbone, language, cases, trained(TokenProjector, data, seed, options)
            ),
        )
    return kept.found


def _changed(backbone: FrozenBackbone, language: Language, cases: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for batch in facts.batches(language, Cell(4, 30), 4 * cases):
        for name, values in facts.changed(backbone, batch).items():
            found.setdefault(name, []).extend(values)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="nano-facts", help="bundled model or a folder; default nano-facts")
    parser.add_argument("--cases", type=int, default=500, help="questions and words a cell, at least; default 500")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the trainings; default 0 1 2")
    parser.add_argument("--steps", type=int, default=200, help="of a training on facts; default 200")
    parser.add_argument("--word-steps", type=int, default=500, help="of a training on words; default 500")
    parser.add_argument("--optimisation", type=int, default=25, help="steps that force a text; default 25")
    parser.add_argument("--tokens", type=int, default=100_000, help="of the stream; default 100000")
    parser.add_argument("--out", type=Path, default=Path("control"), help="folder of the results; default control")
    parser.add_argument("--quick", action="store_true", help="64 cases, one seed, 60 steps, a stream of 5,000 tokens")
    options = parser.parse_args(arguments)
    if options.quick:
        options.cases, options.seeds, options.steps, options.word_steps = 64, options.seeds[:1], 60, 80
        options.optimisation, options.tokens = 20, 5_000
    if min(options.cases, options.steps, options.word_steps, options.optimisation, options.tokens) < 1:
        parser.error("--cases, --steps, --word-steps, --optimisation and --tokens are counts of at least 1")
    options.out.mkdir(parents=True, exist_ok=True)
    prepare_cpu()
    try:
        found = measure(options)
    except ValueError as error:
        parser.error(str(error))
    console = Console(width=150)
    for table in report.tables(found):
        console.print(table)
    report.draw(found, options.out / "control.png")
    print(f"wrote {options.out / 'control.json'} and control.png", file=sys.stderr)


if __name__ == "__main__":
    main()
