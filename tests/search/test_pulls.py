"""Gated pulls: what a critic's gradient says of states, the state behind a path, and texts that stay within bounds."""

import itertools

import pytest
import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.search.decoding.critic import Critic
from gssr.search.decoding.lookahead import Lookahead, Search
from gssr.search.decoding.pulls import (
    Blocks,
    Random,
    TowardsBest,
    TowardsBetter,
    TowardsPath,
    TowardsValue,
    write_pulled,
)
from gssr.search.decoding.rows import Decoding, Rows
from gssr.search.decoding.scoring import likelihood, of_texts
from gssr.states.cache import layer_states, recurrent_layers
from gssr.states.hybrid_state import capture_tokens
from tests.conftest import SENTENCES

DECODING = Decoding(24, temperature=3.0)


@pytest.fixture(scope="module")
def critic(lively: FrozenBackbone) -> Critic:
    torch.manual_seed(1)
    return Critic(lively).requires_grad_(False)


def _rows(backbone: FrozenBackbone, written: int = 5, decoding: Decoding = DECODING, copies: int = 2) -> Rows:
    prompts = torch.tensor([ids[:6] for ids in backbone.tokenize(SENTENCES[:3])])
    rows = Rows(backbone, prompts, copies, decoding, seed=4)
    rows.write(written)
    return rows


def _recurrent(rows: Rows) -> dict[int, Tensor]:
    states = layer_states(rows.cache)
    return {i: states[i].recurrent.clone() for i in recurrent_layers(rows.cache)}


def letters(text: str) -> float:
    return sum(letter in "aeiou" for letter in text)


def test_a_small_pull_along_the_gradient_raises_each_value_and_a_random_one_does_not(
    lively: FrozenBackbone, critic: Critic
) -> None:
    gains = []
    for pull in (TowardsValue(critic, 0.001), Random(TowardsValue(critic, 0.001))):
        rows = _rows(lively)
        before = critic.value(rows)
        rows.pull(pull(rows))
        gains.append(critic.value(rows) - before)
    assert (gains[0] > 0).all() and gains[1].abs().max() < gains[0].min()


def test_gates_say_what_the_value_gains_in_each_layer(lively: FrozenBackbone, critic: Critic) -> None:
    """By differences of the value, layer by layer."""
    rows = _rows(lively)
    (rule,) = TowardsValue(critic, 0.5)(rows)
    step, gains = 1e-3, []
    for layer in rule.acting_layers:
        alone = _rows(lively)
        state = layer_states(alone.cache)[layer].recurrent
        before = critic.value(alone)
        state += step * rule.change[layer]
        gains.append((critic.value(alone) - before) / step)
    expected = torch.stack(gains) / torch.stack(gains).amax(0)
    found = torch.stack([rule.gate[layer] for layer in rule.acting_layers])
    assert found.amax(0).tolist() == pytest.approx([0.5] * 6)
    assert torch.allclose(found, 0.5 * expected, atol=0.03)


def test_random_targets_are_as_far_and_have_the_same_gates(lively: FrozenBackbone, critic: Critic) -> None:
    rows = _rows(lively)
    look = Blocks(of_texts(letters))
    for pull in (TowardsValue(critic, 0.3), TowardsBest(look, 0.3), TowardsBetter(look, 0.3)):
        (own,), (other,) = pull(rows), Random(pull, seed=2)(rows)
        for layer, state in _recurrent(rows).items():
            distances = [(rule.change[layer] - state).flatten(1).norm(dim=1) for rule in (own, other)]
            assert torch.allclose(*distances, rtol=1e-4)
            assert not torch.allclose(own.change[layer], other.change[layer], atol=1e-3)
            gates = [torch.as_tensor(r.gate if isinstance(r.gate, float) else r.gate[layer]) for r in (own, other)]
            assert torch.equal(*gates)


def test_a_full_pull_to_the_best_block_is_the_state_behind_it(lively: FrozenBackbone) -> None:
    rows, look = _rows(lively), Blocks(of_texts(letters), candidates=3, block=4, seed=8)
    tried, values = look(rows)
    assert tried.length == rows.length + 4 and values.shape == (6, 3)
    assert values.flatten().tolist() == [letters(text) for text in tried.texts()]
    chosen = torch.stack([own[value.argmax()] for own, value in zip(tried.tokens.split(3), values, strict=True)])
    behind = capture_tokens(lively, torch.cat([rows.prompts.repeat_interleave(2, 0), chosen], 1))
    rows.pull(TowardsBest(look, 1.0)(rows))
    for layer, state in _recurrent(rows).items():
        assert torch.allclose(state, behind.layers[layer].recurrent, atol=1e-4)


def test_a_full_pull_to_the_best_path_is_the_state_behind_it(lively: FrozenBackbone) -> None:
    """With one place that is opened the path is one block, the best of those that the search drew."""
    seen: list[list[list[int]]] = []

    def value(tried: Rows) -> Tensor:
        seen.extend(part.tolist() for part in tried.tokens.split(tried.copies))
        return of_texts(letters)(tried)

    rows = _rows(lively, copies=1)
    search = Search(lively, Lookahead(1, 4, 4, simulations=1), DECODING, value, ())
    rows.pull(TowardsPath(search, 1.0)(rows))
    chosen = [max(tried, key=lambda ids: letters(lively.tokenizer.decode(ids))) for tried in seen]
    assert len(chosen) == 3 and all(len(ids) == 9 for ids in chosen)
    behind = capture_tokens(lively, torch.cat([rows.prompts, torch.tensor(chosen)], 1))
    for layer, state in _recurrent(rows).items():
        assert torch.allclose(state, behind.layers[layer].recurrent, atol=1e-4)


