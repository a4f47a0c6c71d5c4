"""What a model recalls of its own context: facts, repeated tokens, and through which of its states."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.recall.questions import CHOICES, KINDS, Question, questions
from benchmarks.recall.reading import CONV, KEYS, RECURRENT, Context, rate, read
from gssr.backbone import FrozenBackbone
from gssr.training.objectives import predictions

DISTANCES = (30, 100, 200, 400)  # tokens of other text between a fact and its question
BETWEEN = 200  # tokens, where only one distance is measured
ROWS_PER_CALL = 25
WHOLE, NOTHING = "whole", "nothing"
LEAST = 0.1  # recall of which shares are told
WITHOUT_KEYS = "recurrent and conv, no keys before the question"
PARTS = {"only recurrent": RECURRENT, "only conv": CONV, "only keys and values": KEYS}
TRANSPLANTED = ("one fact", "four facts")
Tick = Callable[[], Any]


def fillers(texts: Sequence[Sequence[int]], length: int, count: int, seed: int) -> list[list[int]]:
    """Stretches of held-out text, each of ``length`` tokens."""
    generator, long = np.random.default_rng(seed), [text for text in texts if len(text) >= length]
    if not long:
        raise ValueError(f"no held-out text has {length} tokens; give a larger corpus")
    found = []
    for _ in range(count):
        text = long[int(generator.integers(len(long)))]
        start = int(generator.integers(len(text) - length + 1))
        found.append(list(text[start : start + length]))
    return found


def facts(
    backbone: FrozenBackbone, texts: Sequence[Sequence[int]], count: int, seed: int, tick: Tick
) -> dict[str, Any]:
    """Share of questions whose answer is the likeliest of four, and is what greedy decoding writes."""
    report: dict[str, Any] = {}
    for name in KINDS:
        for distance in DISTANCES:
            right, written = [], []
            for asked, between in _groups(backbone, name, texts, distance, count, seed):
                context = read(backbone, [q.facts + b for q, b in zip(asked, between, strict=True)])
                scores, greedy = rate(backbone, context, asked)
                right.append(scores.argmax(1) == 0)
                written.append(greedy)
                tick()
            report.setdefault(name, {})[str(distance)] = {
                "choice": torch.cat(right).double().mean().item(),
                "written": torch.cat(written).double().mean().item(),
            }
    return report


def transplants(
    backbone: FrozenBackbone, texts: Sequence[Sequence[int]], count: int, seed: int, tick: Tick
) -> dict[str, Any]:
    """Recall of one and of four facts, ``BETWEEN`` tokens back, when only some states come from their context.

    The other states come from a context without the facts, or from one with another answer. States change before the
    question is read.

    ``survives`` is the share of the recall above that without the facts, of choices and of written answers.
    """
    report: dict[str, Any] = {}
    for name in TRANSPLANTED:
        hits, follows = defaultdict(list), defaultdict(list)
        for asked, between in _groups(backbone, name, texts, BETWEEN, count, seed):
            stated, another = (
                read(backbone, [getattr(q, part) + b for q, b in zip(asked, between, strict=True)])
                for part in ("facts", "another")
            )
            for way, context in _ways(stated, read(backbone, between)):
                scores, greedy = rate(backbone, context, asked)
                hits[way] += torch.stack([scores.argmax(1) == 0, greedy], 1).tolist()
            for way, parts in PARTS.items():
                scores, _ = rate(backbone, another.with_parts(stated, parts), asked)
                follows[way] += (scores[:, 0] > scores[:, -1]).tolist()
            tick()
        means = {way: np.mean(rows, axis=0) for way, rows in hits.items()}
        gain = means[WHOLE] - means[NOTHING]
        report[name] = {
            way: {
                "choice": float(mean[0]),
                "written": float(mean[1]),
                "survives": [
                    float(x / of) if of > LEAST else None for x, of in zip(mean - means[NOTHING], gain, strict=True)
                ],
                "against another answer": float(np.mean(follows[way])) if way in follows else None,
            }
            for way, mean in means.items()
        }
    return report


def _ways(stated: Context, empty: Context) -> Iterator[tuple[str, Context]]:
    yield WHOLE, stated
    yield NOTHING, empty
    for way, parts in PARTS.items():
        yield way, empty.with_parts(stated, parts)
    yield WITHOUT_KEYS, stated.without_keys()


@torch.no_grad()
def repeats(backbone: FrozenBackbone, count: int, seed: int, tick: Tick) -> dict[str, Any]:
    """Share of random tokens that are predicted when they come again, by distance; whole, and without earlier keys."""
    report = {}
    vocabulary = len(backbone.tokenizer)
    for distance in DISTANCES:
        generator = np.random.default_rng([seed, distance])
        hits: dict[str, list[float]] = {"whole": [], "no keys of the first pass": []}
        for start in range(0, count, ROWS_PER_CALL):
            once = torch.from_numpy(generator.integers(2, vocabulary, (min(ROWS_PER_CALL, count - start), distance)))
            begin = torch.full((len(once), 1), backbone.start_id)
            tokens = torch.cat([begin, once, once], 1).to(backbone.device)
            cut = torch.arange(tokens.shape[1], device=backbone.device) >= distance + 1
            for name, batch in (
                ("whole", {"tokens": tokens}),
                (
                    "no keys of the first pass",
                    {"tokens": tokens, "first": (cut * (distance + 1)).expand(len(once), -1)},
                ),
            ):
                logits, target = predictions(backbone.model, batch)
                # The first two tokens of the second pass say that, and where, it begins.
                hit = logits[:, distance + 2 :].argmax(-1) == target[:, distance + 2 :]
                hits[name] += hit.double().mean(1).tolist()
            tick()
        report[str(distance)] = {name: float(np.mean(values)) for name, values in hits.items()}
    return report


def steps(parts: Sequence[str], count: int, repeated: int) -> int:
    """How often ``tick`` is called."""
    groups = -(-count // ROWS_PER_CALL)
    sizes = {
        "facts": groups * len(KINDS) * len(DISTANCES),
        "transplants": len(TRANSPLANTED) * groups,
        "repeats": -(-repeated // ROWS_PER_CALL) * len(DISTANCES),
    }
    return sum(sizes.get(part, 0) for part in parts)


def _groups(
    backbone: FrozenBackbone, name: str, texts: Sequence[Sequence[int]], distance: int, count: int, seed: int
) -> Iterator[tuple[list[Question], list[list[int]]]]:
    """Questions of a kind and what stands between facts and question, some rows at a time."""

    def tokenize(text: str) -> list[int]:
        return backbone.tokenize([text])[0]

    asked = list(questions(KINDS[name], count, tokenize, seed))
    assert all(len(question.answers) == CHOICES for question in asked)
    between = fillers(texts, distance, count, seed)
    for start in range(0, count, ROWS_PER_CALL):
        yield asked[start : start + ROWS_PER_CALL], between[start : start + ROWS_PER_CALL]
