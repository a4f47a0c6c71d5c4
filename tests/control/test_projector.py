"""Projectors begin as no change, keep to their bound, learn, and are saved for one model."""

from pathlib import Path

import pytest
import torch
from lightning import Trainer

from datamodules.facts import FactQuestions, ForcedTokens
from gssr.backbone import FrozenBackbone
from gssr.backbone.config import BackboneConfig
from gssr.control.compose import beginning, compose, piece
from gssr.control.functional import logits, read, say
from gssr.control.projector import FactProjector, Projector, TokenProjector, answered, shapes_of
from gssr.control.saved import load_projector, parameters, save_projector
from gssr.control.training import ProjectorTraining


def made(kind: type[Projector], backbone: FrozenBackbone, **options: float) -> Projector:
    projector = kind(**options)
    projector.prepare(backbone, shapes_of(beginning(backbone)))
    return projector


def test_a_projector_of_facts_begins_as_composition_and_is_bounded(facts: FrozenBackbone) -> None:
    projector = made(FactProjector, facts, bound=0.3)
    written = piece(facts, torch.tensor([[20, 30, 40], [21, 31, 41]]))
    for own, same in zip(written.layers, projector(written).layers, strict=True):
        assert torch.equal(own.recurrent, same.recurrent)
    for mix in projector.mix.values():
        mix.data.fill_(5.0)
    for own, other in zip(written.layers, projector(written).layers, strict=True):
        change = (other.recurrent - own.recurrent).flatten(1).norm(dim=1)
        assert torch.allclose(change, 0.3 * own.recurrent.flatten(1).norm(dim=1), rtol=1e-3)
        assert torch.equal(own.conv, other.conv)


def test_a_projector_of_words_keeps_to_its_bound(facts: FrozenBackbone) -> None:
    projector = made(TokenProjector, facts, bound=0.2, hidden=8)
    with torch.no_grad():
        layers = read(facts, None, torch.tensor([[1, 20, 30]])).layers
        found = projector.change(facts, layers, torch.tensor([40]), torch.tensor([77]))
    for own, other in zip(layers, found, strict=True):
        change = (other.recurrent - own.recurrent).norm()
        assert 0 < change <= 0.2 * own.recurrent.norm() * 1.001


def test_a_projector_of_words_begins_with_what_says_the_word(facts: FrozenBackbone) -> None:
    torch.manual_seed(0)
    projector, target = made(TokenProjector, facts), torch.arange(20, 52)
    with torch.no_grad():
        layers, last = read(facts, None, torch.randint(4, 900, (32, 6))).layers, torch.randint(4, 900, (32,))
        changed = projector.change(facts, layers, last, target)
        before, after = (logits(facts, own, last[:, None])[:, 0].log_softmax(-1) for own in (layers, changed))
        gain = (after - before).gather(1, target[:, None]).squeeze(1)
    assert (gain > 0).float().mean() > 0.8, gain


def test_an_answer_counts_when_all_its_words_are_the_likeliest(facts: FrozenBackbone) -> None:
    layers, question = beginning(facts, 1), torch.tensor([[[20, 30, 40]]])
    with torch.no_grad():
        said = say(facts, read(facts, layers, question[0, :, :-1]).layers, question[0, :, -1], 3)
    padded = torch.cat([said, torch.tensor([[-100]])], 1)[None]
    nothing = torch.zeros(1, 0, dtype=torch.int64)
    assert answered(facts, layers, nothing, question, padded)[1].tolist() == [[True]]
    wrong = padded.clone()
    wrong[0, 0, 2] = (wrong[0, 0, 2] + 1) % 900
    assert answered(facts, layers, nothing, question, wrong)[1].tolist() == [[False]]


def test_facts_are_written_one_behind_the_other(facts: FrozenBackbone) -> None:
    batch = {
        "facts": torch.tensor([[[20, 30, 40], [21, 31, 41]]]),
        "other": torch.tensor([[50, 51]]),
        "questions": torch.tensor([[[60, 61], [62, 63]]]),
        "answers": torch.tensor([[[70, 4, -100], [71, 72, 4]]]),
    }
    layers = beginning(facts)
    for k in range(2):
        layers = compose(layers, piece(facts, batch["facts"][:, k]))
    expected = answered(facts, layers, batch["other"], batch["questions"], batch["answers"])
    found = made(FactProjector, facts).judge(facts, batch)
    torch.testing.assert_close(found[0], expected[0])


@pytest.mark.parametrize(
    "kind, data",
    [
        (FactProjector, FactQuestions(rows=3, facts=2, longest=6, batches=4, heldout_batches=1)),
        (TokenProjector, ForcedTokens(rows=4, longest=12, batches=4, heldout_batches=1)),
    ],
    ids=["facts", "words"],
)
def test_training_changes_the_projector_alone_and_writes_it(
    kind: type[Projector], data: FactQuestions, facts_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "p.safetensors"
    module = ProjectorTraining(BackboneConfig(str(facts_folder)), kind, str(file))
    before = {name: part.clone() for name, part in module.projector.state_dict().items()}
    trainer = Trainer(
        accelerator="cpu", max_steps=4, max_epochs=-1, logger=False, enable_checkpointing=False,
        enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(module, data)
    scores = {name: value for found in trainer.test(module, data, verbose=False) for name, value in found.items()}
    assert 0 <= scores["test/right"] <= 1
    loaded = load_projector(file, FrozenBackbone(str(facts_folder)), kind)
    changed = [name for name, part in loaded.state_dict().items() if not torch.equal(part, before[name])]
    assert changed and parameters(loaded) <= 5_000_000
    for name, part in loaded.state_dict().items():
        torch.testing.assert_close(part, module.projector.state_dict()[name])


def test_a_file_belongs_to_its_model_and_kind(facts: FrozenBackbone, one_layer: FrozenBackbone, tmp_path: Path) -> None:
    save_projector(tmp_path / "p", made(FactProjector, facts), facts)
    with pytest.raises(ValueError, match="made for the model"):
        load_projector(tmp_path / "p", one_layer, FactProjector)
    with pytest.raises(ValueError, match="expected a TokenProjector"):
        load_projector(tmp_path / "p", facts, TokenProjector)
    with pytest.raises(ValueError, match="no projector that can be saved"):
        save_projector(tmp_path / "q", Projector(), facts)


def test_a_projector_that_is_too_large_is_refused(facts: FrozenBackbone) -> None:
    with pytest.raises(ValueError, match="choose a lower rank"):
        made(TokenProjector, facts, hidden=8192, rank=256)
