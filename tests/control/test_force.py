"""Forced texts keep to their budget and say the target; controls have the same norm."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.control import controls
from gssr.control.force import Change, Force, applied, force, tried, within
from gssr.control.functional import Layers, logits, read, say

PROMPT = torch.tensor([[1, 20, 30, 40, 50], [1, 21, 31, 41, 51]])
TARGET = torch.tensor([[77, 88], [99, 66]])


@pytest.fixture(scope="module")
def begun(facts: FrozenBackbone) -> tuple[Layers, Tensor]:
    with torch.no_grad():
        return read(facts, None, PROMPT[:, :-1]).layers, PROMPT[:, -1]


def norms(change: Change) -> dict:
    return {key: part.flatten(1).norm(dim=1) for key, part in change.items()}


@pytest.mark.parametrize("shared", [False, True])
def test_a_target_is_forced_within_the_budget(
    facts: FrozenBackbone, begun: tuple[Layers, Tensor], shared: bool
) -> None:
    layers, last = begun
    how = Force(budget=3.0, after=4, steps=60, shared=shared, calm=0.1)
    found = force(facts, layers, last, TARGET, how)
    plain = tried(facts, layers, last, TARGET, how, {})
    assert found.hit(TARGET).all() and not plain.hit(TARGET).any()
    assert (found.nats < plain.nats).all()
    # Written without looking at the target, it is what the changed states say.
    assert torch.equal(say(facts, found.layers, last, 2), TARGET)
    keys = how.keys(layers)
    sizes, own = norms(found.change), norms({key: getattr(layers[key[0]], key[1]) for key in keys})
    for part in ("recurrent", "conv"):
        mine = [key for key in keys if key[1] == part]
        if shared:
            total = torch.stack([sizes[key] for key in mine]).norm(dim=0)
            assert (total <= 3.0 * torch.stack([own[key] for key in mine]).norm(dim=0) * 1.001).all()
        else:
            assert all((sizes[key] <= 3.0 * own[key] * 1.001).all() for key in mine)


def test_no_change_diverges_by_nothing(facts: FrozenBackbone, begun: tuple[Layers, Tensor]) -> None:
    layers, last = begun
    found = tried(facts, layers, last, TARGET, Force(after=5), {})
    assert found.kl.abs().max() < 1e-6 and torch.allclose(found.perplexity, torch.ones(2))
    log = logits(facts, layers, torch.cat([last[:, None], TARGET[:, :1]], 1)).log_softmax(-1)
    assert torch.allclose(found.nats, -log.gather(-1, TARGET[..., None]).sum((1, 2)), atol=1e-4)


def test_the_divergence_is_that_of_the_tokens_behind_the_target(
    facts: FrozenBackbone, begun: tuple[Layers, Tensor]
) -> None:
    layers, last = begun
    change = controls.random_change({key: getattr(layers[key[0]], key[1]) for key in Force().keys(layers)}, 0)
    found = tried(facts, layers, last, TARGET, Force(after=3), change)
    with torch.no_grad():
        text = torch.cat([last[:, None], TARGET], 1)
        for _ in range(3):  # greedy without a change
            text = torch.cat([text, logits(facts, layers, text)[:, -1:].argmax(-1)], 1)
        a, b = (logits(facts, each, text)[:, 2:5].log_softmax(-1) for each in (layers, applied(layers, change)))
        kl = (a.exp() * (a - b)).sum(-1).mean(1)
        behind = text[:, 3:, None]
        ratio = (a - b).gather(-1, behind).mean((1, 2)).exp()
    torch.testing.assert_close(found.kl, kl, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.perplexity, ratio, rtol=1e-3, atol=1e-5)


def test_only_the_parts_and_layers_asked_for_change(facts: FrozenBackbone, begun: tuple[Layers, Tensor]) -> None:
    layers, last = begun
    found = force(facts, layers, last, TARGET, Force(layers=(1,), parts=("conv",), steps=3, after=0))
    assert list(found.change) == [(1, "conv")]
    assert torch.equal(found.layers[0].conv, layers[0].conv)
    assert torch.equal(found.layers[1].recurrent, layers[1].recurrent)


def test_a_basis_keeps_the_change_in_its_span(facts: FrozenBackbone, begun: tuple[Layers, Tensor]) -> None:
    layers, last = begun
    how = Force(after=0, steps=5)
    with torch.no_grad():
        natural = read(facts, None, controls.samples(facts, 6, 5, seed=0)).layers
    basis = controls.directions(natural, how.keys(layers), 4)
    found = force(facts, layers, last, TARGET, how, basis)
    for key, part in found.change.items():
        flat = part.flatten(1)
        assert flat.norm() > 0
        torch.testing.assert_close((flat @ basis[key].T) @ basis[key], flat, rtol=1e-3, atol=1e-5)


def test_controls_have_the_norm_of_the_change(facts: FrozenBackbone, begun: tuple[Layers, Tensor]) -> None:
    layers, _ = begun
    keys = Force().keys(layers)
    change = {key: torch.randn_like(getattr(layers[key[0]], key[1])) for key in keys}
    texts = controls.samples(facts, 5, 6, seed=1)
    assert texts.shape == (5, 7) and (texts[:, 0] == facts.start_id).all()
    mean = controls.mean_difference(facts, texts, TARGET, keys)
    for other in (controls.random_change(change, 0), controls.other_change(change), controls.scaled(mean, change)):
        assert all(torch.allclose(size, norms(change)[key], rtol=1e-4) for key, size in norms(other).items())
    # Behind one text it is the difference of two states.
    one = controls.mean_difference(facts, texts[:1], TARGET[:1], keys)
    with torch.no_grad():
        before = read(facts, None, texts[:1]).layers
        after = read(facts, None, torch.cat([texts[:1], TARGET[:1]], 1)).layers
    torch.testing.assert_close(
        one[0, "recurrent"][0], (after[0].recurrent - before[0].recurrent)[0], rtol=1e-3, atol=1e-5
    )


def test_a_change_within_its_budget_stays(facts: FrozenBackbone, begun: tuple[Layers, Tensor]) -> None:
    layers, _ = begun
    states = {key: getattr(layers[key[0]], key[1]) for key in Force().keys(layers)}
    small = {key: 0.1 * part for key, part in states.items()}
    for shared in (False, True):
        found = within(small, states, Force(budget=0.5, shared=shared))
        assert all(torch.allclose(found[key], small[key]) for key in small)


@pytest.mark.parametrize(
    "options, message",
    [({"budget": 0.0}, "budget"), ({"parts": ("keys",)}, "parts"), ({"steps": 0}, "steps"), ({"after": -1}, "after")],
    ids=["no budget", "unknown part", "no step", "negative tokens"],
)
def test_options_outside_of_their_domains_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Force(**options)


def test_a_layer_without_a_recurrent_state_is_refused(tiny: FrozenBackbone, tmp_path: Path) -> None:
    layers = read(tiny, None, torch.tensor([[0, 5, 6]])).layers
    for wrong in (3, 9):  # attention, and beyond the last
        with pytest.raises(ValueError, match=f"layers {wrong} have no recurrent state"):
            Force(layers=(wrong,)).keys(layers)
