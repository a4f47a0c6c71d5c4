"""Sharing: what was pushed and pulled is the same network to the last bit, and what is no network is refused."""

import argparse
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning import Trainer

import gssr.commands.share as commands
import gssr.network.pretrained as pretrained
import gssr.runs.sharing as sharing
from gssr.network import GoalNetwork
from gssr.runs.folders import CHECKPOINTS, CONFIG, find_checkpoint
from gssr.runs.sharing import pull, push
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record
from tests.conftest import SENTENCES
from tests.networks import make_network, signed

REPORT = "## Storms, test years\n\n### Hits\n\n| | steered |\n|---|---|\n| came true | 93.4 % |\n"


@pytest.fixture(scope="module")
def network(tiny_folder: Path) -> GoalNetwork:
    network = make_network(tiny_folder, latent_dim=4, hidden_dim=16, text_layers=(2,), goal_layer=2,
        names=["wind", "pressure"], units=["kt", ""], resolution=[5.0, 1.0],
    )  # fmt: skip
    network.world.scaler.mean.fill_(50.0)
    network.world.scaler.std.fill_(10.0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return network


@pytest.fixture
def run(network: GoalNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tested run in the working folder."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs") / "storms-20250131-142501"
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(network)
    for name in ("best", "last"):
        trainer.save_checkpoint(folder / CHECKPOINTS / f"{name}.ckpt")
    (folder / CONFIG).write_text("threads: 1\n")
    (folder / "test-20250131-150000").mkdir()
    (folder / "test-20250131-150000" / "storms_test.md").write_text(REPORT)
    return folder


@pytest.fixture
def batch() -> Batch:
    value = np.random.default_rng(0).normal(50, 10, (7, 2)).astype(np.float32)
    silent = np.full(2, np.nan, np.float32)
    return collate([Record("s", np.arange(7) * 6.0, value, [SENTENCES[1]] * 7, SENTENCES[0], silent, silent, 3)])


def same(a: GoalNetwork, b: GoalNetwork, batch: Batch) -> None:
    assert all(torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items())
    for goal in (batch.goal, [None]):
        one, other = a.rollout(batch, goal, samples=5), b.rollout(batch, goal, samples=5)
        assert torch.equal(one.sample, other.sample) and torch.equal(one.mean, other.mean)
    assert a.plan(batch, batch.goal, 2, max_new_tokens=3).text == b.plan(batch, batch.goal, 2, max_new_tokens=3).text


def test_a_round_trip_through_a_folder_changes_no_bit(network: GoalNetwork, run: Path, batch: Batch) -> None:
    assert push("best", "exports/storms") == "exports/storms"
    assert {file.name for file in Path("exports/storms").iterdir()} == {
        "model.safetensors", "config.json", "README.md", "config.yaml",
    }  # fmt: skip
    same(GoalNetwork.from_pretrained("exports/storms"), network, batch)

    folder = pull("exports/storms", "elsewhere")
    same(GoalNetwork.from_pretrained(folder), network, batch)
    same(GoalNetwork.load_from_checkpoint(find_checkpoint("best", str(folder)).checkpoint), network, batch)

    push(str(folder), "again")  # what was pulled can be shared further
    for name in ("model.safetensors", "config.yaml"):
        assert Path("again", name).read_bytes() == Path("exports/storms", name).read_bytes()
    assert json.loads(Path("again/config.json").read_text()) == json.loads(
        Path("exports/storms/config.json").read_text()
    )


def test_a_run_and_a_path_name_a_checkpoint_too(run: Path) -> None:
    shutil.copytree(run, "runs/other")
    for i, which in enumerate([run.name, str(run), str(run / CHECKPOINTS / "best.ckpt")]):
        push(which, f"./out/{i}")
    push("last", "./out/3", run="other")
    contents = {Path(f"out/{i}/model.safetensors").read_bytes() for i in range(4)}
    assert len(contents) == 1


def test_pull_makes_a_run_of_it(run: Path) -> None:
    push("best", "exports/calm")
    folder = pull("exports/calm")
    assert folder == Path("runs/calm")
    assert find_checkpoint("best", "calm").run == folder
    with pytest.raises(ValueError, match="runs/other-thing holds something else; give a new one"):
        Path("runs/other-thing").mkdir()
        Path("runs/other-thing/notes.txt").touch()
        pull("exports/calm", "runs/other-thing")
    with pytest.raises(ValueError, match="holds something else"):
        push("best", "runs/other-thing")
    push("best", "exports/calm")  # a new version of it


def test_the_card_says_what_it_is_and_how_it_did(run: Path, tiny_folder: Path) -> None:
    push("best", "exports/storms")
    card = Path("exports/storms/README.md").read_text()
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "gssr"
    assert "values: wind (kt), pressure" in text
    assert f"`{tiny_folder}` (fingerprint" in text
    assert "### Storms, test years" in text and "| came true | 93.4 % |" in text
    assert 'GoalNetwork.from_pretrained("exports/storms")' in text.replace("'", '"')


def test_a_table_of_another_checkpoint_is_left_out(run: Path) -> None:
    push("last", "exports/last")
    assert "93.4" not in Path("exports/last/README.md").read_text()
    report = run / "test-20250131-150000" / "storms_test.md"
    before = (run / CHECKPOINTS / "best.ckpt").stat().st_mtime - 100
    os.utime(report, (before, before))  # training went on after it
    push("best", "exports/best")
    card = Path("exports/best/README.md").read_text()
    assert "93.4" not in card and "This checkpoint was not tested." in card


def test_another_backbone_is_refused_and_the_same_elsewhere_is_not(
    network: GoalNetwork, run: Path, tiny_folder: Path, batch: Batch
) -> None:
    push("best", "out")
    moved = shutil.copytree(tiny_folder, "moved")
    same(GoalNetwork.from_pretrained("out", backbone={"name": str(moved)}), network, batch)
    with pytest.raises(ValueError, match=r"the backbone: .* in the checkpoint, 'nano' \(fingerprint"):
        GoalNetwork.from_pretrained("out", backbone={"name": "nano"})
    with pytest.raises(ValueError, match="latent_dim: 4 in the checkpoint, 8 here"):
        GoalNetwork.from_pretrained("out", world={"latent_dim": 8})


def edited(**values: Any) -> None:
    content = json.loads(Path("out/config.json").read_text())
    for name, value in values.items():
        options = content["hyper_parameters"]
        options[name] = options[name] | value if isinstance(value, dict) else value
    Path("out/config.json").write_text(json.dumps(signed(content)))


DAMAGES = {
    "no weights": (lambda: Path("out/model.safetensors").unlink(), "there is no model.safetensors"),
    "weights cut": (
        lambda: Path("out/model.safetensors").write_bytes(b"\x08"),
        "is damaged: model.safetensors is not",
    ),
    "settings cut": (lambda: Path("out/config.json").write_text("{"), "is damaged"),
    "other settings": (lambda: Path("out/config.json").write_text("[1]"), "does not describe a goal network"),
    "a later version": (lambda: edited(wings=2), "was written by gssr .*; wings is not known here"),
    "other widths": (
        lambda: edited(world={"hidden_dim": 24}),
        "this checkpoint is of another network:\n  world.hidden_dim: 16 in the checkpoint, 24 here",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_damaged_is_refused(run: Path, what: str) -> None:
    push("best", "out")
    damage, message = DAMAGES[what]
    damage()
    with pytest.raises(ValueError, match=message):
        GoalNetwork.from_pretrained("out")


def test_what_is_no_network_is_refused(run: Path) -> None:
    with pytest.raises(ValueError, match="no such file; expected last, best or the path of a checkpoint"):
        push("runs/none", "out")
    torch.save({"state_dict": {}, "global_step": 1}, "other.ckpt")
    with pytest.raises(ValueError, match="other.ckpt: this is no checkpoint of a goal network"):
        push("other.ckpt", "out")
    with pytest.raises(ValueError, match="holds no shared goal network: there is no config.json and no model.safeten"):
        pull("./nothing", "out")
    assert not Path("out").exists()


class Touch:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("was run"),)


def test_a_hostile_checkpoint_is_not_run(run: Path) -> None:
    Path("bad.ckpt").write_bytes(pickle.dumps(Touch()))
    with pytest.raises(ValueError, match="bad.ckpt cannot be read as a checkpoint"):
        push("bad.ckpt", "out")
    torch.save(Touch(), "bad.ckpt")
    with pytest.raises(ValueError, match="bad.ckpt was not loaded: it asks for"):
        push("bad.ckpt", "out")
    assert not Path("was run").exists()


# ---------------------------------------------------------------------- the hub


class FakeHub:
    """Keeps what was uploaded in a folder; stands for the client's calls."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, {}

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.made[repo_id] = private

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        shutil.copytree(folder_path, self.folder / repo_id)

    def snapshot_download(self, repo_id: str, revision: str | None, local_files_only: bool, allow_patterns: list[str]):
        if repo_id not in self.made:
            raise OSError(f"404 for {repo_id}\nRequest ID")
        assert set(allow_patterns) == {"model.safetensors", "config.json", "README.md", "config.yaml"}
        return str(self.folder / repo_id)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(sharing, "HfApi", lambda: fake)
    monkeypatch.setattr(pretrained, "snapshot_download", fake.snapshot_download)
    return fake


def test_to_the_hub_and_back(network: GoalNetwork, run: Path, hub: FakeHub, tiny_folder: Path, batch: Batch) -> None:
    assert push("best", "someone/storms", hub=True, private=True) == "https://huggingface.co/someone/storms"
    assert hub.made == {"someone/storms": True}
    assert not Path("someone").exists()
    settings = (hub.folder / "someone/storms/config.json").read_text()
    assert str(tiny_folder) not in settings and tiny_folder.name in settings  # where it lay is nobody's business
    same(GoalNetwork.from_pretrained("someone/storms", backbone={"name": str(tiny_folder)}), network, batch)
    folder = pull("someone/storms")
    assert folder == Path("runs/storms")
    same(GoalNetwork.from_pretrained(folder, backbone={"name": str(tiny_folder)}), network, batch)


def test_a_hub_that_does_not_answer(run: Path, monkeypatch: pytest.MonkeyPatch, hub: FakeHub) -> None:
    with pytest.raises(ValueError, match=r"'someone/else' could not be fetched from the hub: 404 for someone/else\n"):
        pull("someone/else")

    def refused(*args: object, **options: object) -> None:
        raise OSError("401 Unauthorized")

    monkeypatch.setattr(hub, "create_repo", refused)
    with pytest.raises(ValueError, match=r"the hub refused 'someone/storms': 401 Unauthorized\nexpected owner/name"):
        push("best", "someone/storms", hub=True)


@pytest.mark.parametrize(
    ("place", "is_hub"),
    [("someone/storms", True), ("./someone/storms", False), ("/a/b", False), ("storms", False), ("a/b/c", False),
     (Path("someone/storms"), False), ("../a", False), ("runs/storms-20250131-142501", False)],
)  # fmt: skip
def test_what_is_a_hub_id(run: Path, place: str | Path, is_hub: bool) -> None:
    assert pretrained.is_hub_id(place) == is_hub


def test_the_commands(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    commands.add_commands(parser.add_subparsers())
    for line in ("push best exports/storms", f"push last exports/b --run {run.name}", "pull exports/storms mine"):
        options = parser.parse_args(line.split())
        assert options.run(options) is None
    said = capsys.readouterr().out
    assert "pushed: exports/storms" in said and "python train.py test --run mine" in said
    assert Path("exports/b/model.safetensors").exists() and Path("mine/checkpoints/best.ckpt").exists()