def test_a_path_is_followed_to_its_end_and_none_is_forbidden(lively: FrozenBackbone) -> None:
    greedy = Decoding(24, 0.0)
    rows = _rows(lively, decoding=greedy, copies=1)
    deep = Search(lively, Lookahead(1, 1, 4, simulations=8, depth=3), greedy, of_texts(letters), ())
    found = deep.behind(rows.snapshot(), 5)
    rows.write(12)
    assert [state.tokens[0].tolist() for state in found] == torch.cat([rows.prompts, rows.tokens], 1).tolist()
    forbidding = Search(lively, Lookahead(1, 2, 4), DECODING, of_texts(lambda text: -torch.inf), ())
    rows, before = _rows(lively), _recurrent(_rows(lively))
    rows.pull(TowardsPath(forbidding, 0.5)(rows))
    assert all(torch.equal(state, before[layer]) for layer, state in _recurrent(rows).items())


def test_a_pull_towards_better_blocks_makes_them_likelier_than_worse_ones(lively: FrozenBackbone) -> None:
    look, gains = Blocks(of_texts(letters), candidates=6, block=4), []
    tried, values = look(_rows(lively, copies=1))
    better = (values - values.mean(1, keepdim=True)) / values.std(1, keepdim=True)

    def weighted(rows: Rows) -> Tensor:
        """By row: of the log-likelihoods of the blocks, the sum by how much better each is."""
        found, state = torch.zeros(3), rows.snapshot()
        for row, block in itertools.product(range(3), range(6)):
            again = Rows(lively, state.select([row]), 1, DECODING, written=rows.length)
            again.put(tried.tokens[6 * row + block, rows.length :].tolist())
            found[row] += better[row, block] * again.log_likelihood[0]
        return found

    for pull in (TowardsBetter(look, 0.001), Random(TowardsBetter(look, 0.001))):
        rows = _rows(lively, copies=1)
        before = weighted(rows)
        rows.pull(pull(rows))
        gains.append(weighted(rows) - before)
    assert (gains[0] > 0).all() and gains[1].abs().max() < gains[0].min()


def test_blocks_of_equal_value_pull_nowhere(lively: FrozenBackbone) -> None:
    forbidden = of_texts(lambda text: -torch.inf)
    for look in (Blocks(of_texts(lambda text: 1.0)), Blocks(forbidden), Blocks(of_texts(letters), candidates=1)):
        rows, before = _rows(lively), _recurrent(_rows(lively))
        rows.pull(TowardsBetter(look, 0.5)(rows))
        assert all(torch.equal(state, before[layer]) for layer, state in _recurrent(rows).items())


def test_a_forbidden_block_counts_as_the_worst(lively: FrozenBackbone) -> None:
    found = []
    for least in (0.0, -torch.inf):
        look = Blocks(of_texts(lambda text, least=least: 1.0 + letters(text) if letters(text) > 3 else least))
        (rule,) = TowardsBetter(look, 0.5)(_rows(lively))
        assert all(target.isfinite().all() for target in rule.change.values())
        found.append(rule.change[0])
    assert not torch.equal(*found)


def test_looking_changes_nothing_and_late_pulls_are_none(lively: FrozenBackbone, critic: Critic) -> None:
    plain, looked, late = _rows(lively, 24), _rows(lively, 1), _rows(lively, 1)
    look = Blocks(critic.value, candidates=2, block=3)
    write_pulled(looked, lambda rows: look(rows) and [], every=3)
    write_pulled(late, TowardsValue(critic, 0.5), every=24)
    assert torch.equal(looked.tokens, plain.tokens) and torch.equal(late.tokens, plain.tokens)


def test_a_pull_before_each_token_stays_within_bounds_and_changes_the_text(
    lively: FrozenBackbone, critic: Critic
) -> None:
    plain, pulled = _rows(lively, 24), _rows(lively, 1)
    largest = {i: state.flatten(1).norm(dim=1).max() for i, state in _recurrent(plain).items()}
    write_pulled(pulled, TowardsValue(critic, 0.5), every=1)
    assert not torch.equal(pulled.tokens, plain.tokens)
    assert all(state.flatten(1).norm(dim=1).max() < 3 * largest[i] for i, state in _recurrent(pulled).items())
    # The likelihood without pulls is that of a model that never had any.
    ids = torch.cat([pulled.prompts.repeat_interleave(2, 0), pulled.tokens], 1)
    with torch.no_grad():
        logits = lively.model(input_ids=ids[:, :-1], use_cache=False).logits[:, 5:].log_softmax(-1)
    own = logits.gather(2, pulled.tokens[..., None])[..., 0]
    counted = torch.arange(24) < pulled.lengths[:, None]
    expected = own.masked_fill(~counted, 0.0).sum(1) / pulled.lengths
    assert torch.allclose(likelihood(pulled).float(), expected, atol=1e-3)


def test_what_cannot_pull_is_refused(lively: FrozenBackbone, critic: Critic) -> None:
    attention = [i for i in critic.layers if not critic.heads[str(i)].is_recurrent]
    with pytest.raises(ValueError, match="none of them has a recurrent state"):
        TowardsValue(Critic(lively, attention), 0.5)
    for gate in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="gate"):
            TowardsValue(critic, gate)
    with pytest.raises(ValueError, match="at least 1"):
        write_pulled(_rows(lively), TowardsValue(critic, 0.5), every=0)
    with pytest.raises(ValueError, match="no token is written"):
        _rows(lively, 0).pull([])
