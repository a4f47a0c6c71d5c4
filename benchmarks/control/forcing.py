"""Words forced behind texts: by one optimised change, by a projector, and by controls of the same norm."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.control.facts import TEST
from datamodules.facts.language import MARKS, Language
from datamodules.facts.tasks import forced_batch
from gssr.backbone import FrozenBackbone
from gssr.control import controls
from gssr.control.force import Change, Force, Forced, force, tried
from gssr.control.functional import Layers, read
from gssr.control.projector import TokenProjector

LONGEST, ROWS = 48, 50
NATURAL = 65
Cases = dict[str, dict[str, list[float]]]


def texts(language: Language, cases: int, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Prompts (B, L) of held-out names, and random words (B, length) as targets."""
    words = [i for word, i in language.ids.items() if word not in MARKS]
    for number in range(-(-cases // ROWS)):
        generator = np.random.default_rng([TEST, number, 3, length])
        made = forced_batch(language, generator, min(ROWS, cases - ROWS * number), LONGEST, held_out=True)
        yield made["prompt"], torch.from_numpy(generator.choice(words, (len(made["prompt"]), length)))


def optimised(
    backbone: FrozenBackbone, language: Language, cases: int, length: int, how: Force, with_controls: bool
) -> Cases:
    """Scores of each case by kind of change, see ``scores``."""
    found: Cases = {}
    natural = controls.samples(backbone, NATURAL, 24, seed=TEST) if with_controls else None
    for prompt, target in texts(language, cases, length):
        with torch.no_grad():
            layers, last = read(backbone, None, prompt[:, :-1]).layers, prompt[:, -1]
        made = {"optimised": force(backbone, layers, last, target, how)}
        change, keys = made["optimised"].change, how.keys(layers)

        def by(other: Change, at: tuple[Layers, Tensor, Tensor] = (layers, last, target)) -> Forced:
            return tried(backbone, *at, how, other)

        made |= {"nothing": by({}), "random": by(controls.random_change(change, TEST))}
        made["another's"] = by(controls.other_change(change))
        if natural is not None:
            mean = controls.mean_difference(backbone, natural[:32], target, keys)
            made["mean difference"] = by(controls.scaled(mean, change))
            with torch.no_grad():
                basis = controls.directions(read(backbone, None, natural).layers, keys)
            made["optimised in 64 PCA directions"] = force(backbone, layers, last, target, how, basis)
        for name, one in made.items():
            add(found.setdefault(name, {}), scores(one, target))
    return found


@torch.no_grad()
def projected(backbone: FrozenBackbone, language: Language, cases: int, projector: TokenProjector) -> Cases:
    """Words that training never forced, behind texts of held-out names, without optimisation."""
    found: Cases = {}
    how = Force(budget=projector.bound, parts=("recurrent",))
    for number in range(-(-cases // ROWS)):
        generator = np.random.default_rng([TEST, number, 4])
        made = forced_batch(language, generator, min(ROWS, cases - ROWS * number), LONGEST, held_out=True)
        prompt, target = made["prompt"], made["target"]
        layers, last = read(backbone, None, prompt[:, :-1]).layers, prompt[:, -1]
        after = projector.change(backbone, layers, last, target)
        change: Change = {(i, "recurrent"): after[i].recurrent - layers[i].recurrent for i in projector.shapes}
        for name, own in (
            ("projector", change),
            ("random", controls.random_change(change, TEST)),
            ("another's", controls.other_change(change)),
        ):
            one = tried(backbone, layers, last, target[:, None], how, own)
            add(found.setdefault(name, {}), scores(one, target[:, None]))
    return found


def scores(one: Forced, target: Tensor) -> dict[str, list[float]]:
    return {
        "forced": one.hit(target).float().tolist(),
        "kl": one.kl.tolist(),
        "perplexity": one.perplexity.tolist(),
    }


def add(to: dict[str, list[float]], more: dict[str, list[float]]) -> None:
    for name, values in more.items():
        to.setdefault(name, []).extend(values)
