"""The command line, with the toy network: runs, resume, and options that are honoured or refused aloud."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import train
from gssr.runs import BEST, LAST, checkpoint_file, runs

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")

CONFIG = """
threads: 1
trainer:
  max_epochs: 2
  accelerator: cpu
  log_every_n_steps: 1
  num_sanity_val_steps: 0
  enable_progress_bar: false
  enable_model_summary: false
model:
  class_path: tests.toy.ToyNetwork
data:
  class_path: tests.toy.ToyData
  init_args:
    batch_size: 5
checkpoint:
  every_n_steps: 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without runs, where the toy's config stands for configs/default.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(CONFIG)
    monkeypatch.setattr(train, "DEFAULT_CONFIG", tmp_path / "toy.yaml")
    monkeypatch.setattr(train, "prepare_cpu", lambda: None)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


def call(*args: str) -> train.RunCLI:
    return train.main([*args])


def refused(*args: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        call(*args)
    return str(stopped.value)


def losses(run: Path) -> dict[int, float]:
    with open(run / "metrics.csv", newline="") as file:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file)}


def test_a_run_has_its_folder_and_a_second_run_another(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("fit")
    call("fit", "--trainer.max_epochs", "1")
    second, first = runs()
    assert first.name.startswith("toydata-")
    assert sorted(losses(first)) == list(range(8))
    assert sorted(losses(second)) == list(range(4))
    names = {path.name.split(".")[0] for path in first.iterdir()}
    assert names == {"checkpoints", "config", "events", "hparams", "metrics"}
    config = yaml.safe_load((first / "config.yaml").read_text())
    assert config["data"]["init_args"]["batch_size"] == 5
    assert set(config) == set(train.SECTIONS)
    said = capsys.readouterr().out
    assert f"the run               {Path('runs') / first.name}" in said
    assert "tensorboard --logdir runs" in said
    assert "train.py fit --ckpt_path last" in said


def test_resume_goes_on_in_the_same_folder_and_an_option_wins(capsys: pytest.CaptureFixture[str]) -> None:
    call("fit", "--trainer.max_epochs", "4")
    whole = runs()[0]
    call("fit", "--run", "mine")
    before = losses(Path("runs/mine"))
    cli = call("fit", "--run", "mine", "--ckpt_path", "last", "--trainer.max_epochs", "4")
    assert cli.trainer.global_step == 16
    assert cli.trainer.current_epoch == 4
    assert len(runs()) == 2
    after = losses(Path("runs/mine"))
    assert after == losses(whole)
    assert before == {step: after[step] for step in before}
    assert yaml.safe_load(Path("runs/mine/config.yaml").read_text())["trainer"]["max_epochs"] == 4
    assert "trainer.max_epochs 2 -> 4" in capsys.readouterr().out


def test_options_of_model_and_data_on_the_command_line_win_over_the_checkpoint() -> None:
    """Lightning itself would put the hyper-parameters in the checkpoint file over them, silently."""
    call("fit")
    more = ["--trainer.max_epochs", "3", "--model.alpha_text", "0.5", "--model.lr", "0.5", "--data.batch_size", "2"]
    for path in ("last", str(checkpoint_file(runs()[0], LAST))):
        cli = call("fit", "--ckpt_path", path, *more)
        assert (cli.model.alpha_text, cli.model.lr, cli.datamodule.batch_size) == (0.5, 0.5, 2)
        assert cli.trainer.optimizers[0].param_groups[0]["initial_lr"] == 0.5
        more[1] = str(int(more[1]) + 1)
    assert cli.trainer.global_step == 8 + 10 + 10


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--model.width", "16"), r"do not fit this network\. Changed since then:\n  model.width 8 -> 16"),
        (("--seed_everything", "1"), "seed_everything 0 -> 1: a resumed run goes on with the random numbers"),
        (("--data.seed", "1"), "data.seed 0 -> 1"),
    ],
)
def test_what_cannot_change_is_refused_and_the_run_is_left_alone(option: tuple[str, ...], message: str) -> None:
    import re

    call("fit")
    run = runs()[0]
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "events" not in path.name}
    assert re.search(message, refused("fit", "--ckpt_path", "last", *option))
    assert all(path.read_bytes() == content for path, content in before.items())


