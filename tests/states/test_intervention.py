"""Steering against loops written out by hand, and the promise that the model is left as it was."""

import copy
from collections.abc import Callable

import pytest
import torch
from transformers import DynamicCache, TextStreamer

from gssr.backbone import FrozenBackbone
from gssr.states.intervention import inject, steer
from gssr.states.rules import Interpolation, LowRank, Offset, Schedule

MAMBA, ATTENTION = (0, 1, 2), 3
PROMPT = "Hurricane Ian near 20.1 north"


@pytest.fixture
def direction(lively: FrozenBackbone) -> dict[int, torch.Tensor]:
    """Large: the states of random weights are small beside what passes them by, and every text is to change."""
    cache = _cache(lively, _ids(lively, PROMPT))
    generator = torch.Generator().manual_seed(1)
    found = {}
    for layer in MAMBA:
        state = cache.get_recurrent_state(layer)[0]
        noise = torch.randn(state.shape, generator=generator)
        found[layer] = noise * state.norm() / noise.norm() * 3000
    return found


def _ids(lively: FrozenBackbone, *texts: str) -> dict[str, torch.Tensor]:
    rows = lively.tokenize(texts)
    width = max(map(len, rows))
    pad = lively.tokenizer.eos_token_id
    return {
        "input_ids": torch.tensor([[pad] * (width - len(r)) + r for r in rows]),
        "attention_mask": torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows]),
    }


def _cache(lively: FrozenBackbone, inputs: dict[str, torch.Tensor]) -> DynamicCache:
    cache = DynamicCache(config=lively.model.config)
    with torch.no_grad():
        lively.model(**inputs, past_key_values=cache, use_cache=True)
    return cache


def _generate(lively: FrozenBackbone, inputs: dict[str, torch.Tensor], **options: object) -> object:
    torch.manual_seed(0)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": lively.tokenizer.eos_token_id} | options
    return lively.model.generate(
        **inputs, return_dict_in_generate=True, output_scores=True, suppress_tokens=[0], **options
    )


