"""Facts written into states in several ways, and asked for: shares of right answers, one list a state.

Every measure gives for each state the share of its questions that are answered right, so that states, which are
independent, are what a bootstrap draws.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.facts.data import Row
from datamodules.facts.documents import chain
from datamodules.facts.language import Language, Writer
from datamodules.facts.tasks import ANSWER, IGNORED, question_batch, sized
from gssr.backbone import FrozenBackbone
from gssr.control.compose import Piece, beginning, compose, piece, remove
from gssr.control.controls import directions, random_change, scaled
from gssr.control.force import Key
from gssr.control.functional import Layers, read
from gssr.control.projector import FactProjector, answered, part

ROWS = 25  # states in a batch, whose sentences have one length
DIRECTIONS = 64
TEST = 9  # a part of the seeds that no training has
Shares = list[float]
Written = Callable[[Piece], Piece]


class Cell(NamedTuple):
    """F facts, tokens of other text behind them (``busy``: half of it states other facts), phrasings held out."""

    facts: int
    other: int = 0
    busy: bool = False
    new_phrases: bool = False


def batches(language: Language, cell: Cell, cases: int) -> list[Row]:
    """Enough states for so many questions, and 125 at least where that is less than the cases."""
    count = max(-(-cases // cell.facts), min(cases, 125))
    made = []
    for number in range(-(-count // ROWS)):
        generator = np.random.default_rng([TEST, number, *map(int, cell)])
        made.append(
            question_batch(
                language, generator, min(ROWS, count - ROWS * number), cell.facts, cell.other,
                held_out=True, new_phrases=cell.new_phrases, busy=cell.busy,
            )
        )  # fmt: skip
    return made


@torch.no_grad()
def in_context(backbone: FrozenBackbone, batch: Row) -> Layers:
    """States that have read the facts, one behind the other."""
    return read(backbone, beginning(backbone, len(batch["facts"])), batch["facts"].flatten(1)).layers


@torch.no_grad()
def composed(
    backbone: FrozenBackbone, batch: Row, change: Written | None = None, written: Piece | None = None
) -> Layers:
    """States into which the facts are written, each piece changed first; ``written``: the pieces, if known."""
    count = batch["facts"].shape[1]
    written = piece(backbone, batch["facts"].flatten(0, 1)) if written is None else written
    written = written if change is None else change(written)
    layers = beginning(backbone, len(batch["facts"]))
    for k in range(count):
        layers = compose(layers, part(written, slice(k, None, count)))
    return layers


@torch.no_grad()
def shares(backbone: FrozenBackbone, layers: Layers, batch: Row) -> Shares:
    """Of each state, the share of its questions that are answered right, word by word."""
    return answered(backbone, layers, batch["other"], batch["questions"], batch["answers"])[1].float().mean(1).tolist()


def recall(
    backbone: FrozenBackbone, language: Language, made: list[Row], projectors: dict[str, FactProjector], controls: bool
) -> dict[str, Shares]:
    """By way of writing, shares of all states of some batches."""
    found: dict[str, Shares] = {}
    natural = _directions(backbone, language) if controls else {}
    for batch in made:
        changes: dict[str, Written | None] = {"composed": None, **projectors}
        changes |= _controls(batch, natural) if controls else {}
        for name in ("read", "nothing") if controls else ("read",):
            layers = in_context(backbone, batch) if name == "read" else beginning(backbone, len(batch["facts"]))
            found.setdefault(name, []).extend(shares(backbone, layers, batch))
        written = piece(backbone, batch["facts"].flatten(0, 1))
        for name, change in changes.items():
            layers = composed(backbone, batch, change, written)
            found.setdefault(name, []).extend(shares(backbone, layers, batch))
    return found


@torch.no_grad()
def _directions(backbone: FrozenBackbone, language: Language) -> dict[Key, Tensor]:
    """Principal directions of what facts of training write."""
    facts = question_batch(language, np.random.default_rng([TEST, 6]), 2 * DIRECTIONS, 1, 0)["facts"][:, 0]
    states = piece(backbone, facts).layers
    return directions(states, [(i, "recurrent") for i in range(len(states))], DIRECTIONS)


def _controls(batch: Row, natural: dict[Key, Tensor]) -> dict[str, Written]:
    """Pieces of the same norm in each layer, with the convolution's inputs of the fact."""
    count = batch["facts"].shape[1]

    def way(change: Callable[[int, Tensor], Tensor]) -> Written:
        def written(found: Piece) -> Piece:
            state = {(i, "recurrent"): x.recurrent for i, x in enumerate(found.layers) if x.recurrent is not None}
            new = scaled({(i, kind): change(i, part) for (i, kind), part in state.items()}, state)
            layers = list(found.layers)
            for (i, _), part_of in new.items():
                layers[i] = replace(layers[i], recurrent=part_of)
            return Piece(tuple(layers), found.log_decay)

        return written

    def projected(i: int, state: Tensor) -> Tensor:
        basis = natural[i, "recurrent"]
        return ((state.flatten(1) @ basis.T) @ basis).view_as(state)

    return {
        "random": way(lambda i, state: random_change({(i, "recurrent"): state}, seed=i)[i, "recurrent"]),
        "pca": way(projected),
        "mean": way(lambda i, state: state.mean(0, keepdim=True).expand_as(state)),
        "another's": way(lambda i, state: state.roll(count, 0)),
    }


