"""A state resumes to the tokens of the uninterrupted run, never changes, and survives a file; bad files are refused."""

import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    GraniteMoeHybridConfig,
    LlamaConfig,
)

from gssr.backbone import FrozenBackbone
from gssr.states import state_file
from gssr.states.blend import blend
from gssr.states.cache import LayerState, empty_cache
from gssr.states.checks import check_values
from gssr.states.hybrid_state import FORMAT, HybridState, capture_tokens, from_cache, repeat_rows
from gssr.states.inspect import nbytes
from tests.states.conftest import PROMPTS, other_hybrid

DECODING: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "top_k": 0},
    "beams": {"do_sample": False, "num_beams": 3},
    "penalty": {"do_sample": False, "repetition_penalty": 1.5},  # looks at the tokens of the prompt, too
}


def uninterrupted(backbone: FrozenBackbone, prompts: list[str], tokens: int, **how: Any) -> torch.Tensor:
    """Stock generate on the prompts, left-padded by the tokenizer itself, without a state anywhere."""
    rows = [[backbone.start_id, *ids] for ids in backbone.tokenize(prompts)]
    batch = backbone.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
    torch.manual_seed(7)
    out = backbone.model.generate(**batch, max_new_tokens=tokens, pad_token_id=backbone.tokenizer.pad_token_id, **how)
    return out[:, batch["input_ids"].shape[1] :]


def resumed(backbone: FrozenBackbone, state: HybridState, tokens: int, **how: Any) -> torch.Tensor:
    torch.manual_seed(7)
    return state.generate(backbone, max_new_tokens=tokens, **how)


def tensors(state: HybridState) -> dict[str, torch.Tensor]:
    found = {f"{i}.{name}": part for i, layer in enumerate(state.layers) for name, part in layer.parts()}
    return found | {"tokens": state.tokens, "mask": state.mask}


def same(a: HybridState, b: HybridState) -> bool:
    x, y = tensors(a), tensors(b)
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) and x[name].dtype == y[name].dtype for name in x)


