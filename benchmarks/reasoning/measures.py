"""Thoughts on problems of one size: what each step says, where the head halts, and how many bytes a step keeps."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate
from transformers import PreTrainedModel

from datamodules.lookups.data import IDS, thought_row
from datamodules.lookups.tasks import END, TASKS
from gssr.backbone import FrozenBackbone
from gssr.reasoning.thinker import Thinker
from gssr.reasoning.thoughts import Thought

# Sizes by lookups: chains of equal length, so that the answer is found by no elimination.
SIZES = {
    "chains": {d: (d, d, d) for d in (1, 2, 3, 4, 5, 6, 8)},
    "arithmetic": {d: (d, d) for d in range(1, 7)},
    "permutations": {d: (d,) for d in (1, 2, 4, 6, 8, 10, 12)},
    "pointers": {d: (d,) for d in (1, 2, 3, 4, 5, 6, 8)},
}
# The largest number of lookups in a row that training has.
TRAINED = {"chains": 4, "arithmetic": 4, "permutations": 8, "pointers": 4}
CHANCE = {"chains": 1 / 3, "arithmetic": 1 / 7, "permutations": 1 / 5, "pointers": 1 / 10}
BATCH = 50  # states of more rows fit into no cache of a CPU


def problems(task: str, lookups: int, cases: int, seed: int) -> list[dict[str, Tensor]]:
    """Batches of problems with so many lookups, of a seed that no training has."""
    generator = np.random.default_rng([seed, 7, lookups, sorted(TASKS).index(task)])
    rows = []
    for _ in range(cases):
        problem = TASKS[task].problem(generator, SIZES[task][lookups])
        rows.append(thought_row(problem, problem.chains[int(generator.integers(len(problem.chains)))], 0, lookups))
    return [default_collate(rows[i : i + BATCH]) for i in range(0, cases, BATCH)]


class Course(NamedTuple):
    """Of n problems over S steps: whether the readout is right, the head's chance of that, and the probability of the
    likeliest token, each (n, S).
    """

    right: Tensor
    chance: Tensor
    confidence: Tensor


@torch.no_grad()
def course(thinker: Thinker, batches: Sequence[dict[str, Tensor]], steps: int) -> Course:
    assert thinker.halting is not None
    rows = []
    for batch in batches:
        found = []
        for step in islice(thinker.steps(batch["prompt"]), steps):
            right = step.logits.argmax(-1) == batch["answer"]
            confidence = step.logits.softmax(-1).amax(-1)
            found.append(torch.stack([right.float(), thinker.halting(step).sigmoid(), confidence]))
        rows.append(torch.stack(found, 2))
    return Course(*torch.cat(rows, 1))


def by_step(found: Course, threshold: float) -> dict[str, object]:
    """Share of right answers after each step, and where the head halts; ``cases`` of them."""
    right, steps = halted(found, found.chance, threshold)
    return {
        "cases": len(found.right),
        "right": found.right.mean(0).tolist(),
        "halted_right": right,
        "halted_steps": steps,
        "calibration_error": calibration_error(found.chance.flatten(), found.right.flatten()),
    }


def halted(found: Course, measure: Tensor, threshold: float) -> tuple[float, float]:
    """Share of right answers and mean steps where each problem ends at its first step whose measure (n, S) is high
    enough, or at the last step.
    """
    sure = measure >= threshold
    at = torch.where(sure.any(1), sure.int().argmax(1), measure.shape[1] - 1)
    return found.right.gather(1, at[:, None]).mean().item(), (at + 1.0).mean().item()


def by_position(found: Course) -> Tensor:
    """Share of right answers after each step (S,): all that a head could know which sees the step's number alone."""
    return found.right.mean(0)


