"""Training of thoughts around a tiny model that knows the words of the problems."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from lightning import Trainer

from benchmarks.reasoning.measures import bytes_kept, calibration_error
from datamodules.lookups import ThoughtChains
from datamodules.lookups.data import make_tokenizer
from datamodules.lookups.tasks import WORDS
from gssr.backbone import FrozenBackbone
from gssr.backbone.config import BackboneConfig
from gssr.commands.main import main
from gssr.reasoning.evaluation import interval
from gssr.reasoning.saved import load_thinker
from gssr.reasoning.thinker import Memory, Thinker
from gssr.reasoning.thoughts import LinearThought, SoftToken, Thought, WrittenToken
from gssr.reasoning.training import ThoughtTraining
from gssr.training.architectures import PureMamba2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lookups")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        PureMamba2(vocab_size=len(WORDS), hidden_size=32, layers=1, state_size=16).build().save_pretrained(made)
    make_tokenizer().save_pretrained(made)
    return made


def fit(folder: Path, file: Path, thought: Callable[[], Thought] = SoftToken, steps: int = 4) -> ThoughtTraining:
    torch.manual_seed(0)
    module = ThoughtTraining(BackboneConfig(str(folder)), thought, most=12, export=str(file))
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    data = ThoughtChains(("chains",), batch_size=16, rows=16 * steps, heldout_rows=16)
    trainer.fit(module, data)
    module.found = trainer.callback_metrics  # type: ignore[assignment]
    return module


def test_training_lowers_the_loss_and_leaves_the_backbone(folder: Path, tmp_path: Path) -> None:
    before = FrozenBackbone(str(folder)).model.state_dict()
    losses = {}
    for steps in (1, 40):
        module = fit(folder, tmp_path / f"{steps}.safetensors", LinearThought, steps)
        # The first step has no thought yet: only what follows it can be learned.
        batch = next(iter(ThoughtChains(("chains",), batch_size=64, rows=64, seed=5).train_dataloader()))
        second = list(islice(module.thinker.steps(batch["prompt"]), 2))[1]
        losses[steps] = torch.nn.functional.cross_entropy(second.logits, batch["chain"][:, 2]).item()
    assert losses[40] < losses[1] - 0.1
    assert all(torch.equal(part, before[name]) for name, part in module.backbone.model.state_dict().items())
    assert {name.split(".")[0] for name, _ in module.named_parameters()} == {"thought", "halting"}


def test_the_head_has_a_rate_of_its_own_and_a_way_back_without_parameters_trains_it_alone(folder: Path) -> None:
    for thought, rates in ((SoftToken, [3e-3, 2e-2]), (WrittenToken, [2e-2])):
        groups = ThoughtTraining(BackboneConfig(str(folder)), thought).groups()
        assert [group.get("lr", 3e-3) for group in groups] == rates
        assert len({id(p) for group in groups for p in group["params"]}) == sum(len(g["params"]) for g in groups)


def test_validation_counts_the_readout_at_as_many_steps_as_lookups(folder: Path, tmp_path: Path) -> None:
    module = fit(folder, tmp_path / "t.safetensors")
    (loader,) = ThoughtChains(("chains",), batch_size=16, rows=64, heldout_rows=16).val_dataloader()
    (batch,) = loader
    right = []
    for prompt, chain, answer in zip(batch["prompt"], batch["chain"], batch["answer"], strict=True):
        lookups = chain.tolist().index(int(answer))
        step = list(islice(module.thinker.steps(prompt[None]), lookups))[-1]
        right.append(float(step.logits.argmax() == answer))
    assert module.found["val/accuracy_chains"] == pytest.approx(sum(right) / len(right))  # type: ignore[index]


def test_what_is_exported_thinks_the_same_and_the_command_says_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "t.safetensors"
    module = fit(folder, file)
    words = "a = b ; b = 7 ; ? a"
    prompt = torch.tensor([[1, *module.backbone.tokenize([words])[0]]])
    loaded = load_thinker(file, FrozenBackbone(str(folder)))
    expected = module.thinker.readouts(prompt, 3).said[0, -1]
    assert loaded.readouts(prompt, 3).said[0, -1] == expected
    call = ["think", "--backbone", str(folder), "--thoughts", str(file), "--steps", "3", "--prompt"]
    assert main([*call, words]) == 0
    assert capsys.readouterr().out.strip() == module.backbone.tokenizer.decode([expected])
    assert main([*call, "an unknown word"]) == 2
    assert "does not know" in capsys.readouterr().err


def test_the_bundled_model_thinks_without_any_option(capsys: pytest.CaptureFixture[str]) -> None:
    chain = "d = 2 ; b = 7 ; c = d ; e = c ; a = b ; ?"
    for asked, answer, steps in (("a", "7", 2), ("e", "2", 3), ("d", "2", 1)):
        assert main(["think", "--prompt", f"{chain} {asked}", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["answer"] == answer and steps <= found["steps"] <= steps + 1
    assert main(["think", "--prompt", "a = b ; ? a", "--backbone", "nano"]) == 2
    assert "--thoughts is missing" in capsys.readouterr().err


@pytest.mark.parametrize("memory, grows", [("read_only", False), ("write", True), ("write_without_keys", False)])
def test_only_written_keys_grow(tiny: FrozenBackbone, folder: Path, memory: Memory, grows: bool) -> None:
    for backbone, has_keys in ((tiny, True), (FrozenBackbone(str(folder)), False)):
        thought = SoftToken()
        thought.prepare(backbone)
        found = bytes_kept(Thinker(backbone, thought, memory), torch.tensor([[0, 5, 6, 7]]), [1, 4, 20])
        assert (len(set(found.values())) > 1) == (grows and has_keys)


def test_calibration_error_and_interval_by_known_cases() -> None:
    chance, happened = torch.full((100,), 0.8), torch.zeros(100)
    assert calibration_error(chance, happened) == pytest.approx(0.8)
    happened[:80] = 1.0
    assert calibration_error(chance, happened) == pytest.approx(0.0, abs=1e-6)
    low, high = interval(0.5, 100)
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert interval(1.0, 2000)[1] == pytest.approx(1.0)
