"""Vectors added to the residual stream, beside which states are measured."""

import pytest
import torch
from torch import Tensor

from benchmarks.steering.methods import residual
from gssr.backbone import FrozenBackbone
from gssr.states.rules import Schedule


@torch.no_grad()
def inputs_of(backbone: FrozenBackbone, layer: int, ids: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = backbone.layers[layer].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    backbone.model(ids)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_vector_is_added_from_the_last_token_of_the_prompt_on(dtype: str) -> None:
    backbone = FrozenBackbone("nano", dtype=dtype)
    ids = backbone.tokenizer("the storm turned north", return_tensors="pt").input_ids
    vector = torch.randn(backbone.hidden_size, generator=torch.Generator().manual_seed(0))
    plain = inputs_of(backbone, 2, ids)
    with residual(backbone, {1: vector}, Schedule()):
        moved = inputs_of(backbone, 2, ids)
    assert moved.dtype == plain.dtype == getattr(torch, dtype)
    assert torch.equal(moved[:, :-1], plain[:, :-1])
    assert torch.equal(moved[:, -1], plain[:, -1] + vector.to(plain.dtype))
