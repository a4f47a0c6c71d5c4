"""The comparison of starts: each changes what its name says, and rows count what can be known."""

import math

import numpy as np
import pytest
import torch
from transformers import GraniteMoeHybridForCausalLM

from benchmarks import memory_start
from gssr.training.architectures import nano_config

CHANGED = {
    "transformers": set(),
    "mamba2": {"A_log", "dt_bias"},
    "half-lives": {"A_log", "dt_bias"},
    "half-lives, C = B": {"A_log", "dt_bias", "in_proj"},
    "half-lives, convolution": {"A_log", "dt_bias", "conv1d"},
    "C = B, convolution": {"in_proj", "conv1d"},
    "memory": {"A_log", "dt_bias", "in_proj", "conv1d"},
}


@pytest.mark.parametrize("start", CHANGED)
def test_a_start_changes_what_it_names(start: str) -> None:
    config = nano_config(64, 96, 2, 16)
    config.layer_types = ["linear_attention"] * 2
    torch.manual_seed(0)
    model = GraniteMoeHybridForCausalLM(config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    memory_start.STARTS[start](model)
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert {name.removesuffix(".weight").rpartition(".")[2] for name in changed} == CHANGED[start]


def test_only_tokens_that_came_before_count() -> None:
    made = memory_start.batch(np.random.default_rng(0))
    for row, weights in zip(made["tokens"].tolist(), made["weights"], strict=True):
        first = int(weights.argmax())
        size = first - 1
        assert 8 <= size <= memory_start.LONGEST and not weights[:first].any()
        assert row[size:] == row[: len(row) - size]


def test_a_training_gives_nats_and_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_start, "LENGTH", 32)
    monkeypatch.setattr(memory_start, "LONGEST", 16)
    nats, share = memory_start.train("memory", 2, 0)
    assert nats == pytest.approx(math.log(64), rel=0.2) and 0.25 <= share <= 0.5
