"""Continuing from a cache equals the library's forward pass without one, for unequal rows and for gradients, too."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.states.advance import advance, left_padded
from gssr.states.cache import LayerState, empty_cache, fill_cache, layer_states
from tests.states.conftest import other_hybrid

ARCHITECTURES = ("granite", "bamba", "falcon_h1", "mamba2")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def backbone(
    request: pytest.FixtureRequest, lively: FrozenBackbone, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> FrozenBackbone:
    """Mamba-2 and attention layers, with rotary positions, both kinds in one layer, and no attention at all."""
    if request.param == "granite":
        return lively
    made = other_hybrid(request.param, tiny_folder, tmp_path_factory.mktemp(request.param))
    with torch.no_grad():
        for name, weight in made.model.named_parameters():
            weight *= 4 if "proj" in name else 1
    return made


def texts(backbone: FrozenBackbone, rows: int, length: int, seed: int = 0) -> Tensor:
    ids = torch.randint(2, 300, (rows, length), generator=torch.Generator().manual_seed(seed))
    return backbone.embed(ids)


def without_cache(backbone: FrozenBackbone, embeddings: Tensor) -> Tensor:
    return backbone.decoder(inputs_embeds=embeddings, use_cache=False).last_hidden_state


def ones(rows: int, length: int) -> Tensor:
    return torch.ones(rows, length, dtype=torch.bool)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def rows_of(layers: tuple[LayerState, ...]) -> list[Tensor]:
    return [part for layer in layers for _, part in layer.parts()]


@pytest.mark.parametrize("pieces", [[9], [1] * 9, [4, 1, 1, 3], [1, 8]])
@torch.no_grad()
def test_any_pieces_give_the_hidden_states_of_one_forward_pass(backbone: FrozenBackbone, pieces: list[int]) -> None:
    embeddings = texts(backbone, 3, 9)
    cache, found, seen = empty_cache(backbone.model), [], 0
    for piece in embeddings.split(pieces, 1):
        seen += piece.shape[1]
        hidden, cache = advance(backbone, cache, piece, ones(3, seen))
        found.append(hidden)
    expected = without_cache(backbone, embeddings)
    close(torch.cat(found, 1), expected)
    logits = backbone.logits(torch.cat(found, 1))
    close(logits, backbone.model(inputs_embeds=embeddings, use_cache=False).logits)


# The new tokens of each row, True where there is one; the prefix is left-padded by 0, 2 and 3 positions.
LAYOUTS = {
    "left": [[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]],
    "right": [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]],
    "holes": [[0, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 1]],
    "a row without tokens": [[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 0]],
    "single tokens": [[1], [0], [1]],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_unequal_rows_are_each_row_by_itself(backbone: FrozenBackbone, layout: str) -> None:
    new = torch.tensor(LAYOUTS[layout], dtype=torch.bool)
    prefix = torch.tensor([[1] * 6, [0] * 2 + [1] * 4, [0] * 3 + [1] * 3], dtype=torch.bool)
    mask = torch.cat([prefix, new, ones(3, 2)], 1)
    embeddings = texts(backbone, 3, mask.shape[1])
    cache, found, seen = empty_cache(backbone.model), [], 0
    for length in (6, new.shape[1], 1, 1):
        part = slice(seen, seen + length)
        hidden, cache = advance(backbone, cache, embeddings[:, part], mask[:, : part.stop])
        found.append(hidden)
        seen += length
    found = torch.cat(found, 1)
    for row in range(3):
        expected = without_cache(backbone, embeddings[row : row + 1, mask[row]])
        close(found[row, mask[row]], expected[0])
        assert not found[row, ~mask[row]].any()
        _, own = advance(
            backbone, empty_cache(backbone.model), embeddings[row, mask[row]][None], ones(1, int(mask[row].sum()))
        )
        for layer, expected in zip(layer_states(cache), layer_states(own), strict=True):
            for name, part in expected.parts():
                got = getattr(layer, name)[row]
                close(got if name in ("recurrent", "conv") else got[:, mask[row]], part[0])


@torch.no_grad()
def test_an_empty_cache_reads_rows_padded_on_the_right(backbone: FrozenBackbone) -> None:
    mask = torch.tensor(LAYOUTS["right"], dtype=torch.bool)
    embeddings = texts(backbone, 3, 4)
    found, _ = advance(backbone, empty_cache(backbone.model), embeddings, mask)
    for row in range(3):
        close(found[row, mask[row]], without_cache(backbone, embeddings[row : row + 1, mask[row]])[0])


@pytest.mark.parametrize("pieces", [[3, 1, 1], [1, 1, 1, 1, 1], [2, 1, 2]])
def test_gradients_through_single_tokens_are_those_of_one_forward_pass(
    backbone: FrozenBackbone, pieces: list[int]
) -> None:
    embeddings = texts(backbone, 2, 5).requires_grad_()
    weight = torch.randn(2, 5, backbone.hidden_size, generator=torch.Generator().manual_seed(1))
    cache, found, seen = empty_cache(backbone.model), [], 0
    for piece in embeddings.split(pieces, 1):
        seen += piece.shape[1]
        hidden, cache = advance(backbone, cache, piece, ones(2, seen))
        found.append(hidden)
    (gradient,) = torch.autograd.grad((torch.cat(found, 1) * weight).sum(), embeddings)
    (expected,) = torch.autograd.grad((without_cache(backbone, embeddings) * weight).sum(), embeddings)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("unequal", [False, True])
def test_gradients_of_each_state_through_a_single_token_are_finite_differences(
    lively: FrozenBackbone, unequal: bool
) -> None:
    embeddings, mask = texts(lively, 2, 6), ones(2, 6)
    if unequal:
        mask[1, 5] = False
    weight = torch.randn(2, 1, lively.hidden_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        _, cache = advance(lively, empty_cache(lively.model), embeddings[:, :5], mask[:, :5])
    layers = layer_states(cache)

    def loss(layer: int, part: str, push: Tensor) -> Tensor:
        changed = [x.map(lambda state: state * (1 + push), (part,)) if i == layer else x for i, x in enumerate(layers)]
        hidden, _ = advance(lively, fill_cache(lively.model, changed), embeddings[:, 5:], mask)
        return (hidden.double() * weight).sum()

    for layer, part in ((1, "recurrent"), (1, "conv"), (3, "keys"), (3, "values")):
        push = torch.tensor(0.0, requires_grad=True)
        (gradient,) = torch.autograd.grad(loss(layer, part, push), push)
        with torch.no_grad():
            ends = [loss(layer, part, torch.tensor(step)) for step in (0.1, -0.1)]
        assert gradient.item() == pytest.approx(((ends[0] - ends[1]) / 0.2).item(), rel=0.03), (layer, part)
        assert gradient.abs() > 1e-3


@pytest.mark.parametrize("gradients", [False, True])
def test_the_given_cache_stays_as_it_is(backbone: FrozenBackbone, gradients: bool) -> None:
    embeddings, mask = texts(backbone, 2, 8).requires_grad_(gradients), ones(2, 8)
    mask[0, 6] = False
    with torch.no_grad():
        _, cache = advance(backbone, empty_cache(backbone.model), embeddings[:, :5], mask[:, :5])
    before = [part.clone() for part in rows_of(layer_states(cache))]
    with torch.set_grad_enabled(gradients):
        again = []
        for _ in range(2):
            for stop in (6, 8):
                hidden, further = advance(backbone, cache, embeddings[:, 5:stop], mask[:, :stop])
                again.append(hidden)
        if gradients:
            torch.autograd.grad(sum(hidden.sum() for hidden in again), embeddings)
    after = rows_of(layer_states(cache))
    assert all(torch.equal(a, b) and not a.requires_grad for a, b in zip(after, before, strict=True))
    assert torch.equal(again[0], again[2]) and torch.equal(again[1], again[3])
    owned = {part.untyped_storage().data_ptr() for part in after}
    assert not owned & {part.untyped_storage().data_ptr() for part in rows_of(layer_states(further))}


def test_shapes_that_do_not_fit_are_refused(lively: FrozenBackbone) -> None:
    cache, embeddings = empty_cache(lively.model), texts(lively, 2, 4)
    _, read = advance(lively, cache, embeddings, ones(2, 4))
    with pytest.raises(ValueError, match=r"expected \(B, L, E\) with L of at least 1"):
        advance(lively, cache, embeddings[:, :0], ones(2, 0))
    with pytest.raises(ValueError, match="expect 2 rows and 3 positions in the cache"):
        advance(lively, read, embeddings, ones(2, 7))
    with pytest.raises(ValueError, match="expect 1 rows and 4 positions in the cache"):
        advance(lively, read, embeddings[:1], ones(1, 8))
    with pytest.raises(ValueError, match="give each row at least one token"):
        advance(lively, cache, embeddings, torch.tensor([[True] * 4, [False] * 4]))


def test_texts_are_padded_on_the_left_and_keep_their_last_tokens(tiny: FrozenBackbone) -> None:
    texts = ["Hurricane Ian near 20.1 north", "x"]
    long, short = tiny.tokenize(texts)
    tokens, mask = left_padded(tiny, texts, padding=7)
    assert tokens[0].tolist() == [tiny.start_id, *long] and mask[0].all()
    assert tokens[1, mask[1]].tolist() == [tiny.start_id, *short]
    assert (tokens[1, ~mask[1]] == 7).all() and not mask[1, 0]
    tokens, mask = left_padded(tiny, texts, padding=7, last=3)
    assert tokens[0].tolist() == long[-3:] and mask.sum(1).tolist() == [3, len(short) + 1]
