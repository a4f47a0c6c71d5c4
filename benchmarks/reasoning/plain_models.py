"""What a model of ordinary text gains from thoughts that nobody trained: the mixture of what it would say, read again.

    python -m benchmarks.reasoning.plain_models --backbone smollm2-135m

A problem names colours of things: "The cup is red. The box is like the hat. The hat is like the cup. So the box is",
with two chains of equal length and the two colours as choices. Written tokens stand beside, since they are steps too.
"""

import argparse

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from gssr.backbone import FrozenBackbone
from gssr.backbone.cpu import prepare_cpu
from gssr.reasoning.evaluation import Answering, Item, evaluate
from gssr.reasoning.thinker import Memory, Thinker
from gssr.reasoning.thoughts import SoftToken, Thought, WrittenToken

THINGS = ("cup", "box", "hat", "car", "door", "book", "chair", "boat", "shirt", "lamp", "ball", "coat")
COLOURS = ("red", "blue", "green", "black", "white", "yellow")
WAYS: tuple[tuple[str, type[Thought], Memory], ...] = (
    ("soft token, read only", SoftToken, "read_only"),
    ("soft token, written", SoftToken, "write"),
    ("written tokens", WrittenToken, "write"),
)


def problem(lookups: int, generator: np.random.Generator) -> Item:
    """Two chains of ``lookups`` sentences in random order; one is asked for."""
    things = generator.permutation(THINGS)[: 2 * lookups].reshape(2, lookups)
    colours = generator.permutation(COLOURS)[:2]
    said = []
    for chain, colour in zip(things, colours, strict=True):
        said += [f"The {a} is like the {b}." for a, b in zip(chain, chain[1:], strict=False)]
        said.append(f"The {chain[-1]} is {colour}.")
    asked = int(generator.integers(2))
    facts = " ".join(said[i] for i in generator.permutation(len(said)))
    prompt = f"{facts} So the colour of the {things[asked][0]} is"
    return Item(prompt, f" {colours[asked]}", tuple(f" {colour}" for colour in colours))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="smollm2-135m", help="default smollm2-135m")
    parser.add_argument("--lookups", nargs="+", type=int, default=[1, 2, 3], choices=range(1, 7), help="default 1 2 3")
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 2, 4], help="default 1 2 4; 1 is no thought")
    parser.add_argument("--cases", type=int, default=200, help="problems a row; default 200")
    options = parser.parse_args(arguments)
    if min(options.cases, *options.steps) < 1:
        parser.error("--cases and --steps are counts of at least 1")
    prepare_cpu()
    backbone = FrozenBackbone(options.backbone)
    table = Table("lookups", "thoughts", *(f"{steps} steps" for steps in options.steps), title="right of two choices")
    with torch.no_grad():
        rows = [(lookups, *way) for lookups in options.lookups for way in WAYS]
        for lookups, name, kind, memory in tqdm(rows):
            generator = np.random.default_rng([lookups, 17])
            items = [problem(lookups, generator) for _ in range(options.cases)]
            thought = kind()
            thought.prepare(backbone)
            thinker = Thinker(backbone, thought, memory)
            scores = [evaluate(Answering(thinker, steps), items, "choices") for steps in options.steps]
            cells = [f"{s.right / s.cases:.3f} ({s.low:.2f} to {s.high:.2f})" for s in scores]
            table.add_row(str(lookups), name, *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
