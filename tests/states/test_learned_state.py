"""States learned to start from, and rules for the parts of a state that are not recurrent."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import DynamicCache

from gssr.backbone import FrozenBackbone
from gssr.states.advance import advance
from gssr.states.examples import Examples, Learning
from gssr.states.intervention import inject, steer
from gssr.states.learned_state import LearnedState, learn_state
from gssr.states.rules import PARTS, Interpolation, Offset, Schedule
from tests.states.conftest import other_hybrid

PROMPTS = ["Weaken to 35 knots in", "Hurricane Ian near 20.1 north 83.5 west"]
FOLLOW = ["\nTropical storm Alex near 30.0 north 60.0 west.", "\nTropical storm"]
MAMBA, ATTENTION = (0, 1, 2), 3


@pytest.fixture
def examples(lively: FrozenBackbone) -> Examples:
    return Examples(lively, PROMPTS, FOLLOW, tokens=6)


@pytest.fixture
def cache(examples: Examples) -> DynamicCache:
    return examples.read(torch.arange(2))


def _random(cache: DynamicCache, rows: int | None = None) -> LearnedState:
    """Targets of the states' own sizes with gates of 1."""
    torch.manual_seed(0)
    found = {"recurrent": cache.get_recurrent_state, "conv": cache.get_conv_state, "values": None}
    targets: dict[str, dict[int, torch.Tensor]] = {part: {} for part in PARTS}
    for part, get in found.items():
        for layer in MAMBA if get else (ATTENTION,):
            state = get(layer) if get else cache.layers[layer].values[:, :, :1]
            targets[part][layer] = torch.randn((rows, *state.shape[1:]) if rows else state.shape[1:]) * 3
    return LearnedState(targets, {part: {i: torch.ones(()) for i in targets[part]} for part in PARTS})


def test_gate_1_replaces_every_part_and_0_none(cache: DynamicCache) -> None:
    state, before = _random(cache), copy.deepcopy(cache)
    assert not inject(cache, state.rules(0.0))
    assert all(torch.equal(cache.get_conv_state(i), before.get_conv_state(i)) for i in MAMBA)
    share = inject(cache, state.rules())
    assert set(share) == {*MAMBA, *(f"{i} conv" for i in MAMBA), f"{ATTENTION} values"}
    for layer in MAMBA:
        assert torch.equal(cache.get_recurrent_state(layer)[1], state.targets["recurrent"][layer])
        assert torch.equal(cache.get_conv_state(layer)[0], state.targets["conv"][layer])
    values, keys = cache.layers[ATTENTION].values, cache.layers[ATTENTION].keys
    assert torch.equal(values, state.targets["values"][ATTENTION].expand_as(values))
    assert torch.equal(keys, before.layers[ATTENTION].keys)
    expected = (values - before.layers[ATTENTION].values).flatten(1).norm(dim=1)
    expected = expected / before.layers[ATTENTION].values.flatten(1).norm(dim=1)
    assert torch.allclose(share[f"{ATTENTION} values"], expected)


