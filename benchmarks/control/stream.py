"""A stream without end: facts between other text, each asked for at several lags; written, against read."""

from typing import Any

import numpy as np
import torch

from benchmarks.control.facts import TEST
from datamodules.facts.language import Fact, Language, Writer
from datamodules.facts.tasks import ANSWER, IGNORED, Questions
from gssr.backbone import FrozenBackbone
from gssr.control.memory import Memory
from gssr.control.projector import answered

LAGS = (0, 1, 2, 4)  # facts later
BETWEEN = 180  # tokens of other text behind each fact


@torch.no_grad()
def stream(backbone: FrozenBackbone, language: Language, tokens: int) -> dict[str, Any]:
    """Right answers (0 or 1) by lag in tokens, by memory; bytes before and behind."""
    writer = Writer(language, np.random.default_rng([TEST, 5]), held_out=True)
    ids = language.ids
    filler = Questions(writer, 0, 0)
    memories = {"written": Memory.empty(backbone), "read": Memory.empty(backbone)}
    before, passed, begun = memories["written"].bytes, 0, []
    right: dict[str, dict[str, list[float]]] = {name: {} for name in memories}
    while passed < tokens:
        (fact,) = writer.facts(1)
        said = " ".join(writer.statement(fact))
        memories = {
            "written": memories["written"].write(backbone, said),
            "read": memories["read"].read(backbone, said),
        }
        passed += len(said.split())
        begun.append((fact, passed))
        for lag in LAGS:
            if lag < len(begun):
                asked, at = begun[-1 - lag]
                question = torch.tensor([[[ids[word] for word in writer.question(asked)]]])
                for name, memory in memories.items():
                    answer = _answer(asked, ids)
                    nothing = torch.zeros(1, 0, dtype=torch.int64)
                    _, is_right = answered(backbone, memory.layers, nothing, question, answer)
                    right[name].setdefault(str(lag * BETWEEN), []).append(float(is_right))
        other = " ".join(filler.other(BETWEEN, busy=False))
        memories = {name: memory.read(backbone, other) for name, memory in memories.items()}
        passed += BETWEEN
    return {"right": right, "tokens": passed, "bytes before": before, "bytes behind": memories["written"].bytes}


def _answer(fact: Fact, ids: dict[str, int]) -> torch.Tensor:
    answer = [ids[word] for word in (*fact.answer, ".")]
    return torch.tensor([[answer + [IGNORED] * (ANSWER - len(answer))]])