@torch.no_grad()
def changed(backbone: FrozenBackbone, batch: Row) -> dict[str, Shares]:
    """The first of the facts, written first, is replaced and forgotten behind the others and other text."""
    facts = batch["facts"]
    written = piece(backbone, facts.flatten(0, 1))
    layers, count = beginning(backbone, len(facts)), facts.shape[1]
    since: dict[int, Tensor] = {}
    for k in range(count):
        own = part(written, slice(k, None, count))
        layers = compose(layers, own)
        since = {i: since.get(i, 0) + decay if k else torch.zeros_like(decay) for i, decay in own.log_decay.items()}
    first = part(written, slice(0, None, count))
    gone = remove(layers, first, since)
    new = piece(backbone, batch["corrections"])
    replaced, read_on = compose(gone, new), read(backbone, in_context(backbone, batch), batch["corrections"]).layers
    asked, old = batch["questions"][:, :1], batch["answers"][:, :1]

    def right(layers: Layers, questions: Tensor, answers: Tensor) -> Shares:
        return answered(backbone, layers, batch["other"], questions, answers)[1].float().mean(1).tolist()

    found = {
        "before": right(layers, asked, old),
        "replaced, the new": right(replaced, asked, batch["new_answers"][:, None]),
        "replaced, the old": right(replaced, asked, old),
        "read on, the new": right(read_on, asked, batch["new_answers"][:, None]),
        "read on, the old": right(read_on, asked, old),
        "forgotten, the fact": right(gone, asked, old),
    }
    neighbours = (batch["questions"][:, 1:], batch["answers"][:, 1:])
    if count > 1:
        found |= {
            "neighbours before": right(layers, *neighbours),
            "neighbours behind forgetting": right(gone, *neighbours),
            "neighbours behind replacing": right(replaced, *neighbours),
        }
    return found


def two_hops(backbone: FrozenBackbone, language: Language, cases: int) -> dict[str, Shares]:
    """Where a person lives and what is said of that town, and a question over both."""
    found: dict[str, Shares] = {"read": [], "composed": [], "nothing": []}
    for number in range(-(-cases // ROWS)):
        writer = Writer(language, np.random.default_rng([TEST, number, 2]), held_out=True)
        made = [_chained(writer) for _ in range(min(ROWS, cases - ROWS * number))]
        facts, questions, answers = (torch.tensor(part) for part in zip(*made, strict=True))
        other = torch.zeros(len(facts), 0, dtype=torch.int64)
        batch = {"facts": facts, "questions": questions, "answers": answers, "other": other}
        for name, layers in (
            ("read", in_context(backbone, batch)),
            ("composed", composed(backbone, batch)),
            ("nothing", beginning(backbone, len(facts))),
        ):
            found[name] += shares(backbone, layers, batch)
    return found


def _chained(writer: Writer) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Token ids of two statements, a question over both, and its answer, all of fixed lengths."""
    ids = writer.language.ids
    while True:
        home, of_town = chain(writer)
        said = [sized(lambda fact=fact: writer.statement(fact), 9) for fact in (home, of_town)]
        asked = sized(lambda home=home, of_town=of_town: writer.chained_question(home, of_town), 11)
        if all(said) and asked:
            answer = [ids[word] for word in (*of_town.answer, ".")]
            statements = [[ids[word] for word in words] for words in said]
            return statements, [[ids[word] for word in asked]], [answer + [IGNORED] * (ANSWER - len(answer))]