def test_generation_forgets_the_prompt_but_for_its_last_token(lively: FrozenBackbone, cache: DynamicCache) -> None:
    """Only keys stay, which weigh the last token: prompts that end alike give nearly the same scores."""
    rules = _random(cache).rules()
    torch.manual_seed(1)
    ids = torch.randint(2, 300, (2, 9))
    ids[:, -1] = 7
    options = {"max_new_tokens": 3, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    inputs = {"attention_mask": torch.ones_like(ids), "suppress_tokens": [0], "pad_token_id": 1}
    plain = lively.model.generate(ids, **inputs, **options)
    with steer(lively.model, *rules) as report:
        steered = lively.model.generate(ids, **inputs, **options)
    apart, left = ((run.logits[0][0] - run.logits[0][1]).norm() for run in (plain, steered))
    assert left < 0.05 * apart
    assert [bool(step["share"]) for step in report.as_rows()] == [True]


def test_rows_have_their_own_states_and_gates(lively: FrozenBackbone, cache: DynamicCache) -> None:
    state = _random(cache, rows=2)
    state = LearnedState(state.targets, {p: {i: torch.tensor([1.0, 0.25]) for i in state.targets[p]} for p in PARTS})
    before = copy.deepcopy(cache)
    inject(cache, state.rules(0.5))
    for part, get in (("recurrent", DynamicCache.get_recurrent_state), ("conv", DynamicCache.get_conv_state)):
        for layer in MAMBA:
            old, target = get(before, layer), state.targets[part][layer]
            for row, amount in enumerate((0.5, 0.125)):
                expected = (1 - amount) * old[row] + amount * target[row]
                assert torch.allclose(get(cache, layer)[row], expected, atol=1e-6)


def test_an_offset_of_values_reaches_every_token(cache: DynamicCache) -> None:
    before = cache.layers[ATTENTION].values.clone()
    change = torch.randn(before.shape[1], 1, before.shape[3])
    share = inject(cache, [Offset({ATTENTION: change}, part="values", max_share=0.5)])
    moved = cache.layers[ATTENTION].values - before
    assert torch.allclose(share[f"{ATTENTION} values"], torch.tensor([0.5, 0.5]))
    assert torch.allclose(moved, moved[:, :, :1].expand_as(moved), atol=1e-6)


def test_learning_lowers_its_loss_and_leaves_the_model_alone(lively: FrozenBackbone, examples: Examples) -> None:
    before = {name: x.clone() for name, x in lively.model.state_dict().items()}
    settings = Learning(steps=25, batch=4)
    state, losses = learn_state(examples, settings)
    assert {part: sorted(found) for part, found in state.targets.items()} == {
        "recurrent": [*MAMBA], "conv": [*MAMBA], "values": [ATTENTION],
    }  # fmt: skip
    assert sum(losses[-5:]) < sum(losses[:5]) - 0.5
    gates = [gate for by_layer in state.gates.values() for gate in by_layer.values()]
    assert all(0 < gate < 1 for gate in gates) and len({gate.item() for gate in gates}) > 1
    assert not any(x.requires_grad or x.grad is not None for x in lively.model.parameters())
    assert all(torch.equal(before[name], x) for name, x in lively.model.state_dict().items())
    again, _ = learn_state(examples, settings)
    assert all(torch.equal(x, again.tensors()[name]) for name, x in state.tensors().items())


def test_gradients_of_gate_and_target_are_those_of_finite_differences(
    lively: FrozenBackbone, cache: DynamicCache
) -> None:
    ids = torch.randint(2, 300, (2, 4), generator=torch.Generator().manual_seed(3))
    state = _random(cache)

    def loss(part: str, layer: int, gate: torch.Tensor, push: torch.Tensor) -> torch.Tensor:
        target = state.targets[part][layer] * (1 + push)
        own = copy.deepcopy(cache)
        inject(own, [Interpolation({layer: target}, part=part, gate={layer: gate})])
        logits = lively.model(ids, past_key_values=own, use_cache=True).logits
        return logits.double().log_softmax(-1)[..., 5].mean()

    for part, layer in (("recurrent", 1), ("conv", 1), ("values", ATTENTION)):
        at = [torch.tensor(0.5, requires_grad=True), torch.tensor(0.0, requires_grad=True)]
        found = torch.autograd.grad(loss(part, layer, *at), at)
        for i, gradient in enumerate(found):
            ends = []
            for sign in (1, -1):
                moved = [x.detach() + sign * 0.02 * (i == j) for j, x in enumerate(at)]
                with torch.no_grad():
                    ends.append(loss(part, layer, *moved))
            expected = (ends[0] - ends[1]) / 0.04
            assert gradient.item() == pytest.approx(expected.item(), rel=0.05, abs=2e-4), (part, i)


def test_what_was_learned_acts_in_generation(lively: FrozenBackbone) -> None:
    """The likelihood that training lowered is the one that stock generation samples from."""
    examples = Examples(lively, PROMPTS, FOLLOW[:1], tokens=5)
    state, _ = learn_state(examples, Learning(steps=40, batch=4))
    ids = examples.prompts[:1][:, examples.mask[0] == 1]
    options = {"max_new_tokens": 5, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    with steer(lively.model, *state.rules()):
        steered = lively.model.generate(ids, **options)[0, ids.shape[1] :]
    assert torch.equal(steered, examples.targets[0])


def test_it_comes_back_from_its_file(lively: FrozenBackbone, cache: DynamicCache, tmp_path: Path) -> None:
    state, path = _random(cache), tmp_path / "kept" / "state.safetensors"
    state.save(path, lively)
    found = LearnedState.load(path, lively)
    assert all(torch.equal(x, found.tensors()[name]) for name, x in state.tensors().items())

    class Other:
        fingerprint, name = "0" * 16, "other"

    with pytest.raises(ValueError, match="made for the model"):
        LearnedState.load(path, Other())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged or no safetensors file"):
        LearnedState.load(path, lively)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="holds 'other tensors', expected 'gssr learned state 2'"):
        LearnedState.load(path, lively)


def test_user_errors_say_what_to_do(lively: FrozenBackbone, examples: Examples, cache: DynamicCache) -> None:
    state = _random(cache)
    with pytest.raises(ValueError, match="layers \\[9\\] have no recurrent or conv or values to learn"):
        learn_state(examples, layers=[0, 9])
    with pytest.raises(ValueError, match="layers \\[9\\] have no direction"):
        state.rules(layers=[9])
    with pytest.raises(ValueError, match="outside \\[0, 1\\]"):
        state.rules(1.5)
    with pytest.raises(ValueError, match="expected a part of"):
        Offset({0: torch.zeros(1)}, part="keys")
    with pytest.raises(ValueError, match="expected a part of"):
        Offset({0: torch.zeros(1)}, part="conv", heads=[0])
    with pytest.raises(ValueError, match="layer 3 has no conv state"):
        inject(cache, [Offset({3: torch.zeros(1)}, part="conv")])
    with pytest.raises(ValueError, match="layer 0 has no attention values"):
        inject(cache, [Offset({0: torch.zeros(1)}, part="values")])
    one = {ATTENTION: cache.layers[ATTENTION].values[0]}
    with pytest.raises(ValueError, match="its state"):
        inject(cache, [Offset(one, part="values")])
    some = state.rules(layers=[ATTENTION], schedule=Schedule(stop=2))
    assert [(rule.part, rule.acting_layers) for rule in some] == [("values", [ATTENTION])]


@pytest.mark.parametrize("architecture", ["bamba", "falcon_h1", "mamba2"])
def test_other_hybrid_models_learn_too(architecture: str, tiny_folder: Path, tmp_path: Path) -> None:
    """Prompts of unequal length where the model can: the loss is that of what stock generation would write first."""
    backbone = other_hybrid(architecture, tiny_folder, tmp_path)
    prompts = PROMPTS if architecture != "mamba2" else PROMPTS[:1]
    examples = Examples(backbone, prompts, FOLLOW[:1], tokens=1)
    state, losses = learn_state(examples, Learning(steps=20, batch=4))
    assert losses[-1] < losses[0] - 0.5
    assert ("values" in state.targets) == (architecture != "mamba2")
    ids, mask, wanted = examples.prompts, examples.mask, examples.targets[0, 0]
    with steer(backbone.model, *state.rules()):
        out = backbone.model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=1,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    steered = -out.logits[0].log_softmax(-1)[:, wanted]
    assert steered.max() < losses[0] - 0.5
    cache = examples.read(torch.arange(len(prompts)))
    inject(cache, state.rules())
    with torch.no_grad():
        hidden, _ = advance(backbone, cache, backbone.embed(ids[:, -1:]), mask)
        by_hand = -backbone.logits(hidden)[:, 0].log_softmax(-1)[:, wanted]
    assert torch.allclose(steered, by_hand, atol=1e-4)
