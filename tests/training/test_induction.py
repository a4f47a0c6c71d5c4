"""Attention is taught to look at what followed the same token before."""

import math

import pytest
import torch
from torch import Tensor
from transformers import GraniteMoeHybridForCausalLM, PreTrainedModel

from gssr.training.architectures import Nano, PureMamba2
from gssr.training.induction import InductionHeads, places
from gssr.training.objectives import WeightedTokens


@pytest.fixture
def model() -> PreTrainedModel:
    torch.manual_seed(0)
    return Nano(300, 192, 4).build().eval()


def batch(repeated: tuple[bool, bool] = (True, True), cut: bool = False) -> dict[str, Tensor]:
    """Two rows: a stretch of ten tokens said twice, of which the second time counts."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(2, 300, (2, 10), generator=generator).repeat(1, 2)
    weights, first = torch.zeros(2, 20), torch.zeros(2, 20, dtype=torch.long)
    weights[:, 11:] = 1
    if cut:
        first[:, 12:] = 12
    return {"tokens": tokens, "weights": weights, "first": first, "repeated": torch.tensor(repeated)}


def test_an_induction_head_looks_behind_each_earlier_occurrence() -> None:
    tokens = torch.tensor([[5, 6, 7, 5, 8, 5]])
    answers, counted = places(tokens, torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]]))
    assert [row.nonzero().flatten().tolist() for row in answers[0]] == [[], [], [], [1], [], [1, 4]]
    assert counted.tolist() == [[False, False, False, True, False, False]]


def attention_of(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """(B, M, L, L), as the model itself computes it in its attention layer."""
    plain = GraniteMoeHybridForCausalLM._from_config(model.config, attn_implementation="eager").eval()
    plain.load_state_dict(model.state_dict())
    seen = []
    layer = plain.model.layers[3].self_attn
    layer.register_forward_hook(lambda *given: seen.append(given[-1][1]))
    plain(input_ids=tokens, use_cache=False)
    return seen[0].detach()


@pytest.mark.parametrize(("spared", "rows"), [(0, (0, 1)), (1, (0, 1)), (1, (1,))])
def test_the_loss_is_that_of_tokens_and_the_attention_that_misses(
    model: PreTrainedModel, spared: int, rows: tuple[int, ...]
) -> None:
    data = batch((0 in rows, 1 in rows))
    total, weight = InductionHeads(weight=0.5, spared=spared)(model, data)
    nats, same = WeightedTokens()(model, data)
    shares = attention_of(model, data["tokens"][:, :-1])
    missed = []
    for row in rows:
        said = data["tokens"][row].tolist()
        for place in range(10, 19):
            targets = [k for k in range(1, place + 1) if said[k - 1] == said[place]]
            missed += [-math.log(sum(head[place, k] for k in targets)) for head in shares[row, 2 * spared :]]
    assert weight == same
    assert ((total - nats) / weight).item() == pytest.approx(0.5 * sum(missed) / len(missed), rel=1e-4)


@pytest.mark.parametrize(
    "data", [batch((False, False)), batch(cut=True), {k: v for k, v in batch().items() if k != "repeated"}]
)
def test_other_rows_have_the_loss_of_their_tokens_alone(model: PreTrainedModel, data: dict[str, Tensor]) -> None:
    assert torch.equal(InductionHeads()(model, data)[0], WeightedTokens()(model, data)[0])


def test_a_model_that_cannot_be_taught_is_refused(model: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="spared is 2, and the model has 2 heads"):
        InductionHeads(spared=2)(model, batch())
    with pytest.raises(ValueError, match="Mamba2ForCausalLM has no attention"):
        InductionHeads()(PureMamba2(300, 32, 1).build(), batch())
    model.config.position_embedding_type = "rope"
    with pytest.raises(ValueError, match="has rotary ones"):
        InductionHeads()(model, batch())


def test_training_makes_attention_look_there_and_leaves_no_hook(model: PreTrainedModel) -> None:
    data, objective = batch(), InductionHeads()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    answers, counted = places(data["tokens"][:, :-1], data["weights"][:, 1:])

    def share() -> float:
        taught = attention_of(model, data["tokens"][:, :-1])[:, 2:]
        return ((taught * answers[:, None]).sum(-1) * counted[:, None]).sum().item() / counted.sum().item() / 2

    before = share()
    for _ in range(30):
        total, weight = objective(model, data)
        optimizer.zero_grad()
        (total / weight).backward()
        optimizer.step()
    assert share() > max(0.5, 3 * before)
    assert not model.model.layers[3].self_attn._forward_pre_hooks
