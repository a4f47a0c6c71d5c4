"""Speculative decoding: the model's own distribution, exactly, whatever the draft."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from gssr.backbone import FrozenBackbone
from gssr.backbone.config import BackboneConfig
from gssr.search.decoding.draft_training import DraftTraining
from gssr.search.decoding.drafting import HiddenDrafter, NGramDrafter
from gssr.search.decoding.rows import Decoding, Rows
from gssr.search.decoding.speculative import Draft, keep_probability, residual, speculate
from tests.conftest import SENTENCES, enliven

ALLOWED = (5, 9, 40)


class Guesses:
    """Drafts of its own distribution over the allowed tokens, now and then as sure as an n-gram."""

    def __init__(self, vocabulary: int, sure: bool = False) -> None:
        weights = torch.zeros(vocabulary)
        weights[list(ALLOWED)] = torch.tensor([0.7, 0.2, 0.1])
        self.weights, self.sure = weights, sure

    def draft(self, tokens, hidden, count, decoding, generator) -> Draft:
        found = (
            torch.multinomial(self.weights, count, replacement=True, generator=generator) if count else torch.empty(0)
        )
        probs = (
            torch.nn.functional.one_hot(found.long(), len(self.weights)).float()
            if self.sure
            else self.weights.expand(count, -1)
        )
        return Draft(found.long(), probs)


@pytest.mark.parametrize("seed", range(4))
def test_keeping_or_replacing_gives_the_models_distribution(seed: int) -> None:
    """By enumeration of what can be drafted and drawn."""
    generator = torch.Generator().manual_seed(seed)
    p, q = (torch.rand(6, generator=generator, dtype=torch.float64) for _ in range(2))
    p[seed], q[(2 * seed + 1) % 6] = 0.0, 0.0
    p, q = p / p.sum(), q / q.sum()
    total = torch.zeros(6, dtype=torch.float64)
    for token in range(6):
        if q[token] > 0:
            kept = keep_probability(p, q, torch.tensor(token))
            total[token] += q[token] * kept
            total += q[token] * (1 - kept) * residual(p, q)
    torch.testing.assert_close(total, p, atol=1e-12, rtol=0)
    assert torch.equal(residual(p, p), p)


@pytest.mark.parametrize("width, sure", [(1, True), (2, False)])
def test_texts_have_the_models_distribution(lively: FrozenBackbone, prompt: Tensor, width: int, sure: bool) -> None:
    """All 27 texts of three tokens from a vocabulary of three, by a chi-square test."""
    suppressed = tuple(i for i in range(lively.table.num_embeddings) if i not in ALLOWED)
    decoding = Decoding(3, temperature=4.0, suppressed=suppressed)
    texts = torch.tensor(list(itertools.product(ALLOWED, repeat=3)))
    with torch.no_grad():
        ids = torch.cat([prompt.expand(27, -1), texts], 1)
        logits = lively.model(input_ids=ids[:, :-1], use_cache=False).logits[:, prompt.shape[1] - 1 :]
    own = decoding.log_probs(logits).gather(2, texts[..., None])[..., 0].sum(1).double().exp()
    count, drafter = 200, Guesses(lively.table.num_embeddings, sure)
    found = Counter(
        tuple(speculate(lively, prompt, drafter, decoding, width, seed=seed).tokens.tolist()) for seed in range(count)
    )
    expected = own * count
    seen = torch.tensor([found[tuple(text.tolist())] for text in texts], dtype=torch.float64)
    assert seen.sum() == count
    order = expected.argsort()
    # Texts that are expected less than five times are counted together.
    bins = torch.stack([(x[order].cumsum(0)) for x in (expected, seen)])
    edges = torch.searchsorted(bins[0].contiguous(), torch.arange(5.0, count - 5, 6.0, dtype=torch.float64)).unique()
    edges = edges[edges < 26]
    groups = torch.cat([bins[:, edges], bins[:, -1:]], 1).diff(dim=1, prepend=torch.zeros(2, 1))
    statistic = ((groups[1] - groups[0]).square() / groups[0]).sum().item()
    freedom = torch.tensor((groups.shape[1] - 1) / 2, dtype=torch.float64)
    p = torch.special.gammaincc(freedom, torch.as_tensor(float(statistic) / 2, dtype=torch.float64))
    assert groups.shape[1] > 5 and p > 0.001


@pytest.mark.parametrize("kind", ["n-gram", "hidden", "guesses"])
def test_the_likeliest_text_is_the_same_with_a_draft(lively: FrozenBackbone, prompt: Tensor, kind: str) -> None:
    vocabulary = lively.table.num_embeddings
    drafter = {
        "n-gram": NGramDrafter(vocabulary),
        "hidden": HiddenDrafter(lively.hidden_size, 16).bind(lively),
        "guesses": Guesses(vocabulary),
    }[kind]
    decoding = Decoding(60, temperature=0.0)
    plain = Rows(lively, prompt, 1, decoding)
    plain.write(60)
    found = speculate(lively, prompt, drafter, decoding, 3)
    assert torch.equal(found.tokens, plain.tokens[0, : plain.lengths[0]])


class Knows:
    """Drafts the text itself, wrong at some places."""

    def __init__(self, text: list[int], vocabulary: int, wrong: int) -> None:
        self.text, self.vocabulary, self.wrong = text, vocabulary, wrong

    def draft(self, tokens, hidden, count, decoding, generator) -> Draft:
        ahead = [
            token if (len(tokens) + i) % self.wrong else (token + 1) % self.vocabulary
            for i, token in enumerate(self.text[len(tokens) : len(tokens) + count])
        ]
        found = torch.tensor(ahead, dtype=torch.long)
        return Draft(found, torch.nn.functional.one_hot(found, self.vocabulary).float())


@pytest.mark.parametrize("wrong", [10**6, 7, 3, 1])
def test_calls_are_counted_and_states_are_put_back(lively: FrozenBackbone, prompt: Tensor, wrong: int) -> None:
    """A draft that knows the text needs few calls; one that errs gives the same text."""
    plain = Rows(lively, prompt, 1, Decoding(65, temperature=0.0))
    plain.write(65)
    text = [*prompt[0].tolist(), *plain.tokens[0, : plain.lengths[0]].tolist()]
    drafter = Knows(text, lively.table.num_embeddings, wrong)
    found = speculate(lively, prompt, drafter, Decoding(65, temperature=0.0), 4)
    assert found.tokens.tolist() == text[prompt.shape[1] :] and len(found.tokens) == 65
    if wrong > 65:
        assert found.calls == 1 + 13 and found.acceptance > 0.98
    if wrong == 1:
        assert found.acceptance == 0 and 65 <= found.calls <= 65 + 65 // 24


def test_a_trained_drafter_comes_nearer_and_is_bound_to_its_model(
    tiny_folder: Path, lively: FrozenBackbone, tmp_path: Path
) -> None:
    ids = torch.tensor((sum(FrozenBackbone(str(tiny_folder)).tokenize(SENTENCES), []) * 8)[:264]).view(8, 33)
    rows = DataLoader([{"tokens": row} for row in ids], batch_size=8)
    found = {}
    for steps in (1, 60):
        torch.manual_seed(0)
        file = tmp_path / "new" / f"{steps}.safetensors"
        module = DraftTraining(BackboneConfig(str(tiny_folder)), 32, 3, 64, export=str(file), lr=1e-2, warmup_steps=5)
        enliven(module.backbone)
        trainer = Trainer(
            accelerator="cpu", max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(module, rows)
        trainer.validate(module, rows, verbose=False)
        found[steps] = trainer.callback_metrics["val/nats_per_draft"].item()
        loaded = HiddenDrafter.load(file, module.backbone)
        assert all(torch.equal(part, loaded.state_dict()[name]) for name, part in module.drafter.state_dict().items())
    assert found[60] < 0.8 * found[1]
    with pytest.raises(ValueError, match="drafts for the model"):
        HiddenDrafter.load(file, FrozenBackbone("nano-random"))


def test_a_prompt_that_is_none_is_refused(lively: FrozenBackbone, prompt: Tensor) -> None:
    with pytest.raises(ValueError, match="expected one row"):
        speculate(lively, prompt.expand(2, -1), NGramDrafter(400), Decoding(4))
