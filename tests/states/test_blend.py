"""A blend is exactly its ends, a weighted mean between them, and one of the states where no mean is defined."""

from typing import Any

import pytest
import torch

from gssr.backbone import FrozenBackbone
from gssr.states.blend import blend, ratio_weights
from gssr.states.hybrid_state import HybridState
from tests.states.conftest import PROMPTS
from tests.states.test_hybrid_state import same, tensors


@pytest.fixture(scope="module")
def states(tiny: FrozenBackbone) -> list[HybridState]:
    """Three texts of different length."""
    return [HybridState.capture(tiny, [prompt]) for prompt in PROMPTS]


@pytest.mark.parametrize("which", ["tiny", "nano"])
def test_the_ends_are_exact(which: str, request: pytest.FixtureRequest) -> None:
    backbone = request.getfixturevalue(which)
    a, b = (HybridState.capture(backbone, [prompt]) for prompt in PROMPTS[:2])
    assert same(blend([a, b], ratio_weights(0.0)), a)
    assert same(blend([a, b], ratio_weights(1.0)), b)
    everywhere = dict.fromkeys(a.recurrent_layers, (0.0, 1.0))
    assert same(blend([a, b], (1.0, 0.0), layers=everywhere), b)
    greedy = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(blend([a, b], (0, 1)).generate(backbone, **greedy), b.generate(backbone, **greedy))


def test_many_states_have_exact_ends(states: list[HybridState]) -> None:
    for i, state in enumerate(states):
        assert same(blend(states, [7.0 * (j == i) for j in range(3)]), state)


def test_an_end_is_exact_even_beside_an_infinite_state(states: list[HybridState]) -> None:
    """Zero times infinity would be NaN: what has no weight is not read."""
    broken = states[1].with_layers({0: states[1].layers[0].map(lambda part: torch.full_like(part, torch.inf))})
    assert same(blend([states[0], broken], (1, 0)), states[0])


@pytest.mark.parametrize("weights", [(1, 1, 2), (0.2, 0.5, 0.3), (0, 3, 1)])
def test_recurrent_states_are_weighted_means(states: list[HybridState], weights: tuple[float, ...]) -> None:
    other = (5.0, 0.0, 5.0)
    blended = blend(states, weights, layers={1: other})
    for layer in (0, 1, 2):
        share = torch.tensor(other if layer == 1 else weights, dtype=torch.float64)
        all_three = torch.stack([state.layers[layer].recurrent.double() for state in states])
        expected = torch.einsum("s,s...->...", share / share.sum(), all_three)
        torch.testing.assert_close(blended.layers[layer].recurrent.double(), expected, rtol=1e-5, atol=1e-7)
        assert blended.layers[layer].recurrent.dtype == torch.float32


@pytest.mark.parametrize(
    ("weights", "layers", "anchor", "expected"),
    [
        ((0.3, 0.7, 0.0), None, None, 1),
        ((1, 1, 1), None, None, 0),
        ((1, 2, 2), None, None, 1),
        ((0.3, 0.7, 0.0), None, 2, 2),
        ((0.6, 0.4, 0.0), {0: (0, 9, 1), 1: (0, 9, 1)}, None, 1),  # the mean over layers decides
    ],
)
def test_what_has_no_mean_comes_whole_from_the_anchor(
    states: list[HybridState], weights: Any, layers: Any, anchor: int | None, expected: int
) -> None:
    blended, source = blend(states, weights, layers, anchor), states[expected]
    got, old = tensors(blended), tensors(source)
    assert got.keys() == old.keys()
    for name in got:
        assert torch.equal(got[name], old[name]) == (not name.endswith("recurrent")), name
    assert torch.equal(blended.position, source.position)


def test_a_blend_can_be_continued_and_leaves_its_sources_alone(tiny: FrozenBackbone, states: list[HybridState]) -> None:
    before = [{name: tensor.clone() for name, tensor in tensors(state).items()} for state in states]
    blended = blend(states, (1, 2, 3))
    assert blended.generate(tiny, max_new_tokens=4, min_new_tokens=4).shape == (1, 4)
    for state, old in zip(states, before, strict=True):
        assert all(torch.equal(tensor, old[name]) for name, tensor in tensors(state).items())


def test_rows_meet_rows(tiny: FrozenBackbone, states: list[HybridState]) -> None:
    two, other = (HybridState.capture(tiny, prompts) for prompts in (PROMPTS[:2], PROMPTS[1:]))
    blended = blend([two, other], ratio_weights(0.25))
    for row in range(2):
        assert same(blended.select([row]), blend([two.select([row]), other.select([row])], ratio_weights(0.25)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: blend(s[:2], ratio_weights(1.5)), "ratio 1.5 is not between 0"),
        (lambda s: blend(s[:2], ratio_weights(float("nan"))), "ratio nan is not between 0"),
        (lambda s: blend(s, (1, 2)), "2 weights for 3 states"),
        (lambda s: blend(s, (1, -1, 1)), "not all at least 0"),
        (lambda s: blend(s, (0, 0, 0)), "not all at least 0"),
        (lambda s: blend(s, (1, 1, 1), layers={3: (1, 0, 0)}), r"layer 3 has no recurrent state .*\[0, 1, 2\]"),
        (lambda s: blend(s, (1, 1, 1), anchor=3), "anchor 3 does not exist"),
        (lambda s: blend([s[0], s[1].select([0, 0])], (1, 1)), r"\[1, 2\] rows cannot be blended"),
        (lambda s: blend([], ()), "cannot be blended"),
    ],
)
def test_what_is_no_blend_is_refused(states: list[HybridState], call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(states)
