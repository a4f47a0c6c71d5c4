"""Thoughts on problems of one size: what each step says, where the head halts, and how many bytes a step keeps."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from datamodules.lookups.data import thought_row
from datamodules.lookups.tasks import TASKS
from gssr.reasoning.thinker import Thinker
from gssr.states.cache import layer_states

# Sizes by lookups: chains of equal length, so that the answer is found by no elimination.
SIZES = {
    "chains": {d: (d, d, d) for d in range(1, 9)},
    "arithmetic": {d: (d, d) for d in range(1, 7)},
    "permutations": {d: (d,) for d in (1, 2, 4, 6, 8, 10, 12, 16)},
}
# The largest number of lookups of problems that training can have, of this size.
TRAINED = {"chains": 4, "arithmetic": 4, "permutations": 8}
CHANCE = {"chains": 1 / 3, "arithmetic": 1 / 7, "permutations": 1 / 5}
BATCH = 250


def problems(task: str, lookups: int, cases: int, seed: int) -> list[dict[str, Tensor]]:
    """Batches of problems with so many lookups, of a seed that no training has."""
    generator = np.random.default_rng([seed, 7, lookups, sorted(TASKS).index(task)])
    rows = []
    for _ in range(cases):
        problem = TASKS[task].problem(generator, SIZES[task][lookups])
        rows.append(thought_row(problem, problem.chains[int(generator.integers(len(problem.chains)))], 0, lookups))
    return [default_collate(rows[i : i + BATCH]) for i in range(0, cases, BATCH)]


def by_step(thinker: Thinker, batches: Sequence[dict[str, Tensor]], steps: int, threshold: float) -> dict[str, object]:
    """Share of right answers after each step, and where the head halts; ``cases`` of them."""
    right, halted, taken, chance = [], [], [], []
    for batch in batches:
        found = thinker.readouts(batch["prompt"], steps, threshold)
        is_right = found.said == batch["answer"][:, None]
        rows = torch.arange(len(is_right))
        right.append(is_right)
        halted.append(is_right[rows, found.halted])
        taken.append(found.halted + 1)
        chance.append(found.chance)
    every, sure = torch.cat(right).float(), torch.cat(chance)
    return {
        "cases": len(every),
        "right": every.mean(0).tolist(),
        "halted_right": torch.cat(halted).float().mean().item(),
        "halted_steps": torch.cat(taken).float().mean().item(),
        "calibration_error": calibration_error(sure.flatten(), every.flatten()),
    }


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
def bytes_kept(thinker: Thinker, prompt: Tensor, counts: Sequence[int]) -> dict[int, int]:
    """Bytes of all states that the next thought reads, after so many thoughts."""
    sizes = {}
    steps, done = thinker.states(prompt), 0
    for count in counts:
        cache = next(islice(steps, count - done - 1, None)).kept
        done = count
        sizes[count] = sum(
            part.numel() * part.element_size() for layer in layer_states(cache) for _, part in layer.parts()
        )
    return sizes