def halting(found: Course, deepest: int, threshold: float, position: Tensor | None = None) -> dict[str, float]:
    """Ways to end, on problems of several depths together: the head; a head that sees the step's number alone; as many
    steps for all as the deepest needs; and at the head's mean number of steps, confidence, and the same for all.

    Args:
        position: (S,), what `by_position` found on problems of trained depths; by default on these.
    """
    right, steps = halted(found, found.chance, threshold)
    known = (by_position(found) if position is None else position).expand_as(found.right)
    positional, its_place = halted(found, known, threshold)
    by_number, whole = by_position(found), int(steps)
    rest = steps - whole  # a share of the problems that takes one step more
    levels = found.confidence.flatten().sort().values
    low, high = 0, len(levels) - 1
    while low < high:  # mean steps rise with the threshold
        middle = (low + high) // 2
        low, high = (
            (low, middle) if halted(found, found.confidence, levels[middle].item())[1] >= steps else (middle + 1, high)
        )
    confident, its_steps = halted(found, found.confidence, levels[low].item())
    return {
        "head": right,
        "steps": steps,
        "fixed": found.right[:, deepest - 1].mean().item(),
        "saved": 1 - (steps - 1) / (deepest - 1),
        "confidence": confident,
        "steps_of_confidence": its_steps,
        "same_for_all": ((1 - rest) * by_number[whole - 1] + rest * by_number[min(whole, len(by_number) - 1)]).item(),
        "position": positional,
        "steps_of_position": its_place,
        "calibration_error": calibration_error(found.chance.flatten(), found.right.flatten()),
    }


class Swapped(Thought):
    """A way back whose thoughts change places between the two halves of a batch, once, before step ``at`` + 1."""

    def __init__(self, thought: Thought, at: int) -> None:
        super().__init__()
        self.thought, self.at, self.done = thought, at, 0

    def forward(self, hidden: Tensor, logits: Tensor, backbone: FrozenBackbone) -> Tensor:
        self.done += 1
        thought = self.thought(hidden, logits, backbone)
        return thought.roll(len(thought) // 2, 0) if self.done == self.at else thought


@torch.no_grad()
def swapped(thinker: Thinker, task: str, lookups: int, cases: int, seed: int) -> dict[str, float]:
    """Two questions on the same facts exchange their thoughts half-way. How often the answer is then the other's, and
    how often a question is answered without that.
    """
    generator = np.random.default_rng([seed, 11, lookups])
    pairs: list[list[dict[str, Tensor]]] = [[], []]
    for _ in range(cases):
        problem = TASKS[task].problem(generator, SIZES[task][lookups])
        for rows, place in zip(pairs, generator.permutation(len(problem.chains))[:2], strict=True):
            rows.append(thought_row(problem, problem.chains[place], 0, lookups))
    followed, solved = [], []
    for begin in range(0, cases, BATCH):
        batch = default_collate([row for rows in pairs for row in rows[begin : begin + BATCH]])
        other = batch["answer"].roll(len(batch["answer"]) // 2, 0)
        exchange = Swapped(thinker.thought, max(1, lookups // 2))
        for thought, wanted, into in ((exchange, other, followed), (thinker.thought, batch["answer"], solved)):
            states = replace(thinker, thought=thought).steps(batch["prompt"])
            into.append((next(islice(states, lookups - 1, None)).logits.argmax(-1) == wanted).float())
    return {"followed": torch.cat(followed).mean().item(), "solved": torch.cat(solved).mean().item()}


def calibration_error(chance: Tensor, happened: Tensor, bins: int = 15) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017, equation 3)."""
    place = (chance * bins).long().clamp(max=bins - 1)
    error = 0.0
    for k in range(bins):
        inside = place == k
        if inside.any():
            error += inside.float().mean().item() * abs(chance[inside].mean() - happened[inside].mean()).item()
    return error


@torch.no_grad()
def answered(model: PreTrainedModel, batches: Sequence[dict[str, Tensor]], spacers: int) -> dict[str, object]:
    """Share of right answers of a model that answers behind so many constant tokens; ``cases`` of them."""
    right = []
    for batch in batches:
        between = torch.full((len(batch["prompt"]), spacers), IDS[END])
        said = model(input_ids=torch.cat([batch["prompt"], between], 1), logits_to_keep=1).logits[:, -1].argmax(-1)
        right.append((said == batch["answer"]).float())
    found = torch.cat(right)
    return {"cases": len(found), "right": [found.mean().item()]}


@torch.no_grad()
def bytes_kept(thinker: Thinker, prompt: Tensor, counts: Sequence[int]) -> dict[int, int]:
    """Bytes of all states that the next thought reads, after so many thoughts."""
    sizes = {}
    steps, done = thinker.states(prompt), 0
    for count in counts:
        layers = next(islice(steps, count - done - 1, None)).kept
        done = count
        sizes[count] = sum(part.numel() * part.element_size() for layer in layers for _, part in layer.parts())
    return sizes
