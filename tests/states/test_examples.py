"""Fitting what acts on states: pairs keep together, and prompts that should not change are held by a KL divergence."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.backbone import FrozenBackbone
from gssr.states.directions import recurrent_states
from gssr.states.examples import Examples, Intervention, Learning, fit
from gssr.states.intervention import inject
from gssr.states.learned_state import learn_state
from gssr.states.offset_scan import scan_offsets
from gssr.states.rules import Offset, Schedule

PROMPTS = ["Weaken to 35 knots in", "Hurricane Ian near 20.1 north 83.5 west"]
FOLLOW = ["\nTropical storm Alex near 30.0 north 60.0 west.", "\nBe a category 3 hurricane"]
KEPT = ["Be a category 3", "Tropical storm Alex near 30.0"]


def log_probs(backbone: FrozenBackbone, ids: Tensor, change: dict[int, Tensor], schedule: Schedule) -> Tensor:
    """Of the next token behind a prompt without padding, one call a token from its last token on."""
    from transformers import DynamicCache

    cache = DynamicCache(config=backbone.model.config)
    with torch.no_grad():
        backbone.model(ids[:, :-1], past_key_values=cache, use_cache=True)
        inject(cache, [Offset(change, schedule=schedule)])
        return backbone.model(ids[:, -1:], past_key_values=cache, use_cache=True).logits[0, -1].log_softmax(-1)


def test_pairs_stay_together(lively: FrozenBackbone) -> None:
    """With a batch of one, the loss is always that of one of the two pairs; drawn independently, it is not."""
    paired = Examples(lively, PROMPTS, FOLLOW, tokens=5, paired=True)
    mixed = Examples(lively, PROMPTS, FOLLOW, tokens=5)
    single = [Examples(lively, [prompt], [text], tokens=5) for prompt, text in zip(PROMPTS, FOLLOW, strict=True)]
    settings, generator = Learning(batch=1), torch.Generator().manual_seed(0)
    with torch.no_grad():
        expected = [examples.loss(settings, generator).item() for examples in single]
        found = {round(paired.loss(settings, generator).item(), 4) for _ in range(12)}
        others = {round(mixed.loss(settings, generator).item(), 4) for _ in range(24)}
    assert found == {round(value, 4) for value in expected}
    assert len(others) == 4 and found < others


@pytest.mark.parametrize("how", ["cache", "scan"])
def test_kept_prompts_cost_the_divergence_of_their_next_token(lively: FrozenBackbone, how: str) -> None:
    torch.manual_seed(0)
    examples = Examples(lively, PROMPTS, FOLLOW, tokens=4, kept=KEPT[:1])
    change = {layer: 0.3 * torch.randn(x.shape[1:]) for layer, x in recurrent_states(lively, PROMPTS).items()}
    schedule = Schedule.once()
    acting = {
        "cache": Intervention(change=lambda cache: inject(cache, [Offset(change, schedule=schedule)])),
        "scan": Intervention(around=lambda: scan_offsets(lively, change, schedule)),
    }[how]
    with torch.no_grad():
        losses = [
            examples.loss(Learning(batch=2, keep_weight=weight), torch.Generator().manual_seed(0), acting).item()
            for weight in (0.0, 1.0, 3.0)
        ]
    ids = torch.tensor([[lively.start_id, *lively.tokenize(KEPT[:1])[0]]])
    unchanged, changed = (log_probs(lively, ids, x, schedule) for x in ({0: 0 * change[0]}, change))
    expected = F.kl_div(changed, unchanged, reduction="sum", log_target=True).item()
    assert expected > 0.01
    assert losses[1] - losses[0] == pytest.approx(expected, rel=1e-2)
    assert losses[2] - losses[0] == pytest.approx(3 * expected, rel=1e-2)
    plain = examples.loss(Learning(batch=2), torch.Generator().manual_seed(0))
    without = Examples(lively, PROMPTS, FOLLOW, tokens=4).loss(Learning(batch=2), torch.Generator().manual_seed(0))
    assert plain.item() == pytest.approx(without.item(), abs=1e-6)


def test_what_is_kept_changes_less(lively: FrozenBackbone) -> None:
    def divergence(weight: float) -> tuple[float, float]:
        examples = Examples(lively, PROMPTS, FOLLOW[:1] * 2, tokens=4, paired=True, kept=KEPT)
        settings = Learning(steps=30, batch=4, keep_weight=weight)
        learned, losses = learn_state(examples, settings)
        acting = Intervention(change=lambda cache: inject(cache, learned.rules()))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            nats, both = (
                examples.loss(Learning(batch=8, keep_weight=w), generator.manual_seed(1), acting).item() for w in (0, 1)
            )
        return nats, both - nats

    free, held = divergence(0.0), divergence(10.0)
    assert held[1] < 0.5 * free[1]


def test_any_parameter_can_be_fitted_and_no_other_changes(lively: FrozenBackbone) -> None:
    examples = Examples(lively, PROMPTS, FOLLOW[:1], tokens=4)
    prefix = torch.zeros(3, lively.hidden_size, requires_grad=True)
    before = {name: x.clone() for name, x in lively.model.state_dict().items()}
    seen: list[int] = []
    losses = fit(
        [prefix],
        examples,
        Intervention(prefix=lambda: lively.embedding_scale * prefix),
        Learning(steps=20, batch=2, rate=0.3),
        lambda step, loss: seen.append(step),
    )
    assert losses[-1] < losses[0] - 0.1 and seen == list(range(20)) and prefix.abs().sum() > 0
    assert all(torch.equal(before[name], x) for name, x in lively.model.state_dict().items())


def test_examples_that_do_not_fit_are_refused(lively: FrozenBackbone) -> None:
    with pytest.raises(ValueError, match="at least one of each"):
        Examples(lively, PROMPTS, [])
    with pytest.raises(ValueError, match="2 prompts and 1 continuations make no pairs"):
        Examples(lively, PROMPTS, FOLLOW[:1], paired=True)
    for prompts, kept in ((["", "x"], ()), (["x"], [""])):
        with pytest.raises(ValueError, match="has no token"):
            Examples(lively, prompts, FOLLOW, kept=kept)
    with pytest.raises(ValueError, match="keep_weight=-1.*the weights at least 0"):
        Learning(keep_weight=-1)
