"""Reading on from states: the library's numbers, gradients of every part, what is left of a state, composition."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.control.compose import beginning, compose, piece, remove
from gssr.control.functional import Layers, asked_by, decays, logits, mixers, read, say
from tests.states.conftest import other_hybrid
from tests.states.test_advance import ARCHITECTURES


@pytest.fixture(scope="module", params=ARCHITECTURES)
def family(
    request: pytest.FixtureRequest, tiny: FrozenBackbone, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> FrozenBackbone:
    if request.param == "granite":
        return tiny
    return other_hybrid(request.param, tiny_folder, tmp_path_factory.mktemp(request.param))


def ids(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(2, 300, (rows, length), generator=torch.Generator().manual_seed(seed))


def with_gradients(layers: Layers) -> Layers:
    return tuple(layer.map(lambda part: part.detach().clone().requires_grad_()) for layer in layers)


@pytest.mark.parametrize("split", [1, 4, 8])
@torch.no_grad()
def test_reading_on_is_the_library_reading_at_once(family: FrozenBackbone, split: int) -> None:
    tokens = ids(2, 9)
    layers = read(family, None, tokens[:, :split]).layers
    found = logits(family, layers, tokens[:, split:])
    expected = family.model(input_ids=tokens, use_cache=False).logits[:, split:]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("new", [1, 3])
def test_gradients_of_every_part_are_finite_differences(family: FrozenBackbone, new: int) -> None:
    layers, tokens = with_gradients(read(family, None, ids(1, 6)).layers), ids(1, new, seed=1)
    weight = torch.randn(1, new, family.hidden_size, generator=torch.Generator().manual_seed(2))

    def value(layers: Layers) -> Tensor:
        return (read(family, layers, tokens).hidden * weight).sum()

    parts = [(i, name, part) for i, layer in enumerate(layers) for name, part in layer.parts()]
    gradients = torch.autograd.grad(value(layers), [part for _, _, part in parts], allow_unused=True)
    assert {name for _, name, _ in parts} >= {"recurrent", "conv"}
    for (i, name, part), gradient in zip(parts, gradients, strict=True):
        assert gradient is not None, f"{name} of layer {i}"
        way = torch.randn(part.shape, generator=torch.Generator().manual_seed(3)) * part.detach().std().clamp(min=0.01)
        ends = []
        for step in (1e-2, -1e-2):
            moved = list(layers)
            moved[i] = replace(layers[i], **{name: (part + step * way).detach()})
            with torch.no_grad():
                ends.append(value(tuple(moved)).double())
        measured, told = float((ends[0] - ends[1]) / 2e-2), float((gradient * way).sum())
        assert told == pytest.approx(measured, rel=0.03, abs=2e-3), f"{name} of layer {i}"


@torch.no_grad()
def test_what_is_left_of_a_state_is_read_off_the_step_sizes(family: FrozenBackbone) -> None:
    """The first Mamba-2 layer sees the same inputs whatever its state was."""
    layers, tokens = read(family, None, ids(2, 5)).layers, ids(2, 4, seed=1)
    first = min(mixers(family))
    change = torch.randn_like(layers[first].recurrent)
    moved = list(layers)
    moved[first] = replace(layers[first], recurrent=layers[first].recurrent + change)
    with decays(family) as passed:
        plain = read(family, layers, tokens[:, :3]).layers
        plain = read(family, plain, tokens[:, 3:]).layers
    other = read(family, tuple(moved), tokens).layers
    left = passed[first].exp()[..., None, None] * change
    torch.testing.assert_close(other[first].recurrent - plain[first].recurrent, left, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_what_a_token_asks_is_what_the_scan_is_given(facts: FrozenBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    modeling, given = sys.modules[type(facts.model).__module__], []
    scan = modeling.mamba2_chunk_scan

    def watched(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *args: object, **kwargs: object) -> object:
        given.append(C[:, -1])
        return scan(x, dt, A, B, C, *args, **kwargs)

    monkeypatch.setattr(modeling, "mamba2_chunk_scan", watched)
    asked = asked_by(facts, read(facts, None, ids(2, 6)).layers)
    for i, C in enumerate(given):
        torch.testing.assert_close(asked[i], C.float().expand_as(asked[i]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_saying_is_the_librarys_greedy_text(facts: FrozenBackbone) -> None:
    tokens = ids(2, 6)
    layers = read(facts, None, tokens[:, :-1]).layers
    expected = facts.model.generate(tokens, max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(say(facts, layers, tokens[:, -1], 5), expected[:, 6:])


@torch.no_grad()
def test_composing_is_reading_in_one_layer_and_can_be_undone(one_layer: FrozenBackbone) -> None:
    layers, text = read(one_layer, None, ids(2, 7)).layers, ids(2, 5, seed=1)
    written = piece(one_layer, text, behind=layers)
    (found,), (expected,) = compose(layers, written), read(one_layer, layers, text).layers
    torch.testing.assert_close(found.recurrent, expected.recurrent, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.conv, expected.conv)
    none = {i: torch.zeros_like(decay) for i, decay in written.log_decay.items()}
    (back,) = remove((found,), written, none)
    left = written.log_decay[0].exp()[..., None, None] * layers[0].recurrent
    torch.testing.assert_close(back.recurrent, left, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_keys_are_appended_where_a_model_has_no_positions(tiny: FrozenBackbone) -> None:
    layers, text = read(tiny, None, ids(1, 7)).layers, ids(1, 5, seed=1)
    found = compose(layers, piece(tiny, text))
    attention = [i for i, layer in enumerate(layers) if layer.keys is not None]
    assert attention and all(found[i].keys.shape[2] == 12 for i in attention)
    assert torch.equal(found[attention[0]].keys[:, :, :7], layers[attention[0]].keys)
    read(tiny, found, ids(1, 2))


def test_keys_with_positions_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rotated by their position"):
        piece(other_hybrid("bamba", tiny_folder, tmp_path), ids(1, 4))


def test_a_beginning_has_read_one_token(facts: FrozenBackbone) -> None:
    layers = beginning(facts, 3)
    assert all(len(layer.recurrent) == 3 for layer in layers)
    torch.testing.assert_close(
        logits(facts, layers, ids(3, 2)),
        facts.model(torch.cat([torch.full((3, 1), facts.start_id), ids(3, 2)], 1)).logits[:, 1:],
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
