"""Rows of one cache, and the selection among them: against ``generate`` and exact enumeration."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.search.decoding.rows import Decoding, Rows
from gssr.search.decoding.scoring import likelihood, load_scorer, of_texts, scored
from gssr.search.decoding.select import best_of, blockwise, particles
from gssr.states.directions import random_like, recurrent_states
from gssr.states.hybrid_state import HybridState
from gssr.states.intervention import steer
from gssr.states.learned_state import LearnedState
from gssr.states.rules import Offset, Schedule
from tests.search.conftest import PROMPT


def _rule(backbone: FrozenBackbone, strength: float = 300.0, schedule: Schedule | None = None) -> Offset:
    states = recurrent_states(backbone, [PROMPT])
    direction = random_like({layer: x[0] for layer, x in states.items()}, 0)
    return Offset(direction, strength=strength, schedule=schedule or Schedule(stop=4))


def _generated(backbone: FrozenBackbone, prompt: Tensor, seed: int, **options: object) -> Tensor:
    torch.manual_seed(seed)
    given = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), "pad_token_id": backbone.pad_id}
    return backbone.model.generate(**given, **options)[:, prompt.shape[1] :]


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.7, 0.9), (0.0, 1.0)])
@pytest.mark.parametrize("rows", [1, 3])
def test_rows_are_those_of_generate(
    lively: FrozenBackbone, prompt: Tensor, temperature: float, top_p: float, rows: int
) -> None:
    """The same bits for one row; with several, the draws of a batch of copies."""
    written = Rows(lively, prompt, rows, Decoding(12, temperature, top_p), seed=5)
    written.write(12)
    options = {"max_new_tokens": 12, "num_return_sequences": rows if temperature else 1}
    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    expected = _generated(lively, prompt, 5, **options, **(sampling if temperature else {"do_sample": False}))
    assert torch.equal(written.tokens[: len(expected)], expected)
    assert written.calls == 12 and written.read == prompt.shape[1] + 11 * rows


def test_strength_0_changes_no_bit_and_others_steer_as_steer_does(lively: FrozenBackbone, prompt: Tensor) -> None:
    def write(*rules: Offset) -> Tensor:
        rows = Rows(lively, prompt, 1, Decoding(10), rules, seed=1)
        found = best_of(rows, likelihood)
        assert found.chosen.tolist() == [0]
        return found.tokens

    plain = _generated(lively, prompt, 1, max_new_tokens=10, do_sample=True, top_k=0)
    assert torch.equal(write(), plain) and torch.equal(write(_rule(lively, 0.0)), plain)
    with steer(lively.model, _rule(lively)):
        steered = _generated(lively, prompt, 1, max_new_tokens=10, do_sample=True, top_k=0)
    assert torch.equal(write(_rule(lively)), steered) and not torch.equal(steered, plain)


def test_rows_go_on_from_what_was_selected(lively: FrozenBackbone, prompt: Tensor) -> None:
    rows = Rows(lively, prompt, 3, Decoding(8), [_rule(lively, schedule=Schedule())], seed=2)
    rows.write(4)
    kept = rows.tokens[[2, 2, 0]]
    rows.select(torch.tensor([2, 2, 0]))
    rows.write(4)
    assert torch.equal(rows.tokens[:, :4], kept) and rows.finished
    # The unsteered likelihood of what was written steered, against one call without a cache.
    ids = torch.cat([prompt.expand(3, -1), rows.tokens], 1)
    with torch.no_grad():
        logits = lively.model(input_ids=ids[:, :-1], use_cache=False).logits[:, prompt.shape[1] - 1 :]
    own = logits.log_softmax(-1).gather(2, rows.tokens[..., None])[..., 0]
    counted = torch.arange(8) < rows.lengths[:, None]
    torch.testing.assert_close(rows.plain_log_likelihood(), (own * counted).sum(1), atol=1e-3, rtol=1e-4)
    assert (rows.plain_log_likelihood() - rows.log_likelihood).abs().max() > 0.1


ALLOWED, LENGTH = (5, 9, 40, 77), 4


@pytest.fixture(scope="module")
def few(lively: FrozenBackbone) -> Decoding:
    """A vocabulary of four tokens, and texts of four: 256 texts in all."""
    suppressed = tuple(i for i in range(lively.table.num_embeddings) if i not in ALLOWED)
    return Decoding(LENGTH, temperature=3.0, suppressed=suppressed)


@pytest.fixture(scope="module")
def every(lively: FrozenBackbone, prompt: Tensor, few: Decoding) -> tuple[Tensor, Tensor]:
    """All texts (256, 4), and their probabilities."""
    texts = torch.tensor(list(itertools.product(ALLOWED, repeat=LENGTH)))
    ids = torch.cat([prompt.expand(len(texts), -1), texts], 1)
    with torch.no_grad():
        logits = lively.model(input_ids=ids[:, :-1], use_cache=False).logits[:, prompt.shape[1] - 1 :]
    own = few.log_probs(logits).gather(2, texts[..., None])[..., 0].sum(1).double().exp()
    assert own.sum().item() == pytest.approx(1, abs=1e-5) and own.max() < 0.5
    return texts, own


def _score(tokens: Tensor) -> Tensor:
    """A score that is high for texts that are seldom written, and says little before their end."""
    place = torch.tensor([ALLOWED.index(token) for token in tokens.flatten().tolist()]).view_as(tokens)
    return (place.double() * torch.arange(1, tokens.shape[1] + 1)).sum(1) % 5


def _value(rows: Rows) -> Tensor:
    return _score(rows.tokens)


def test_particles_have_no_bias(lively: FrozenBackbone, prompt: Tensor, few: Decoding, every) -> None:
    """Their evidence, and the weighted share of a token, against exact enumeration; resampled and not."""
    texts, own = every
    sharpness, prompts = 0.7, 400
    tilted = own * (sharpness * _score(texts)).exp()
    evidence, share = tilted.sum(), (tilted * (texts[:, 1] == ALLOWED[0])).sum()
    rows = Rows(lively, prompt.expand(prompts, -1), 4, few, seed=3)
    found = particles(rows, _value, 1, sharpness)
    estimates = found.log_evidence.exp()
    error = estimates.std() / math.sqrt(prompts)
    assert any((effective < 2).any() for effective in found.effective)
    assert abs(estimates.mean() - evidence) < 3 * error < 0.15 * evidence
    hits = (found.tokens.view(prompts, 4, LENGTH)[..., 1] == ALLOWED[0]).double()
    shares = estimates * (found.log_weights.exp() * hits).sum(1)
    assert abs(shares.mean() - share) < 3 * shares.std() / math.sqrt(prompts)
    assert found.read == prompts * (prompt.shape[1] + 4 * (LENGTH - 1))


def test_the_best_of_k_is_the_best_and_costs_what_it_says(
    lively: FrozenBackbone, prompt: Tensor, few: Decoding, every
) -> None:
    texts, own = every
    expected = {}
    for rows in (1, 4):
        below = torch.stack([own[_score(texts) <= s].sum() for s in range(5)]) ** rows
        expected[rows] = (torch.arange(5) * below.diff(prepend=torch.zeros(1, dtype=torch.float64))).sum().item()
    for count, wanted in expected.items():
        rows = Rows(lively, prompt.expand(200, -1), count, few, seed=4)
        found = best_of(rows, _value)
        best = found.scores.gather(1, found.chosen[:, None])
        assert torch.equal(best[:, 0], found.scores.amax(1))
        assert abs(best.mean().item() - wanted) < 4 * best.std().item() / math.sqrt(200)
        assert torch.equal(_score(found.tokens[found.chosen_rows]), best[:, 0])
        # Ties cost no further call, since the model is not steered.
        assert found.calls == LENGTH and found.read == 200 * prompt.shape[1] + 200 * count * (LENGTH - 1)


def test_blocks_go_on_from_the_best_row(lively: FrozenBackbone, prompt: Tensor, few: Decoding) -> None:
    rows = Rows(lively, prompt, 16, few, seed=6)
    found = blockwise(rows, _value, 2)
    assert (found.tokens[:, :2] == found.tokens[0, :2]).all()
    plain = best_of(Rows(lively, prompt, 16, few, seed=6), _value)
    first = plain.tokens[:, :2]
    assert _score(found.tokens[:1, :2]) == _score(first).max() and found.read == plain.read


def test_one_row_in_blocks_or_as_a_particle_is_the_plain_text(lively: FrozenBackbone, prompt: Tensor) -> None:
    def rows() -> Rows:
        return Rows(lively, prompt, 1, Decoding(9), seed=7)

    plain = best_of(rows(), likelihood).tokens
    assert torch.equal(blockwise(rows(), likelihood, 2).tokens, plain)
    assert torch.equal(particles(rows(), likelihood, 2, 1.0).tokens, plain)


def test_forbidden_texts_have_no_weight(lively: FrozenBackbone, prompt: Tensor, few: Decoding) -> None:
    def never(rows: Rows) -> Tensor:
        return torch.where(rows.tokens[:, 0] == ALLOWED[0], -math.inf, 0.0)

    found = particles(Rows(lively, prompt, 32, few, seed=8), never, 2, 1.0)
    assert not found.log_weights.isnan().any() and found.tokens[found.chosen_rows, 0].item() != ALLOWED[0]
    assert 0 < found.log_evidence.exp().item() <= 1
    found = particles(Rows(lively, prompt, 4, few, seed=8), lambda rows: torch.full((4,), -math.inf), 2, 1.0)
    assert found.log_evidence.item() == -math.inf and found.log_weights.exp().sum().item() == pytest.approx(1)


def count_letters(text: str) -> float:
    return float(len(text))


def test_texts_are_scored_by_a_function(lively: FrozenBackbone, prompt: Tensor) -> None:
    score = of_texts(load_scorer(f"{__name__}:count_letters"))
    found = best_of(Rows(lively, prompt, 5, Decoding(6), seed=9), score)
    assert found.best[0] == max(found.texts, key=len)
    assert scored(count_letters, ["a", "bc", "a"]).tolist() == [1, 2, 1]


@pytest.mark.parametrize(
    "name, message",
    {
        "no colon": ("mine.score", "no module:function"),
        "a file": ("mine.py:score", "cannot be imported"),
        "a path": ("../mine:score", "no module:function"),
        "an expression": ("os:system('x')", "no module:function"),
        "no module": ("no_such_module:score", "PYTHONPATH"),
        "no function": ("math:no_such", "has no function"),
        "a number": ("math:pi", "has no function"),
    }.values(),
)  # fmt: skip
def test_a_scorer_that_is_none_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_scorer(name)


@pytest.mark.parametrize("wrong", [lambda text: math.nan, lambda text: math.inf, lambda text: "many", lambda: 1.0])
def test_a_scorer_that_returns_no_number_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match="the scorer"):
        scored(wrong, ["a text"])


def test_a_thousand_gated_injections_stay_bounded_and_do_not_collapse(lively: FrozenBackbone, prompt: Tensor) -> None:
    """Before every token the second text's states are pulled to those of another text, by a gate for each layer."""
    target = HybridState.capture(lively, ["Be a category 3 hurricane two days from now."]).layers
    parts = {part: [i for i, x in enumerate(target) if getattr(x, part) is not None] for part in ("recurrent", "conv")}
    targets = {part: {i: getattr(target[i], part)[0] for i in layers} for part, layers in parts.items()}
    gates = {part: {i: torch.tensor(0.02 + 0.02 * i) for i in layers} for part, layers in parts.items()}
    rules = LearnedState(targets, gates).rules(torch.tensor([0.0, 1.0]), schedule=Schedule())
    decoding = Decoding(1000, 2.0, suppressed=(lively.tokenizer.eos_token_id,))
    rows = Rows(lively, prompt.repeat(2, 1), 1, decoding, rules, seed=0)
    largest = {i: torch.zeros(2) for i in parts["recurrent"]}
    while not rows.finished:
        rows.write(20)
        for i, norms in largest.items():
            largest[i] = norms.maximum(rows.cache.get_recurrent_state(i).flatten(1).norm(dim=1))
    for i, (plain, pulled) in largest.items():
        assert pulled <= 1.1 * max(plain, targets["recurrent"][i].norm())
    pairs = [list(itertools.pairwise(row)) for row in rows.tokens.tolist()]
    plain, pulled = (len(set(row)) / len(row) for row in pairs)
    assert pulled == pytest.approx(plain, rel=0.2) and plain > 0.3 and rows.tokens[0].ne(rows.tokens[1]).any()
