"""A text's states are a function of the text alone: partners, order, threads, autocast and kept goals change no bit."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gssr.backbone import FrozenBackbone
from gssr.backbone.fixed_shapes import call_shape
from gssr.backbone.table import TextTable
from gssr.network import goal_encoder
from gssr.network.goal_encoder import GoalReader

WORDS = ("storm", "weakens", "to", "near", "north", "20.1", "hurricane Ian", "955 hPa", "moving at", "9 knots", "calm")
TEXTS = [" ".join(WORDS[(i * k + i) % len(WORDS)] for k in range(1 + i % 15 + 30 * (i % 13 == 5))) for i in range(40)]
TEXTS = list(dict.fromkeys(TEXTS))
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def nano(request: pytest.FixtureRequest) -> FrozenBackbone:
    return FrozenBackbone(dtype=request.param)


@pytest.fixture(scope="module")
def alone(nano: FrozenBackbone) -> dict[str, torch.Tensor]:
    return {text: nano.read([text], 3)[0] for text in TEXTS}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@FEW
@given(picked=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=25), threads=st.integers(1, 5))
def test_partners_order_number_and_threads_change_no_bit(
    picked: list[str], threads: int, nano: FrozenBackbone, alone: dict[str, torch.Tensor]
) -> None:
    torch.set_num_threads(threads)
    found = nano.read(picked, 3)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(states, alone[text]) for text, states in zip(picked, found, strict=True))


@FEW
@given(calls=st.lists(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=8), min_size=1, max_size=6))
def test_what_was_read_before_changes_no_bit(calls: list[list[str]], nano: FrozenBackbone) -> None:
    first, second = TextTable(nano, [2]), TextTable(nano, [2])
    for texts in calls:
        first.look_up([texts])
    second.add([text for texts in reversed(calls) for text in texts], keep=False)
    for texts in calls:
        assert torch.equal(first.look_up([texts])[0], second.look_up([texts])[0])


@FEW
@given(calls=st.lists(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=8), min_size=1, max_size=6))
def test_goals_that_were_kept_or_thrown_away_are_the_same(calls: list[list[str]], nano: FrozenBackbone) -> None:
    kept, forgetful = GoalReader(nano, 3), GoalReader(nano, 3)
    for goals in calls:
        states, mask = kept(goals)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(goal_encoder, "KEPT_BYTES", 20_000)
            other, same = forgetful(goals)
        assert forgetful._bytes == sum(part.nbytes for part in forgetful._states.values()) <= 20_000
        assert torch.equal(states, other) and torch.equal(mask, same)
        assert (states[~mask] == 0).all() and mask.sum(1).min() > 0


def test_autocast_changes_no_bit(tiny: FrozenBackbone) -> None:
    for threads in (1, 2):
        torch.set_num_threads(threads)
        plain = tiny.mean_states(TEXTS[:9], [1, 3])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(tiny.mean_states(TEXTS[:9], [1, 3]), plain)


def test_states_are_those_of_the_model_to_rounding(nano: FrozenBackbone, alone: dict[str, torch.Tensor]) -> None:
    """Padding, fillers and threads are no part of a text: the plain model reads it by itself."""
    tolerance = 1e-4 if nano.table.weight.dtype == torch.float32 else 0.1
    for text in TEXTS[:12]:
        ids = torch.tensor([[nano.start_id, *nano.tokenize([text])[0]]])
        with torch.no_grad():
            hidden = nano.model(input_ids=ids, output_hidden_states=True).hidden_states[3]
        assert torch.allclose(alone[text], hidden[0, 1:].float(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("width", "on_cpu"), [(96, True), (192, True), (768, True), (2048, True), (768, False)])
def test_shapes_are_few_hold_the_text_and_waste_little(width: int, on_cpu: bool) -> None:
    shapes = {tokens: call_shape(tokens, width, on_cpu) for tokens in range(2, 4000)}
    assert len(set(shapes.values())) < 100
    for tokens, (rows, length) in shapes.items():
        assert tokens <= length <= max(1.25 * tokens, 32)
        assert rows & (rows - 1) == 0 and rows * length <= max(length, 2048)
        assert call_shape(tokens, width, on_cpu, alone=True) == (1, length)