def test_test_and_predict_need_nothing_but_the_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    call("fit", "--model.width", "16", "--data.batch_size", "10")
    run = runs()[0]
    for stage in ("validate", "test", "predict"):
        cli = call(stage, "--ckpt_path", "best")
        assert cli.model.hparams.width == 16
        assert cli.datamodule.batch_size == 10
        saved = torch.load(checkpoint_file(run, BEST), weights_only=True)["state_dict"]
        assert all(torch.equal(value, saved[name]) for name, value in cli.model.state_dict().items())
    assert len(list(run.glob("test-*"))) == 1
    assert len(runs()) == 1
    cli = call("predict", "--run", run.name, "--data.goal", "up")  # --run alone means its best
    assert cli.datamodule.goal == "up"
    assert "data.goal None -> up" in capsys.readouterr().out


def test_an_older_checkpoint_starts_a_run_of_its_own() -> None:
    call("fit")
    old = runs()[0]
    before = (old / "metrics.csv").read_bytes()
    cli = call("fit", "--ckpt_path", str(old / "checkpoints" / "step-000006.ckpt"), "--trainer.max_epochs", "3")
    assert cli.folder != old
    assert cli.trainer.global_step == 12
    assert (old / "metrics.csv").read_bytes() == before
    assert min(losses(cli.folder)) == 6


def test_steps_after_the_last_checkpoint_of_a_killed_run_are_made_again_once() -> None:
    call("fit")
    run = runs()[0]
    expected = (run / "metrics.csv").read_text()
    (run / "checkpoints" / "step-000006.ckpt").rename(checkpoint_file(run, LAST))  # killed at step 8, saved at 6
    call("fit", "--ckpt_path", "last")
    assert (run / "metrics.csv").read_text() == expected


def test_nothing_left_to_do_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    call("fit")
    call("fit", "--ckpt_path", "last")
    assert "Nothing was left to do: raise --trainer.max_epochs" in capsys.readouterr().out


def test_what_is_not_there_is_told_in_one_line() -> None:
    assert "train first: python train.py fit" in refused("fit", "--ckpt_path", "last")
    assert "test needs a trained network: add --ckpt_path best" in refused("test")
    Path("broken.ckpt").write_bytes(b"half a che")
    assert "broken.ckpt cannot be read as a checkpoint" in refused("test", "--ckpt_path", "broken.ckpt")


def test_other_data_by_name_alone() -> None:
    cli = call("fit", "--data", "tests.toy.ToyData", "--data.size", "30", "--trainer.max_epochs", "1")
    assert cli.datamodule.size == 30


def test_a_data_module_with_a_config_of_its_own_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = Path(train.__file__).parent / "configs"
    monkeypatch.setattr(train, "DEFAULT_CONFIG", configs / "default.yaml")
    chosen = {
        "strikes.yaml": (["fit", "--data", "datamodules.Strikes"], ["fit", "--data=Strikes", "--data.horizon", "4"]),
        "time_mmd.yaml": (["fit", "--data", "datamodules.TimeMMD", "--data.path", "x"],),
        "sines.yaml": (["fit", "--trainer.max_epochs", "1", "--data", "datamodules.Sines"],),
        "default.yaml": (
            ["fit"],
            ["fit", "--data", "datamodules.Storms"],
            ["fit", "--data.horizon", "4"],
            ["fit", "--data"],
        ),
    }
    for name, lines in chosen.items():
        assert [train.config_for(args) for args in lines] == [configs / name] * len(lines)


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["--help"], ["fit", "--help"], []):
        with pytest.raises(SystemExit) as stopped:
            call(*args)
        assert stopped.value.code == 0
        said = capsys.readouterr().out
        assert "python train.py fit --config configs/debug.yaml" in said
        assert "--ckpt_path last" in said


def test_an_interrupted_run_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.callbacks.training import StopAfter

    original = train.RunCLI.instantiate_trainer

    def interrupted(self: train.RunCLI, **kwargs: Any) -> Any:
        trainer = original(self, **kwargs)
        trainer.callbacks.insert(0, StopAfter(5))
        return trainer

    monkeypatch.setattr(train.RunCLI, "instantiate_trainer", interrupted)
    with pytest.raises(SystemExit) as stopped:
        call("fit")
    assert stopped.value.code == 130
    said = capsys.readouterr().out
    assert "Training stopped after step 5." in said
    assert "python train.py fit --ckpt_path last" in said
    monkeypatch.undo()