def close(a: HybridState, b: HybridState) -> None:
    x, y = tensors(a), tensors(b)
    assert x.keys() == y.keys()
    for name in x:
        size = max(1.0, y[name].float().abs().max().item())
        torch.testing.assert_close(
            x[name], y[name], rtol=1e-4, atol=1e-4 * size, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(
    ("model", "how", "tokens"),
    [*(("nano", how, 12) for how in DECODING), ("wide", "greedy", 5), ("wide", "sampled", 5)],
)
def test_a_resumed_batch_of_unequal_prompts_goes_on_as_if_uninterrupted(
    model: str, how: str, tokens: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    backbone = request.getfixturevalue(model)
    state = HybridState.capture(backbone, PROMPTS)
    assert len(set(state.position.tolist())) == 3
    state.save(tmp_path / "state.safetensors")
    state = HybridState.load(tmp_path / "state.safetensors", backbone)
    expected = uninterrupted(backbone, PROMPTS, tokens, **DECODING[how])
    assert torch.equal(resumed(backbone, state, tokens, **DECODING[how]), expected)


def test_a_state_resumes_as_often_as_one_likes(tiny: FrozenBackbone) -> None:
    state = HybridState.capture(tiny, PROMPTS)
    expected = uninterrupted(tiny, PROMPTS, 8, do_sample=True)
    for _ in range(3):
        assert torch.equal(resumed(tiny, state, 8, do_sample=True), expected)


def test_the_continuation_reads_one_token_at_a_time(tiny: FrozenBackbone) -> None:
    state = HybridState.capture(tiny, PROMPTS)
    lengths = []

    def keep(module: object, args: object, kwargs: dict[str, Any]) -> None:
        lengths.append(kwargs["input_ids"].shape[1])

    handle = tiny.decoder.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        state.generate(tiny, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    finally:
        handle.remove()
    assert lengths == [1] * 5


@pytest.mark.parametrize("architecture", ["bamba", "falcon_h1", "mamba2"])
def test_other_hybrid_models_resume_too(architecture: str, tiny_folder: Path, tmp_path: Path) -> None:
    """Rotary positions (Bamba, Falcon-H1), both kinds in one layer (Falcon-H1), no attention at all (Mamba-2)."""
    backbone = other_hybrid(architecture, tiny_folder, tmp_path)
    # Mamba-2 in transformers has no padding in generate worth comparing with: its rows are compared one by one.
    prompts = PROMPTS if architecture != "mamba2" else PROMPTS[:1]
    state = HybridState.capture(backbone, prompts)
    assert torch.equal(
        resumed(backbone, state, 16, do_sample=False), uninterrupted(backbone, prompts, 16, do_sample=False)
    )
    state.save(tmp_path / "state.safetensors")
    assert same(HybridState.load(tmp_path / "state.safetensors", backbone), state)
    close(state.select([len(prompts) - 1]), HybridState.capture(backbone, prompts[-1:]))  # keys hold their positions
    kinds = {"bamba": ["mamba", "attention", "mamba"], "falcon_h1": ["mamba+attention"] * 3, "mamba2": ["mamba"] * 3}
    assert [layer.kind for layer in state.layers] == kinds[architecture]


def test_a_row_does_not_depend_on_its_batch(nano: FrozenBackbone) -> None:
    together = HybridState.capture(nano, PROMPTS)
    assert together.position.tolist() == [len(ids) for ids in nano.tokenize(PROMPTS)]
    for row, prompt in enumerate(PROMPTS):
        close(together.select([row]), HybridState.capture(nano, [prompt]))


def test_rows_are_selected_and_repeated(tiny: FrozenBackbone) -> None:
    state = HybridState.capture(tiny, PROMPTS)
    twice = repeat_rows(state, 2)
    assert twice.rows == 6 and all(same(twice.select([row]), state.select([row // 2])) for row in range(6))
    swapped = state.select([2, 0])
    assert same(swapped.select([0]), state.select([2])) and same(swapped.select([1]), state.select([0]))
    expected = uninterrupted(tiny, [PROMPTS[2], PROMPTS[0]], 12, do_sample=False)
    assert torch.equal(resumed(tiny, swapped, 12, do_sample=False), expected)
    with pytest.raises(ValueError, match="row 3 does not exist; the state has rows 0 to 2"):
        state.select([3])


def test_nothing_changes_a_state(tiny: FrozenBackbone) -> None:
    state = HybridState.capture(tiny, PROMPTS)
    before = {name: tensor.clone() for name, tensor in tensors(state).items()}
    cache = state.to_cache(tiny.model)
    owned = {tensor.untyped_storage().data_ptr() for tensor in tensors(state).values()}
    for i, layer in enumerate(state.layers):
        mine = [cache.layers[i].keys, cache.layers[i].values] if layer.kind == "attention" else []
        mine += [cache.get_recurrent_state(i), cache.get_conv_state(i)] if layer.kind == "mamba" else []
        assert mine
        for tensor in mine:
            assert tensor.untyped_storage().data_ptr() not in owned
            tensor.fill_(9.0)
    state.generate(tiny, max_new_tokens=8, do_sample=True)
    state.read_on(tiny, " and further")
    state.with_layers({0: state.layers[0].map(torch.zeros_like)})
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(state).items())


def test_a_captured_cache_goes_on_without_the_state(tiny: FrozenBackbone) -> None:
    first = HybridState.capture(tiny, PROMPTS)
    cache = first.to_cache(tiny.model)
    state = from_cache(tiny, cache, first.tokens, first.mask)
    tiny.model.generate(
        input_ids=first.tokens, attention_mask=first.mask.long(), past_key_values=cache, max_new_tokens=4,
        do_sample=False,
    )  # fmt: skip
    assert same(state, first)


def test_reading_on_is_reading_it_all(nano: FrozenBackbone) -> None:
    ids = torch.tensor([[nano.start_id, *nano.tokenize([PROMPTS[0] + " In the evening it weakened."])[0]]])
    uncut = capture_tokens(nano, ids)
    cut = len(nano.tokenize([PROMPTS[0]])[0]) + 1
    rest = nano.tokenizer.decode(ids[0, cut:])
    assert nano.tokenize([rest])[0] == ids[0, cut:].tolist()
    close(capture_tokens(nano, ids[:, :cut]).read_on(nano, rest), uncut)
    # Behind shorter texts of a batch there is padding, which must not be read again.
    together = HybridState.capture(nano, PROMPTS).read_on(nano, rest)
    close(together.select([0]), uncut)
    close(together.select([1]), HybridState.capture(nano, PROMPTS[1:2]).read_on(nano, rest))


def test_only_what_belongs_to_tokens_grows(tiny: FrozenBackbone) -> None:
    short, long = (nbytes(capture_tokens(tiny, torch.full((2, length), 5))) for length in (9, 109))
    assert short["recurrent"] == long["recurrent"] == 2 * 3 * 4 * tiny.model.config.mamba_n_heads * 32 * 64
    assert short["conv"] == long["conv"] > 0
    kv_heads, head_dim = tiny.model.config.num_key_value_heads, 48
    assert long["attention"] - short["attention"] == 100 * 2 * 2 * kv_heads * head_dim * 4
    assert long["tokens"] - short["tokens"] == 100 * 2 * 9


def test_a_file_brings_everything_back(tiny: FrozenBackbone, tmp_path: Path) -> None:
    state = HybridState.capture(tiny, PROMPTS)
    state.save(tmp_path / "state.safetensors")
    loaded = HybridState.load(tmp_path / "state.safetensors")
    assert same(loaded, state)
    assert (loaded.fingerprint, loaded.backbone) == (tiny.fingerprint, tiny.name)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a file's contents were executed",))


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb()))


def _torch_save(path: Path) -> None:
    torch.save(Bomb(), path)


def _claim(path: Path) -> None:
    """Other strings than were written, such as another model's fingerprint."""
    with safe_open(path, framework="pt") as file:
        contents, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(contents, path, metadata={**about, "fingerprint": "0" * 16})


def _other_tensors(path: Path) -> None:
    save_file({"x": torch.zeros(2)}, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "damaged or no safetensors file"),
        (_flip, "is damaged: its contents are not what was written"),
        (_claim, "this state comes from the backbone .* 0000000000000000"),
        (_pickle, "damaged or no safetensors file"),
        (_torch_save, "damaged or no safetensors file"),
        (_other_tensors, "holds 'other tensors', expected 'gssr hybrid state 1'"),
        (Path.unlink, "there is no file"),
    ],
)
def test_a_damaged_file_is_refused(damage: Any, message: str, tiny: FrozenBackbone, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    HybridState.capture(tiny, PROMPTS).save(path)
    damage(path)
    with pytest.raises(ValueError, match=message):
        HybridState.load(path, tiny)


def test_another_models_state_is_refused(tiny: FrozenBackbone, nano: FrozenBackbone, tmp_path: Path) -> None:
    state = HybridState.capture(tiny, PROMPTS)
    state.save(tmp_path / "state.safetensors")
    message = f"comes from the backbone .*{tiny.fingerprint}.*not from 'nano'.*{nano.fingerprint}"
    with pytest.raises(ValueError, match=message):
        HybridState.load(tmp_path / "state.safetensors", nano)
    with pytest.raises(ValueError, match=message):
        state.generate(nano, max_new_tokens=1)
    with pytest.raises(ValueError, match="states of different backbones"):
        blend([state, HybridState.capture(nano, PROMPTS)], (1, 1))


@pytest.mark.parametrize(
    ("layer", "change", "message"),
    [
        (0, lambda part: {"recurrent": part.recurrent[:, :, :, 1:]}, "layer 0 holds .* the model's holds"),
        (0, lambda part: {"conv": None}, "layer 0 holds .* the model's holds"),
        (3, lambda part: {"keys": part.keys[:, :, 1:]}, "keys of layer 3 .* does not fit 3 rows of"),
        (1, lambda part: {"recurrent": part.recurrent[:2]}, "recurrent of layer 1 .* does not fit 3 rows"),
        (1, lambda part: {"recurrent": part.recurrent.long()}, "recurrent of layer 1 is torch.int64"),
    ],
)
def test_another_shape_is_refused(layer: int, change: Any, message: str, tiny: FrozenBackbone, tmp_path: Path) -> None:
    """Undamaged files that name the right model and hold what cannot be its state."""
    state, path = HybridState.capture(tiny, PROMPTS), tmp_path / "state.safetensors"
    parts = dict(state.layers[layer].parts()) | change(state.layers[layer])
    about = {"fingerprint": tiny.fingerprint, "backbone": tiny.name, "layers": str(len(state.layers))}
    others = {name: x for name, x in tensors(state).items() if not name.startswith(f"{layer}.")}
    written = others | {f"{layer}.{name}": x for name, x in parts.items() if x is not None}
    named = {f"layers.{name}" if name[0].isdigit() else name: x for name, x in written.items()}
    state_file.write(path, FORMAT, named, about)
    with pytest.raises(ValueError, match=message):
        HybridState.load(path, tiny)


def test_too_few_layers_and_unknown_tokens_are_refused(tiny: FrozenBackbone, tmp_path: Path) -> None:
    state = HybridState.capture(tiny, PROMPTS)
    for wrong, message in (
        (replace(state, layers=state.layers[:3]), "it has 3 layers, the model 4"),
        (replace(state, tokens=state.tokens + 1000), "token ids that are not among the 400"),
    ):
        wrong.save(tmp_path / "state.safetensors")
        with pytest.raises(ValueError, match=message):
            HybridState.load(tmp_path / "state.safetensors", tiny)


def test_what_cannot_be_read_or_written_is_refused(tiny: FrozenBackbone, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no text to read"):
        HybridState.capture(tiny, [])
    with pytest.raises(ValueError, match="has no token"):
        HybridState.capture(tiny, ["x", ""])
    with pytest.raises(ValueError, match="no left padding"):
        capture_tokens(tiny, torch.full((1, 4), 5), torch.tensor([[True, True, True, False]]))
    with pytest.raises(ValueError, match="at least two tokens"):
        capture_tokens(tiny, torch.full((1, 1), 5))
    with pytest.raises(ValueError, match="cannot be written"):
        HybridState.capture(tiny, ["x"]).save(tmp_path / "no" / "folder" / "x.safetensors")
    with pytest.raises(ValueError, match="has no token"):
        HybridState.capture(tiny, ["x"]).read_on(tiny, "")


def test_the_model_tells_once_what_its_states_look_like(
    tiny: FrozenBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, file = HybridState.capture(tiny, PROMPTS[:1]), tmp_path / "state.safetensors"
    state.save(file)
    HybridState.load(file, tiny)
    monkeypatch.setattr(tiny, "decoder", None)  # a second reading would call it
    assert same(HybridState.load(file, tiny), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("odd", [[torch.nan], [torch.inf], [-torch.inf], [torch.inf, -torch.inf]])
def test_one_number_that_is_not_finite_is_found_and_large_ones_are_not(odd: list[float], dtype: torch.dtype) -> None:
    tokens, part = torch.zeros(1, 2, dtype=torch.int64), torch.full((1, 64), 3e38, dtype=dtype)
    check_values([LayerState(conv=part)], tokens)  # whose sum is infinite
    part[0, : len(odd)] = torch.tensor(odd)
    with pytest.raises(ValueError, match="conv of layer 0 holds numbers that are not finite"):
        check_values([LayerState(conv=part)], tokens)


def test_models_without_such_states_are_refused() -> None:
    plain = SimpleNamespace(config=LlamaConfig(num_hidden_layers=2))
    with pytest.raises(ValueError, match="plain transformer without recurrent states"):
        empty_cache(plain)  # type: ignore[arg-type]
    sliding = GraniteMoeHybridConfig(num_hidden_layers=2, layer_types=["linear_attention", "sliding_attention"])
    sliding.sliding_window = 4
    with pytest.raises(ValueError, match="layer 1 .* keeps its state as DynamicSlidingWindowLayer"):
        empty_cache(SimpleNamespace(config=sliding))  # type: ignore[arg-type]
