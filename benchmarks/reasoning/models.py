"""The small models that are measured, one for each kind of problem and seed: two Mamba-2 layers, 0.2M parameters.

The control is the same model from the same problems, trained on answers alone: at once, or behind as many constant
tokens as there are further lookups. It learns all of its weights for that, where thoughts are trained around a model
that stays as it is.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.short_training import train
from datamodules.lookups import WrittenChains
from datamodules.lookups.data import Problems, Row, ids
from datamodules.lookups.tasks import END, WORDS, Problem
from gssr.backbone import FrozenBackbone
from gssr.training.architectures import PureMamba2
from gssr.training.language_model import LanguageModelTraining
from gssr.training.objectives import WeightedTokens
from gssr.training.optimizers import MuonAdamWConfig

WIDTH, LAYERS = 96, 2


class AnswersAtOnce(Problems):
    """{"tokens", "weights"}, (L+1) each: facts, the first word of a chain, constant tokens or none, and the answer."""

    def row(self, problem: Problem, shared: np.random.Generator, own: np.random.Generator) -> Row:
        chain = problem.chains[int(own.integers(len(problem.chains)))]
        longest = problem.written or max(map(len, problem.chains)) - 1
        start = len(chain) - 1 - int(own.integers(1, min(longest, len(chain) - 1) + 1))
        spacers = int(shared.integers(2)) * (longest - 1)
        tokens = torch.tensor(ids([*problem.facts, chain[start], *[END] * spacers, chain[-1]]))
        weights = torch.zeros(len(tokens))
        weights[-1] = 1.0
        return {"tokens": tokens, "weights": weights}


class Answers(WrittenChains):
    kind = AnswersAtOnce


def model(out: Path, task: str, seed: int, steps: int, is_control: bool = False) -> FrozenBackbone:
    """A model from its folder, or trained now."""
    folder = out / f"{'control' if is_control else 'model'}-{task}-{seed}"
    if not (folder / "tokenizer.json").exists():
        kind = Answers if is_control else WrittenChains
        module = partial(
            LanguageModelTraining,
            partial(PureMamba2, len(WORDS), WIDTH, LAYERS),
            WeightedTokens,
            MuonAdamWConfig(lr=5e-3, weight_decay=0.01, warmup_steps=100, decay_share=0.4),
            compile_layers=False,
            export=str(folder),
        )
        train(module, kind((task,), 32, 32 * steps, 32, seed), steps, seed)
    return FrozenBackbone(str(folder), dtype="float32")
