"""Files of states: read as they were written, or refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gssr.backbone import FrozenBackbone
from gssr.states.hybrid_state import HybridState
from gssr.states.learned_state import LearnedState
from tests.conftest import SENTENCES
from tests.fuzz.damage import damaged, fuzz, read_or_refuse, strange_safetensors


def _learned(backbone: FrozenBackbone) -> LearnedState:
    recurrent = {layer: torch.ones(24, 16, 16) for layer in (0, 2)}
    return LearnedState({"recurrent": recurrent}, {"recurrent": {layer: torch.zeros(24, 1, 1) for layer in (0, 2)}})


@pytest.fixture(scope="module")
def files(tiny: FrozenBackbone, place: Path) -> dict[str, bytes]:
    HybridState.capture(tiny, SENTENCES[:2]).save(place / "hybrid")
    _learned(tiny).save(place / "learned", tiny)
    return {name: (place / name).read_bytes() for name in ("hybrid", "learned")}


def _tensors(state: Any) -> list[torch.Tensor]:
    if isinstance(state, LearnedState):
        return list(state.tensors().values())
    return [state.tokens, state.mask, *(part for layer in state.layers for _, part in layer.parts())]


@pytest.mark.parametrize("how", [damaged, strange_safetensors], ids=["bytes", "header"])
@pytest.mark.parametrize("kind", ["hybrid", "learned"])
@fuzz(30)
@given(data=st.data())
def test_a_damaged_state_is_refused_or_equal(
    kind: str, how: Any, files: dict[str, bytes], tiny: FrozenBackbone, place: Path, data: st.DataObject
) -> None:
    def load(file: Path) -> HybridState | LearnedState:
        return HybridState.load(file, tiny) if kind == "hybrid" else LearnedState.load(file, tiny)

    file = place / "damaged"
    file.write_bytes(data.draw(how(files[kind])))
    found = read_or_refuse(lambda: load(file))
    if found is not None:
        for a, b in zip(_tensors(found), _tensors(load(place / kind)), strict=True):
            assert torch.equal(a, b), "changed numbers were used"