MODES = {
    "greedy": {},
    "sampling": {"do_sample": True},
    "beams": {"num_beams": 3},
    "returned": {"do_sample": True, "num_return_sequences": 3},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kl", [False, True])
def test_strength_0_changes_no_bit(
    lively: FrozenBackbone, direction: dict[int, torch.Tensor], mode: str, kl: bool
) -> None:
    inputs = _ids(lively, PROMPT, "Weaken to 35 knots in 48 hours")
    plain = _generate(lively, inputs, **MODES[mode])
    rules = (Offset(direction, strength=0.0), Interpolation(direction, strength=torch.zeros(2)))
    with steer(lively.model, *rules, kl=kl) as report:
        steered = _generate(lively, inputs, **MODES[mode])
    assert torch.equal(plain.sequences, steered.sequences)
    assert all(torch.equal(a, b) for a, b in zip(plain.scores, steered.scores, strict=True))
    assert report.steps == []


def test_streaming_writes_the_steered_text(
    lively: FrozenBackbone, direction: dict[int, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = _ids(lively, PROMPT)
    with steer(lively.model, Offset(direction)):
        full = _generate(lively, inputs).sequences
        capsys.readouterr()
        _generate(lively, inputs, streamer=TextStreamer(lively.tokenizer, skip_prompt=True))
    assert capsys.readouterr().out.strip() == lively.tokenizer.decode(full[0, inputs["input_ids"].shape[1] :]).strip()


def test_generation_equals_a_loop_by_hand(lively: FrozenBackbone, direction: dict[int, torch.Tensor]) -> None:
    """By hand: read the prompt except for its last token, change the state, read that token, and so on."""
    inputs = _ids(lively, PROMPT)
    with steer(lively.model, Offset(direction, strength=0.5, schedule=Schedule(half_life=1))) as report:
        steered = _generate(lively, inputs)
    ids = inputs["input_ids"]
    cache = _cache(lively, {"input_ids": ids[:, :-1]})
    token, expected = ids[:, -1:], []
    with torch.no_grad():
        for step in range(6):
            for layer, change in direction.items():
                state = cache.get_recurrent_state(layer)
                cache.update_recurrent_state(state + 0.5 * 0.5**step * change, layer)
            logits = lively.model(token, past_key_values=cache, use_cache=True).logits[:, -1]
            logits[:, 0] = -torch.inf
            token = logits.argmax(-1, keepdim=True)
            expected.append(token)
            assert torch.allclose(steered.scores[step], logits, atol=1e-4)
    assert torch.equal(steered.sequences[:, ids.shape[1] :], torch.cat(expected, 1))
    assert [(s.generation, s.token) for s in report.steps] == [(0, t) for t in range(6)]
    assert not torch.equal(steered.sequences, _generate(lively, inputs).sequences)


def test_a_new_generation_starts_at_token_0(lively: FrozenBackbone, direction: dict[int, torch.Tensor]) -> None:
    inputs = _ids(lively, PROMPT)
    with steer(lively.model, Offset(direction, schedule=Schedule.once())) as report:
        first, second = (_generate(lively, inputs).sequences for _ in range(2))
    assert torch.equal(first, second)
    assert [(s.generation, s.token) for s in report.steps] == [(0, 0), (1, 0)]


@pytest.mark.parametrize("mode", ["greedy", "beams"])
def test_rows_are_steered_apart(lively: FrozenBackbone, direction: dict[int, torch.Tensor], mode: str) -> None:
    """Also when generation widens two texts to six beams and reorders them."""
    texts = (PROMPT, "Be a category 3 hurricane two days from now.", "Tropical storm Alex near")
    other = {layer: -change for layer, change in direction.items()}
    both = {layer: torch.stack([direction[layer], direction[layer], other[layer]]) for layer in direction}
    with steer(lively.model, Offset(both, strength=torch.tensor([1.0, 0.0, 1.0])), kl=True) as report:
        together = _generate(lively, _ids(lively, *texts), **MODES[mode])
    single = []
    for text, change, strength in zip(texts, (direction, direction, other), (1.0, 0.0, 1.0), strict=True):
        with steer(lively.model, Offset(change, strength=strength)):
            single.append(_generate(lively, _ids(lively, text), **MODES[mode]).sequences[0, -6:])
    assert torch.equal(together.sequences[:, -6:], torch.stack(single))
    assert len({tuple(row.tolist()) for row in together.sequences[:, -6:]}) == 3
    width = len(together.sequences) * (3 if mode == "beams" else 1)
    for step in report.steps:
        middle = slice(width // 3, 2 * width // 3)
        assert step.kl.shape == (width,)
        assert torch.all(step.kl[middle].abs() < 1e-5) and torch.all(step.kl[: width // 3] > 1e-4)
        assert all(torch.all(share[middle] == 0) for share in step.share.values())


def test_kl_is_that_to_the_model_reading_the_same_text(
    lively: FrozenBackbone, direction: dict[int, torch.Tensor]
) -> None:
    inputs = _ids(lively, PROMPT)
    with steer(lively.model, Offset(direction, schedule=Schedule.once()), kl=True) as report:
        steered = _generate(lively, inputs)
    with torch.no_grad():
        plain = lively.model(steered.sequences, use_cache=False).logits[:, inputs["input_ids"].shape[1] - 1 : -1]
    # The last logits of generate without a processor are not returned; those of the first step are enough and exact.
    cache = _cache(lively, {"input_ids": inputs["input_ids"][:, :-1]})
    inject(cache, [Offset(direction)])
    with torch.no_grad():
        first = lively.model(inputs["input_ids"][:, -1:], past_key_values=cache, use_cache=True).logits[:, -1]
    p, q = torch.distributions.Categorical(logits=first), torch.distributions.Categorical(logits=plain[:, 0])
    assert report.steps[0].kl.item() == pytest.approx(torch.distributions.kl_divergence(p, q).item(), rel=1e-2)
    assert len(report.steps) == 6 and all(step.kl.item() > 0 for step in report.steps)
    assert report.steps[1].share == {}


def test_the_model_is_left_as_it_was(lively: FrozenBackbone, direction: dict[int, torch.Tensor]) -> None:
    inputs = _ids(lively, PROMPT)
    plain = _generate(lively, inputs)
    weights = copy.deepcopy(lively.model.state_dict())
    flags = [module.training for module in lively.model.modules()]
    kept: list[DynamicCache] = []

    class Stop(Exception):
        pass

    def stop(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        raise Stop

    cache = DynamicCache(config=lively.model.config)
    with pytest.raises(Stop), steer(lively.model, Offset(direction), kl=True):
        kept.append(cache)
        _generate(lively, inputs, logits_processor=[stop], past_key_values=cache)
    for module in lively.model.modules():
        assert not module._forward_pre_hooks and not module._forward_hooks
    assert "reorder_cache" not in vars(kept[0])
    assert flags == [module.training for module in lively.model.modules()]
    assert all(torch.equal(weights[name], tensor) for name, tensor in lively.model.state_dict().items())
    assert torch.equal(plain.scores[-1], _generate(lively, inputs).scores[-1])
    with steer(lively.model, Offset(direction)):
        _generate(lively, inputs)


def test_the_bound_is_a_share_of_the_state_by_row(lively: FrozenBackbone, direction: dict[int, torch.Tensor]) -> None:
    cache = _cache(lively, _ids(lively, PROMPT, "Tropical storm Alex near"))
    before = {layer: cache.get_recurrent_state(layer).clone() for layer in MAMBA}
    share = inject(cache, [Offset(direction, strength=torch.tensor([100.0, 1e-5]), max_share=0.2)])
    for layer in MAMBA:
        change = cache.get_recurrent_state(layer) - before[layer]
        assert torch.allclose(change.flatten(1).norm(dim=1) / before[layer].flatten(1).norm(dim=1), share[layer])
        assert share[layer][0] == pytest.approx(0.2, rel=1e-4)
        assert torch.allclose(change[1], 1e-5 * direction[layer], rtol=1e-2, atol=1e-8)


def test_gate_1_is_the_target_and_0_the_state(lively: FrozenBackbone, direction: dict[int, torch.Tensor]) -> None:
    cache = _cache(lively, _ids(lively, PROMPT))
    before = {layer: cache.get_recurrent_state(layer).clone() for layer in MAMBA}
    inject(cache, [Interpolation(direction, gate={0: 1.0, 1: 0.0, 2: 0.25})])
    assert torch.equal(cache.get_recurrent_state(0)[0], direction[0])
    assert torch.equal(cache.get_recurrent_state(1), before[1])
    assert torch.allclose(cache.get_recurrent_state(2), 0.75 * before[2] + 0.25 * direction[2])


def test_rules_compose_and_touch_only_their_layers_heads_and_tokens(
    lively: FrozenBackbone, direction: dict[int, torch.Tensor]
) -> None:
    cache = _cache(lively, _ids(lively, PROMPT))
    before = {layer: cache.get_recurrent_state(layer).clone() for layer in MAMBA}
    rules = [
        Offset(direction, layers=[0, 1], heads={0: [2]}),
        Interpolation(direction, layers=[1], gate=0.5, schedule=Schedule(stop=3)),
        Offset(direction, layers=[2], schedule=Schedule(start=3)),
    ]
    assert set(inject(cache, rules, token=2)) == {0, 1}
    zeroth = cache.get_recurrent_state(0) - before[0]
    assert torch.equal(zeroth[:, :2], torch.zeros_like(zeroth[:, :2])) and zeroth[:, 2].abs().max() > 0
    first = 0.5 * (before[1] + direction[1]) + 0.5 * direction[1]
    assert torch.allclose(cache.get_recurrent_state(1), first, atol=1e-5)
    assert torch.equal(cache.get_recurrent_state(2), before[2])


def test_schedules() -> None:
    assert Schedule(start=1, stop=6, every=2).weights(8).tolist() == [0, 1, 0, 1, 0, 1, 0, 0]
    assert Schedule(half_life=2).weight(4) == 0.25
    assert Schedule.once().weights(3).tolist() == [1, 0, 0]


def test_gradients_reach_a_low_rank_change(lively: FrozenBackbone) -> None:
    """A change for each row, through a call of several tokens, as a network that writes into states needs it."""
    inputs = _ids(lively, PROMPT, PROMPT)
    cache = _cache(lively, inputs)
    heads, size, width = cache.get_recurrent_state(0).shape[1:]
    left = torch.randn(2, heads, size, 2, requires_grad=True)
    right = torch.randn(2, heads, width, 2, requires_grad=True)
    inject(cache, [Offset({0: LowRank(left, right)}, max_share=0.5)])
    with torch.enable_grad():
        logits = lively.model(inputs["input_ids"][:, :4], past_key_values=cache, use_cache=True).logits
        logits.square().mean().backward()
    assert left.grad.abs().sum() > 0 and right.grad.abs().sum() > 0


def _no_call(lively: FrozenBackbone) -> None:
    pass


def _too_short(lively: FrozenBackbone) -> None:
    _generate(lively, _ids(lively, PROMPT))


@pytest.mark.parametrize("run", [_no_call, _too_short])
def test_nothing_touched_raises(
    lively: FrozenBackbone, direction: dict[int, torch.Tensor], run: Callable[[FrozenBackbone], None]
) -> None:
    with (
        pytest.raises(ValueError, match="nothing was steered"),
        steer(lively.model, Offset(direction, schedule=Schedule(start=50))),
    ):
        run(lively)


def test_user_errors_say_what_to_do(lively: FrozenBackbone, direction: dict[int, torch.Tensor]) -> None:
    inputs = _ids(lively, PROMPT)
    wrong = {
        "has no recurrent state": Offset({ATTENTION: direction[0]}),
        "layer 9 has no recurrent state": Offset({9: direction[0]}),
        "direction of layer 0": Offset({0: direction[0][:2]}),
        "heads": Offset(direction, heads=[99]),
        "for 2 rows, the batch has 1": Offset(direction, strength=torch.ones(2)),
    }
    for match, rule in wrong.items():
        with pytest.raises(ValueError, match=match), steer(lively.model, rule):
            _generate(lively, inputs)
    with pytest.raises(ValueError, match="without a cache"), steer(lively.model, Offset(direction)):
        lively.model(**inputs, use_cache=False)
    with (
        pytest.raises(ValueError, match="steered already"),
        steer(lively.model, Offset(direction)),
        steer(lively.model, Offset(direction)),
    ):
        pass
    for build in (
        lambda: Offset(direction, strength=float("nan")),
        lambda: Offset(direction, max_share=-1.0),
        lambda: Offset(direction, layers=[7]),
        lambda: Offset({}),
        lambda: Interpolation(direction, gate=0.6, strength=2.0),
        lambda: Interpolation(direction, gate={0: 1.0}),
        lambda: Schedule(start=3, stop=3),
        lambda: Schedule(half_life=0),
    ):
        with pytest.raises(ValueError):
            build()


@pytest.mark.parametrize("family", ["bamba", "mamba2", "falcon_h1"])
def test_other_hybrid_models(family: str) -> None:
    """Any model with a recurrent cache: with another name for it, or with keys and a state in one layer."""
    from transformers import (
        BambaConfig,
        BambaForCausalLM,
        FalconH1Config,
        FalconH1ForCausalLM,
        Mamba2Config,
        Mamba2ForCausalLM,
    )

    common = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0, "eos_token_id": 0}
    attention = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 48}
    mamba = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 16}
    torch.manual_seed(0)
    if family == "bamba":
        model = BambaForCausalLM(BambaConfig(**common, **attention, **mamba, attn_layer_indices=[1]))
    elif family == "falcon_h1":
        model = FalconH1ForCausalLM(FalconH1Config(**common, **attention, **mamba, mamba_d_ssm=64, head_dim=16))
    else:
        model = Mamba2ForCausalLM(
            Mamba2Config(**common, num_heads=4, head_dim=16, state_size=8, expand=2, n_groups=1, chunk_size=16)
        )
    model.eval()
    ids = torch.randint(1, 64, (2, 7))
    options = {"max_new_tokens": 5, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}
    plain = model.generate(ids, **options)
    change = {0: torch.randn(4, 16, 8)}
    with steer(model, Offset(change, strength=torch.tensor([0.0, 5.0]))):
        steered = model.generate(ids, **options)
    for a, b in zip(plain.scores, steered.scores, strict=True):
        assert torch.allclose(a[0], b[0], atol=1e-4) and not torch.allclose(a[1], b[1], atol=1e-4)
