"""Cuts of attention: what stands before a cut reaches the model behind it through recurrent and conv states alone."""

import copy
import math

import pytest
import torch
from torch import Tensor
from transformers import GraniteMoeHybridForCausalLM, PreTrainedModel

from gssr.states.cache import LayerState, fill_cache, layer_states
from gssr.training.architectures import Nano, nano_config
from gssr.training.initialisation import mamba_layers
from gssr.training.objectives import NextToken, WeightedTokens, predictions

LENGTH, CUTS = 40, (17, 29)


@pytest.fixture(scope="module")
def hybrid() -> PreTrainedModel:
    torch.manual_seed(0)
    return Nano(300, 96, 4).build().eval()


@pytest.fixture(scope="module")
def attention_only() -> PreTrainedModel:
    torch.manual_seed(0)
    config = nano_config(300, 96, 4)
    config.layer_types = ["full_attention"] * 4
    return GraniteMoeHybridForCausalLM(config).eval()


@pytest.fixture
def rows() -> Tensor:
    return torch.randint(2, 300, (2, LENGTH + 1), generator=torch.Generator().manual_seed(3))


def first(*cuts: int, rows: int = 2) -> Tensor:
    places = torch.zeros(LENGTH + 1, dtype=torch.long)
    for cut in cuts:
        places[cut:] = cut
    return places.expand(rows, -1)


def change(model: PreTrainedModel, rows: Tensor, place: int, seen: Tensor) -> Tensor:
    """How far logits move at each place (L) when the token at ``place`` is another one."""
    other = rows.clone()
    other[:, place] = (other[:, place] - 2 + 7) % 298 + 2
    a, b = (predictions(model, {"tokens": tokens, "first": seen})[0] for tokens in (rows, other))
    return (a - b).abs().amax((0, 2))


@torch.no_grad()
@pytest.mark.parametrize("place", [3, 16])
def test_attention_alone_knows_nothing_of_what_stands_before_a_cut(
    attention_only: PreTrainedModel, rows: Tensor, place: int
) -> None:
    moved = change(attention_only, rows, place, first(*CUTS))
    assert (moved[place : CUTS[0]] > 1e-5).all()
    assert moved[CUTS[0] :].max() == 0.0 and moved[:place].max() < 1e-5
    assert (change(attention_only, rows, place, first())[CUTS[0] :] > 1e-6).all()


@torch.no_grad()
def test_attention_sees_from_its_own_cut_on(attention_only: PreTrainedModel, rows: Tensor) -> None:
    moved = change(attention_only, rows, CUTS[0], first(*CUTS))
    assert (moved[CUTS[0] : CUTS[1]] > 1e-5).all() and moved[CUTS[1] :].max() == 0.0


@torch.no_grad()
@pytest.mark.parametrize(("rate", "carries"), [(0.01, True), (1000.0, False)], ids=["long", "no memory"])
def test_recurrent_states_carry_it_over_every_cut(
    hybrid: PreTrainedModel, rows: Tensor, rate: float, carries: bool
) -> None:
    model = copy.deepcopy(hybrid)
    for layer in mamba_layers(model):
        layer.A_log.fill_(math.log(rate))
        layer.dt_bias.fill_(0.0)
    moved = change(model, rows, 3, first(*CUTS))[CUTS[1] :]
    assert (moved > 1e-6).all() == carries
    assert carries or moved.max() < 5e-7  # rounding


@torch.no_grad()
def test_a_cut_is_a_text_read_on_from_states_without_keys(hybrid: PreTrainedModel, rows: Tensor) -> None:
    cut, _ = predictions(hybrid, {"tokens": rows, "first": first(17)})
    free, _ = predictions(hybrid, {"tokens": rows})
    torch.testing.assert_close(cut[:, :17], free[:, :17])
    assert (cut[:, 17:] - free[:, 17:]).abs().max() > 1e-4
    cache = hybrid(input_ids=rows[:, :17], use_cache=True).past_key_values
    layers = [LayerState(layer.recurrent, layer.conv) for layer in layer_states(cache)]
    rest = hybrid(input_ids=rows[:, 17:-1], past_key_values=fill_cache(hybrid, layers)).logits
    torch.testing.assert_close(cut[:, 17:], rest, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_rows_of_a_batch_have_cuts_of_their_own(hybrid: PreTrainedModel, rows: Tensor) -> None:
    seen = torch.cat([first(17, rows=1), first(29, rows=1)])
    together, _ = predictions(hybrid, {"tokens": rows, "first": seen})
    for row in range(2):
        alone, _ = predictions(hybrid, {"tokens": rows[row : row + 1], "first": seen[row : row + 1]})
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("objective", [NextToken(), WeightedTokens()], ids=["next token", "weighted"])
def test_both_objectives_know_cuts_and_none_is_the_whole_text(objective, hybrid: PreTrainedModel, rows: Tensor) -> None:
    batch = {"tokens": rows, "weights": torch.ones(rows.shape)}
    free, uncut, cut = (objective(hybrid, batch | more)[0] for more in ({}, {"first": first()}, {"first": first(5, 9)}))
    torch.testing.assert_close(free, uncut, atol=1e-3, rtol=1e-5)
    assert (cut - free).abs() > 1e-3
