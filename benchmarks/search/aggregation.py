"""Eight documents that were read apart, put together in several ways, and asked for what each of them says.

A document is a sentence that states a fact, and other text behind it. Reading all of them in order is the mark.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.control.facts import ROWS, TEST, shares
from datamodules.facts.data import Row
from datamodules.facts.language import Language
from datamodules.facts.tasks import question_batch
from gssr.backbone import FrozenBackbone
from gssr.control.compose import Piece, beginning, compose, piece
from gssr.control.functional import Layers, logits, read, rows
from gssr.control.projector import answered, part

DOCUMENTS = 8
OTHER = 12  # tokens of other text in a document
PART = 8  # of the seeds: none of another benchmark's


def batches(language: Language, states: int, seed: int) -> list[Row]:
    """``documents`` (B, 8, L), and a question for each."""
    made = []
    for number in range(-(-states // ROWS)):
        generator = np.random.default_rng([TEST, PART, seed, number])
        count = min(ROWS, states - ROWS * number)
        batch = question_batch(language, generator, count, DOCUMENTS, DOCUMENTS * OTHER, held_out=True)
        other = batch["other"].view(count, DOCUMENTS, OTHER)
        batch["documents"], batch["other"] = torch.cat([batch["facts"], other], 2), other[:, 0, :0]
        made.append(batch)
    return made


def _pieces(backbone: FrozenBackbone, documents: Tensor) -> list[Piece]:
    written = piece(backbone, documents.flatten(0, 1))
    return [part(written, slice(k, None, DOCUMENTS)) for k in range(DOCUMENTS)]


def _composed(begin: Layers, pieces: list[Piece]) -> Layers:
    for own in pieces:
        begin = compose(begin, own)
    return begin


def _added(begin: Layers, pieces: list[Piece], share: float) -> Layers:
    """Without decays: D is 1, and each document weighs the same."""
    still = [Piece(own.layers, {i: torch.zeros_like(x) for i, x in own.log_decay.items()}) for own in pieces]
    for own in still:
        begin = compose(begin, own, share)
    return begin


@torch.no_grad()
def together(backbone: FrozenBackbone, documents: Tensor, order: np.ndarray) -> dict[str, Layers]:
    """By way, one state of all documents (B, 8, L)."""
    begin, pieces = beginning(backbone, len(documents)), _pieces(backbone, documents)
    last, every = compose(begin, pieces[-1]), _composed(begin, pieces)
    made = {
        "read in order": read(backbone, begin, documents.flatten(1)).layers,
        "composed, in order": every,
        "composed, in another order": _composed(begin, [pieces[k] for k in order]),
        "states added": _added(begin, pieces, 1.0),
        "mean of states": _added(begin, pieces, 1 / DOCUMENTS),
        "the last document alone": last,
    }
    if any(layer.keys is not None for layer in begin):
        side = (replace(own, keys=all_.keys, values=all_.values) for own, all_ in zip(last, every, strict=True))
        made["keys and values side by side, states of the last"] = tuple(side)
    return made


@torch.no_grad()
def apart(backbone: FrozenBackbone, batch: Row) -> dict[str, list[float]]:
    """Each question is asked of each document; one answer is taken."""
    documents, questions, answers = batch["documents"], batch["questions"], batch["answers"]
    count = len(documents)
    alone = compose(beginning(backbone, count * DOCUMENTS), piece(backbone, documents.flatten(0, 1)))
    questions, answers = (x.repeat_interleave(DOCUMENTS, 0) for x in (questions, answers))
    none = documents.new_empty(count * DOCUMENTS, 0)
    right = answered(backbone, alone, none, questions, answers)[1].view(count, DOCUMENTS, DOCUMENTS)
    each = rows(alone, torch.arange(len(questions)).repeat_interleave(DOCUMENTS))
    first = logits(backbone, each, questions.flatten(0, 1))[:, -1].softmax(-1).amax(-1)
    surest = first.view(count, DOCUMENTS, DOCUMENTS).argmax(1, keepdim=True)
    return {
        "apart, the surest answer": right.gather(1, surest)[:, 0].float().mean(1).tolist(),
        "apart, the right document (told)": right.diagonal(dim1=1, dim2=2).float().mean(1).tolist(),
    }


def measure(backbone: FrozenBackbone, language: Language, states: int, seed: int) -> dict[str, list[float]]:
    """By way, the share of each state's questions that are answered right."""
    found: dict[str, list[float]] = {}
    order = np.random.default_rng([TEST, PART, seed]).permutation(DOCUMENTS)
    for batch in batches(language, states, seed):
        for name, layers in together(backbone, batch["documents"], order).items():
            found.setdefault(name, []).extend(shares(backbone, layers, batch))
        for name, right in apart(backbone, batch).items():
            found.setdefault(name, []).extend(right)
    return found


def summary(results: list[dict[str, list[float]]], way: str) -> tuple[float, float, float]:
    """Share of right answers, the difference to reading in order, and the difference's standard error over states."""
    own, read_on = (np.concatenate([found[name] for found in results]) for name in (way, "read in order"))
    difference = own - read_on
    return float(own.mean()), float(difference.mean()), float(difference.std(ddof=1) / len(difference) ** 0.5)
