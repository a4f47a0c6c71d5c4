"""The belief speaks by prefix, by states or by both: trained and written with alike, and trained by the same losses."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import DynamicCache

from gssr.network import GoalNetwork
from gssr.sequences.collate import collate
from gssr.sequences.record import Record
from gssr.states.intervention import steer
from gssr.states.rules import Offset
from tests.conftest import enliven
from tests.networks import make_network

TEXTS = ["Hurricane Ian near 20.1 north.", "Weaken to 35 knots"]


def network(folder: Path, injection: str, loud: bool = True, values: bool = False) -> GoalNetwork:
    made = make_network(
        folder,
        latent_dim=4,
        hidden_dim=8,
        injection=injection,
        values=values,
        prefix_tokens=2,
        state_rank=2,
        text_layers=(2,),
        goal_layer=2,
        text_steps=3,
        names=["wind"],
    )
    enliven(made.backbone)
    if loud and made.speaker.state is not None:
        made.speaker.state.scale.fill_(3.0)  # of the enlivened model; it was built around a dull one
        generator = torch.Generator().manual_seed(3)
        made.speaker.state.net[-1].bias.data = torch.randn(made.speaker.state.net[-1].bias.shape, generator=generator)
        made.speaker.state.net[-1].weight.data = torch.randn(
            made.speaker.state.net[-1].weight.shape, generator=generator
        )
    return made.eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def one_token_at_a_time(net: GoalNetwork, x: torch.Tensor, text: str) -> float:
    """Nats of a text fed token by token to the steered model, as generation would write it."""
    backbone = net.backbone
    prefix, change = net.speaker(x[None])
    ids = [backbone.start_id, *backbone.tokenize([text])[0], backbone.tokenizer.eos_token_id]
    cache, total = DynamicCache(config=backbone.model.config), 0.0
    start = backbone.embed(torch.tensor([[backbone.start_id]]))
    with steer(backbone.model, Offset(change)):
        given = {"inputs_embeds": torch.cat([prefix, start], 1)}
        for target in ids[1:]:
            logits = backbone.model(**given, past_key_values=cache, use_cache=True).logits[0, -1]
            total -= F.log_softmax(logits, -1)[target].item()
            given = {"input_ids": torch.tensor([[target]])}
    return total


@pytest.mark.parametrize("injection", ["state", "both"])
def test_what_is_trained_is_what_is_written(tiny_folder: Path, injection: str) -> None:
    net, x = network(tiny_folder, injection), noise(2, 4)
    nats, tokens = net.speaker.text_nats(x, TEXTS)
    for row, text in enumerate(TEXTS):
        assert nats[row].item() == pytest.approx(one_token_at_a_time(net, x[row], text), rel=1e-4)
        assert tokens[row] == len(net.backbone.tokenize([text])[0]) + 1
    silent, _ = network(tiny_folder, injection, loud=False).speaker.text_nats(x, TEXTS)
    assert (nats - silent).abs().min() > 1e-3


@pytest.mark.parametrize("injection", ["prefix", "state", "both"])
def test_rows_do_not_depend_on_each_other(tiny_folder: Path, injection: str) -> None:
    net, x = network(tiny_folder, injection), noise(2, 4)
    together = net.speaker.text_nats(x, TEXTS)[0]
    alone = torch.cat([net.speaker.text_nats(x[i : i + 1], TEXTS[i : i + 1])[0] for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    texts = net.speaker.write(x, 6)
    assert texts == [net.speaker.write(x[i : i + 1], 6)[0] for i in range(2)]


@pytest.mark.parametrize("injection", ["prefix", "state", "both"])
def test_every_part_that_speaks_gets_a_gradient_and_the_backbone_none(tiny_folder: Path, injection: str) -> None:
    net = network(tiny_folder, injection)
    net.world.scaler.fit(torch.tensor([[20.0], [150.0]]))
    record = Record("Ian", [0.0, 6.0, 12.0], [[30.0], [40.0], [50.0]], [TEXTS[0], None, TEXTS[1]], TEXTS[1])
    terms = net.objective(collate([record]), torch.Generator().manual_seed(0), training=False).terms
    terms["text"].backward()
    parts = net.components()
    assert ("prefix" in parts) == (injection != "state") and ("state" in parts) == (injection != "prefix")
    assert set(net.active_losses()) == set(parts)
    for name in {"prefix", "state", "rssm"} & set(parts):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in parts[name].parameters()), name
    assert all(p.grad is None for p in net.backbone.model.parameters())


def test_a_batch_without_texts_uses_all_parameters(tiny_folder: Path) -> None:
    net = network(tiny_folder, "both")
    record = Record("Ian", [0.0, 6.0], [[30.0], [40.0]], [None, None])
    terms = net.objective(collate([record]), torch.Generator().manual_seed(0), training=False).terms
    terms["text"].backward()
    assert terms["text"] == 0 and all(
        p.grad is not None for name in ("prefix", "state") for p in net.components()[name].parameters()
    )


def test_unknown_injections_and_layers_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match="injection is 'prompt'; expected one of prefix"):
        network(tiny_folder, "prompt")
    with pytest.raises(ValueError, match=r"state_layers \[3\] have no recurrent state; expected some of \[0, 1, 2\]"):
        make_network(tiny_folder, injection="state", state_layers=(3,), text_layers=(2,), names=["wind"])
