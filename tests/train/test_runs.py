"""Runs have folders; they are resumed, told apart, and trained by one process at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import train
from gssr.runs import command_line
from gssr.runs.folders import BEST, CLAIM, LAST, checkpoint_file, runs
from tests.train.command_line import call, losses, refused

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


def test_a_run_has_its_folder_and_a_second_run_another(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("fit")
    call("fit", "--trainer.max_epochs", "1")
    second, first = runs()
    assert first.name.startswith("toydata-")
    assert sorted(losses(first)) == list(range(8))
    assert sorted(losses(second)) == list(range(4))
    names = {path.name.split(".")[0] for path in first.iterdir() if path.name != CLAIM}
    assert names == {"checkpoints", "config", "events", "hparams", "metrics"}
    config = yaml.safe_load((first / "config.yaml").read_text())
    assert config["data"]["init_args"]["batch_size"] == 5
    assert set(config) == set(command_line.SECTIONS)
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


def test_tensorboard_has_each_figure_of_a_step_once_after_a_resume_too() -> None:
    call("fit", "--run", "mine")
    call("fit", "--run", "mine", "--ckpt_path", "last", "--trainer.max_epochs", "4")
    seen = [
        (value.tag, event.step)
        for file in Path("runs/mine").glob("events.*")
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    ]
    assert sorted(step for tag, step in seen if tag == "train/loss") == list(range(16))
    assert len(set(seen)) == len(seen)


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
    assert cli.start.folder != old
    assert cli.trainer.global_step == 12
    assert (old / "metrics.csv").read_bytes() == before
    assert min(losses(cli.start.folder)) == 6


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


def test_a_run_is_not_trained_twice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    call("fit")
    run = runs()[0]
    hold = "import sys; from gssr.runs.folders import *; f = claim(Path(sys.argv[1])); "
    hold += "print('held', flush=True); sys.stdin.read()"
    environment = {**os.environ, "PYTHONPATH": str(Path(train.__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as other:
        assert other.stdout.readline() == b"held\n"
        before = (run / "metrics.csv").read_bytes()
        message = refused("fit", "--ckpt_path", "last", "--trainer.max_epochs", "3")
        assert f"{run} is being trained right now by process {other.pid} on" in message
        assert (run / "metrics.csv").read_bytes() == before
        other.kill()
    assert call("fit", "--ckpt_path", "last", "--trainer.max_epochs", "3").trainer.global_step == 12
