"""A critic: it learns what the finished text will be worth from states on the way, and is bound to its model."""

from pathlib import Path

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from gssr.backbone import FrozenBackbone
from gssr.backbone.config import BackboneConfig
from gssr.search.decoding.critic import Critic
from gssr.search.decoding.critic_training import CriticTraining, concordance
from gssr.search.decoding.rows import Decoding, Rows
from gssr.search.decoding.scoring import of_texts
from gssr.search.decoding.select import blockwise
from tests.conftest import SENTENCES


def _prompts(backbone: FrozenBackbone) -> torch.Tensor:
    return torch.tensor((sum(backbone.tokenize(SENTENCES), []) * 8)[: 16 * 17]).view(16, 17)


def test_concordance_is_the_area_under_the_curve() -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.randint(4, (40,), generator=draw).float()
    scores = torch.randint(2, (40,), generator=draw).float()
    good, bad = values[scores == 1], values[scores == 0]
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in good.tolist() for b in bad.tolist()]
    assert concordance(values, scores).item() == pytest.approx(sum(pairs) / len(pairs))
    assert concordance(scores * 3, scores) == 1 and concordance(values, scores * 0).isnan()


def long_words(text: str) -> float:
    return sum(map(len, text.split())) / max(1, len(text.split()))


def test_a_trained_critic_knows_more_of_the_end_than_an_untrained_one(
    lively_folder: Path, lively: FrozenBackbone, tmp_path: Path
) -> None:
    rows = DataLoader([{"tokens": row} for row in _prompts(lively)], batch_size=16)
    settings = {"prompt_tokens": 6, "tokens": 8, "every": 3, "scorer": "tests.search.test_critic:long_words"}
    torch.manual_seed(0)
    module = CriticTraining(
        BackboneConfig(str(lively_folder)), **settings, width=16, lr=1e-2, export=str(tmp_path / "critic.safetensors")
    )
    fingerprint = module.backbone.fingerprint
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "accelerator": "cpu",
             "enable_progress_bar": False}  # fmt: skip
    before = Trainer(**quiet).validate(module, rows, verbose=False)[0]
    Trainer(**quiet, max_steps=16, max_epochs=-1, limit_val_batches=0).fit(module, rows)
    after = Trainer(**quiet).validate(module, rows, verbose=False)[0]
    assert after["val/squared_error"] < 0.9 < before["val/squared_error"]
    assert after["val/within_6"] > 0.65 and "val/within_3" in after and "val/within_8" not in after
    assert FrozenBackbone(str(lively_folder)).fingerprint == fingerprint

    critic = Critic.load(tmp_path / "critic.safetensors", lively)
    decoding = Decoding(8)
    found = Rows(lively, _prompts(lively)[:4, :6], 3, decoding, seed=1)
    chosen = blockwise(found, of_texts(long_words), 4, critic.value)
    assert len(chosen.best) == 4
    values = critic.value(found)
    assert values.shape == (12,) and values.std() > 0
    # In the score's own unit.
    assert abs(values.mean() - torch.tensor([long_words(text) for text in found.texts()]).mean()) < 3


def test_a_value_does_not_change_the_states(lively: FrozenBackbone) -> None:
    critic, found = Critic(lively), []
    for look in (False, True):
        rows = Rows(lively, _prompts(lively)[:2, :5], 2, Decoding(8), seed=2)
        rows.write(4)
        if look:
            assert torch.equal(critic.value(rows), critic.value(rows))
        rows.write(4)
        found.append(rows.tokens)
    assert torch.equal(*found)


def test_what_a_critic_cannot_be_is_refused(lively: FrozenBackbone, tiny: FrozenBackbone, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layers \[9\] have no states"):
        Critic(lively, [0, 9])
    file = tmp_path / "critic.safetensors"
    Critic(lively, [0, 2], 8).save(file, lively)
    assert Critic.load(file, lively).layers == [0, 2]
    with pytest.raises(ValueError, match="it reads states of the model"):
        Critic.load(file, tiny)
    bad = Critic(lively, [0], 8)
    bad.mean.fill_(float("nan"))
    bad.save(file, lively)
    with pytest.raises(ValueError, match="not finite"):
        Critic.load(file, lively)
    with pytest.raises(ValueError, match="expected fewer"):
        CriticTraining(BackboneConfig(lively.name), tokens=8, every=8)
