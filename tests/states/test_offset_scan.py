"""Learned offsets and the other sources of direction."""

import copy

import pytest
import torch

from benchmarks.steering.learned_offset import learn_offset
from gssr.backbone import FrozenBackbone
from gssr.states.directions import (
    mean_difference,
    random_like,
    recurrent_states,
)
from gssr.states.examples import Examples, Intervention, Learning
from gssr.states.intervention import steer
from gssr.states.offset_scan import scan_offsets
from gssr.states.rules import LowRank, Offset, Schedule

PROMPTS = ["Weaken to 35 knots in", "Hurricane Ian near 20.1 north 83.5 west"]
FOLLOW = ["\nTropical storm Alex near 30.0 north 60.0 west.", "\nTropical storm"]


@pytest.mark.parametrize("schedule", [Schedule.once(), Schedule(half_life=2), Schedule(start=1, every=2, stop=6)])
@pytest.mark.parametrize("kind", ["shared", "rows", "low rank"])
def test_closed_form_equals_a_change_before_every_token(lively: FrozenBackbone, schedule: Schedule, kind: str) -> None:
    """Logits of one call of eight tokens through the changed scan, against eight steered calls of one."""
    torch.manual_seed(0)
    cache = Examples(lively, PROMPTS, FOLLOW, prompt_tokens=6).read(torch.arange(2))
    shape = cache.get_recurrent_state(0).shape
    if kind == "low rank":
        change = {0: LowRank(torch.randn(*shape[:-1], 2), torch.randn(shape[0], shape[1], shape[3], 2))}
    else:
        change = {layer: torch.randn(shape[1:] if kind == "shared" else shape) for layer in (0, 2)}
    ids = torch.randint(2, 300, (shape[0], 8))
    at_once, stepwise = copy.deepcopy(cache), copy.deepcopy(cache)
    with torch.no_grad():
        with scan_offsets(lively, change, schedule):
            expected = lively.model(ids, past_key_values=at_once, use_cache=True).logits
        with steer(lively.model, Offset(change, schedule=schedule)):
            found = [lively.model(ids[:, [t]], past_key_values=stepwise, use_cache=True).logits for t in range(8)]
        plain = lively.model(ids, past_key_values=copy.deepcopy(cache), use_cache=True).logits
    found = torch.cat(found, 1)
    difference = (expected - plain).abs().max()
    assert torch.allclose(expected, found, atol=float(1e-3 * difference + 1e-7))
    for layer in change:
        assert torch.allclose(
            at_once.get_recurrent_state(layer), stepwise.get_recurrent_state(layer), rtol=1e-3, atol=1e-4
        )


def test_learning_lowers_its_loss_and_leaves_the_model_alone(lively: FrozenBackbone) -> None:
    before = {name: x.clone() for name, x in lively.model.state_dict().items()}
    examples = Examples(lively, PROMPTS, FOLLOW, tokens=6)
    settings = Learning(steps=25, batch=4)
    direction, losses = learn_offset(examples, Schedule(stop=4), settings, layers=[0, 2])
    assert set(direction) == {0, 2} and direction[0].shape == recurrent_states(lively, PROMPTS)[0].shape[1:]
    assert sum(losses[-5:]) < sum(losses[:5]) - 0.05
    assert not any(x.requires_grad or x.grad is not None for x in lively.model.parameters())
    assert all(torch.equal(before[name], x) for name, x in lively.model.state_dict().items())
    assert not any(layer._forward_pre_hooks for layer in lively.layers)
    again, _ = learn_offset(examples, Schedule(stop=4), settings, layers=[0, 2])
    assert all(torch.equal(direction[layer], again[layer]) for layer in direction)


def test_a_learned_offset_acts_in_generation(lively: FrozenBackbone) -> None:
    """The likelihood that training lowered is the one that stock generation samples from."""
    examples = Examples(lively, PROMPTS, FOLLOW[:1], tokens=5)
    direction, _ = learn_offset(examples, Schedule.once(), Learning(steps=25, batch=4))
    wanted = examples.targets[0, 0]
    ids = examples.prompts[:1][:, examples.mask[0] == 1]
    options = {"max_new_tokens": 1, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    plain = lively.model.generate(ids, **options).logits[0].log_softmax(-1)[0, wanted]
    with steer(lively.model, Offset(direction, schedule=Schedule.once())):
        steered = lively.model.generate(ids, **options).logits[0].log_softmax(-1)[0, wanted]
    assert steered > plain + 0.05


def test_layers_without_a_state_are_refused(lively: FrozenBackbone) -> None:
    with pytest.raises(ValueError, match="layers \\[3\\] have no recurrent state"):
        learn_offset(Examples(lively, PROMPTS, FOLLOW), Schedule.once(), Learning(), layers=[0, 3])


def test_states_do_not_depend_on_the_batch(lively: FrozenBackbone) -> None:
    together = recurrent_states(lively, PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        for layer, single in recurrent_states(lively, [prompt]).items():
            assert torch.allclose(together[layer][row], single[0], atol=1e-6)
    difference = mean_difference(lively, PROMPTS, PROMPTS[:1])
    expected = (together[1][1] - together[1][0]) / 2
    assert torch.allclose(difference[1], expected, atol=1e-6)
    with pytest.raises(ValueError, match="has no token"):
        recurrent_states(lively, [""])


def test_random_directions_have_the_norms_of_another(lively: FrozenBackbone) -> None:
    states = {layer: x[0] for layer, x in recurrent_states(lively, PROMPTS[:1]).items()}
    first, second = random_like(states, 0), random_like(states, 1)
    for layer, x in states.items():
        assert torch.allclose(first[layer].norm(), x.norm())
        cosine = torch.nn.functional.cosine_similarity(first[layer].flatten(), second[layer].flatten(), dim=0)
        assert cosine.abs() < 0.2


def test_the_loss_is_that_of_the_steered_text(lively: FrozenBackbone) -> None:
    """By hand: mean nats of a continuation's tokens, read one by one under `steer` behind an unsteered prompt."""
    examples = Examples(lively, PROMPTS[:1], FOLLOW[:1], tokens=5)
    torch.manual_seed(0)
    shape = recurrent_states(lively, PROMPTS)[0].shape[1:]
    change, schedule = {layer: torch.randn(shape) for layer in (0, 2)}, Schedule(stop=3)
    settings = Learning(batch=1, first_weight=1.0)
    with torch.no_grad():
        found = examples.loss(
            settings,
            torch.Generator().manual_seed(0),
            Intervention(around=lambda: scan_offsets(lively, change, schedule)),
        )
        cache, ids, nats = examples.read(torch.tensor([0])), examples.prompts[:, -1:], []
        with steer(lively.model, Offset(change, schedule=schedule)):
            for token in examples.targets[0]:
                logits = lively.model(ids, past_key_values=cache, use_cache=True).logits[0, -1]
                nats.append(-logits.log_softmax(-1)[token])
                ids = token[None, None]
        plain = examples.loss(settings, torch.Generator().manual_seed(0))
    assert found.item() == pytest.approx(torch.stack(nats).mean().item(), abs=1e-4)
    assert abs(found - plain) > 0.01
