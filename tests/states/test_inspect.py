"""What is reported of a state is so, and leverage is the KL that a change of the stated size makes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gssr.backbone import FrozenBackbone
from gssr.states import inspect
from gssr.states.hybrid_state import HybridState, repeat_rows
from gssr.states.inspect import continuation_log_probs, describe, leverage
from gssr.states.plots import plot_states, save
from tests.states.conftest import PROMPTS


def test_shapes_bytes_and_norms_are_those_of_the_cache(tiny: FrozenBackbone) -> None:
    state = HybridState.capture(tiny, PROMPTS[:1])
    cache = state.to_cache(tiny.model)
    length = len(tiny.tokenize(PROMPTS[:1])[0])
    for report in describe(state):
        found = {part.name: part for part in report.parts}
        if report.layer == 3:
            expected = {"keys": cache.layers[3].keys, "values": cache.layers[3].values}
            assert report.kind == "attention" and found["keys"].shape == (1, 1, length, 48)
        else:
            expected = {
                "recurrent": cache.get_recurrent_state(report.layer),
                "conv": cache.get_conv_state(report.layer),
            }
            assert report.kind == "mamba" and found["recurrent"].shape == (1, 6, 32, 64)
        assert found.keys() == expected.keys()
        for name, part in found.items():
            array = expected[name].double().numpy()
            assert part.bytes == array.size * 4 and part.dtype == "float32"
            assert part.norm == pytest.approx(np.sqrt((array**2).sum()), rel=1e-5)


def test_norms_leave_padding_out(tiny: FrozenBackbone) -> None:
    def norms(state: HybridState) -> np.ndarray:
        return np.array([part.norm for report in describe(state) for part in report.parts])

    single = np.mean([norms(HybridState.capture(tiny, [prompt])) for prompt in PROMPTS], axis=0)
    np.testing.assert_allclose(norms(HybridState.capture(tiny, PROMPTS)), single, rtol=1e-4)


def test_log_probs_of_a_continuation_are_those_of_the_whole_text(tiny: FrozenBackbone) -> None:
    words = torch.randint(2, 390, (3, 7), generator=torch.Generator().manual_seed(0))
    got = continuation_log_probs(tiny, HybridState.capture(tiny, PROMPTS), words)
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([[tiny.start_id, *tiny.tokenize([prompt])[0], *words[row].tolist()]])
        logits = tiny.model(input_ids=ids, use_cache=False).logits[0, -8:-1]
        torch.testing.assert_close(got[row].float(), F.log_softmax(logits, -1), rtol=1e-4, atol=1e-4)


def test_no_change_has_no_effect(tiny: FrozenBackbone) -> None:
    for effect in leverage(tiny, HybridState.capture(tiny, PROMPTS), share=0.0, tokens=4, directions=2):
        assert (effect.kl_next, effect.kl_continuation, effect.agreement) == (0.0, 0.0, 1.0)


def test_leverage_is_the_kl_of_changes_of_the_stated_size(
    tiny: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = HybridState.capture(tiny, PROMPTS[:2])
    seen: list[tuple[HybridState, torch.Tensor]] = []
    real = continuation_log_probs

    def keep(backbone: FrozenBackbone, state: HybridState, words: torch.Tensor) -> torch.Tensor:
        out = real(backbone, state, words)
        seen.append((state, out))
        return out

    monkeypatch.setattr(inspect, "continuation_log_probs", keep)
    effects = leverage(tiny, state, share=0.8, tokens=5, directions=3)
    assert [effect.layer for effect in effects] == [0, 1, 2, 3]
    (_, base), *changed = seen
    for effect, (after, log_probs) in zip(effects, changed, strict=True):
        for layer in range(4):
            names = {"recurrent"} if layer < 3 else {"keys", "values"}
            for name, part in after.layers[layer].parts():
                old = getattr(repeat_rows(state, 3).layers[layer], name)
                if layer != effect.layer or name not in names:
                    assert torch.equal(part, old), (effect.layer, layer, name)
                    continue
                if name in ("keys", "values"):  # padding does not count
                    visible = repeat_rows(state, 3).mask[:, None, :-1, None]
                    part, old = part * visible, old * visible
                share = (part - old).flatten(1).norm(dim=1) / old.flatten(1).norm(dim=1)
                torch.testing.assert_close(share, torch.full((6,), 0.8), rtol=1e-4, atol=0)
                rows = (part - old).flatten(1)
                assert torch.linalg.matrix_rank(rows) == 6  # a direction of its own for each copy
        p, q = base.numpy(), log_probs.numpy()
        kl = (np.exp(p) * (p - q)).sum(-1)
        assert effect.kl_next == pytest.approx(kl[:, 0].mean()) and effect.kl_next > 0
        assert effect.kl_continuation == pytest.approx(kl.mean())
        assert effect.agreement == pytest.approx((p.argmax(-1) == q.argmax(-1)).mean())


def test_the_kl_of_a_small_change_is_quadratic_in_its_size(nano: FrozenBackbone) -> None:
    state = HybridState.capture(nano, PROMPTS[:1])
    one, two = (leverage(nano, state, share, tokens=2, directions=2, layers=[4])[0].kl_next for share in (0.05, 0.1))
    assert two / one == pytest.approx(4, rel=0.1)


def test_layers_and_seeds_can_be_chosen(tiny: FrozenBackbone) -> None:
    state = HybridState.capture(tiny, PROMPTS[:1])
    options = {"tokens": 2, "directions": 2}
    every = leverage(tiny, state, **options)
    assert leverage(tiny, state, **options, layers=[2]) == [every[2]]
    assert leverage(tiny, state, **options, layers=[2], seed=1) != [every[2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [4]}, r"layer 4 has no state; .* \[0, 1, 2, 3\]"),
        ({"share": -0.1}, "share -0.1"),
        ({"tokens": 0}, "0 tokens"),
    ],
)
def test_wrong_questions_are_refused(tiny: FrozenBackbone, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        leverage(tiny, HybridState.capture(tiny, PROMPTS[:1]), **options)


def test_the_picture_shows_every_layer(tiny: FrozenBackbone, tmp_path: Path) -> None:
    state = HybridState.capture(tiny, PROMPTS[:1])
    effects = leverage(tiny, state, tokens=2, directions=2)
    figure = plot_states(describe(state), [*effects[:1], replace(effects[1], kl_next=0.0), *effects[2:]], 0.5)
    norms, bars = figure.axes
    points = sum((collection.get_offsets().tolist() for collection in norms.collections), [])
    assert sorted({y for _, y in points}) == [0, 1, 2, 3] and len(points) == 8
    widths = [bar.get_width() for bar in bars.patches]
    assert widths[0] == effects[0].kl_next and widths[1] == 0.0 and widths[4] == effects[0].kl_continuation
    save(figure, tmp_path / "states.png")
    assert (tmp_path / "states.png").read_bytes().startswith(b"\x89PNG")
    for wrong in (tmp_path / "no" / "states.png", tmp_path / "states.xyz"):
        with pytest.raises(ValueError, match="cannot be written|not supported"):
            save(figure, wrong)
