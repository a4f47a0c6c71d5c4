"""However training ends, it says what happened, what to use and how to go on."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback

from gssr.runs.folders import BEST, LAST, checkpoint_file, runs
from tests.full_disk import FullDisk
from tests.toy import ToyData
from tests.train.command_line import call, losses, refused

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


class At(Callback):
    """Does something in a hook, once."""

    def __init__(self, hook: str, what: Any) -> None:
        def call(*args: Any, **kwargs: Any) -> None:
            setattr(self, hook, lambda *args, **kwargs: None)
            what()

        setattr(self, hook, call)


def test_an_interrupted_run_says_how_to_go_on(capsys: pytest.CaptureFixture[str], added: list[Callback]) -> None:
    from tests.callbacks.training import StopAfter

    added.append(StopAfter(5))
    with pytest.raises(SystemExit) as stopped:
        call("fit")
    assert stopped.value.code == 130
    said = capsys.readouterr().out
    assert "Training stopped after step 5." in said
    assert "python train.py fit --ckpt_path last\n" in said


def test_a_monitored_score_of_what_is_trained_on_is_refused_before_there_is_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ToyData, "train_through", "val", raising=False)
    assert "data.train_through is val" in refused("fit")
    assert runs() == []


def test_the_end_says_which_pass_was_best_and_what_to_use(capsys: pytest.CaptureFixture[str]) -> None:
    cli = call("fit", "--trainer.max_epochs", "3")
    said = capsys.readouterr().out
    best = torch.load(checkpoint_file(runs()[0], BEST), weights_only=True)
    passes = best["epoch"] + 1
    assert best["global_step"] == passes * cli.trainer.num_training_batches
    assert f"best                  after step {best['global_step']} (pass {passes}): val/" in said
    assert "python train.py test --ckpt_path best\n" in said
    call("fit", "--checkpoint.monitor", "null")
    said = capsys.readouterr().out
    assert "pass" not in said and "python train.py test --ckpt_path last\n" in said


def test_a_run_that_gets_no_better_ends_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    cli = call("fit", "--trainer.max_epochs", "9", "--checkpoint.patience", "1", "--model.lr", "0.0")
    said = capsys.readouterr().out
    assert cli.trainer.global_step == 2 * cli.trainer.num_training_batches
    assert "steps, then ended: val/open_loop_mae was not better in 1 validations (raise --checkpoint.patience" in said
    call("fit", "--ckpt_path", "last")
    said = capsys.readouterr().out
    assert "Nothing was left to do" in said and "then ended: val/open_loop_mae" in said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_sanity_check_start", "on_train_start"])
def test_a_run_stopped_before_its_first_step_begins_anew(
    number: int, code: int, hook: str, capsys: pytest.CaptureFixture[str], added: list[Callback]
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    added.append(At(hook, lambda: os.kill(os.getpid(), number)))
    with pytest.raises(SystemExit) as stopped:
        call("fit", "--data.batch_size", "10", "--trainer.num_sanity_val_steps", "1")
    assert stopped.value.code == code
    assert (
        "go on                 python train.py fit --ckpt_path last (anew: nothing is saved yet)"
        in capsys.readouterr().out
    )
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    added.clear()
    cli = call("fit", "--ckpt_path", "last")
    assert len(runs()) == 1 and cli.start.folder == runs()[0]
    assert (cli.datamodule.batch_size, cli.trainer.global_step) == (10, 4)
    assert sorted(losses(runs()[0])) == list(range(4))
    assert f"Beginning {runs()[0]} anew: it was stopped before its first checkpoint" in capsys.readouterr().out


def test_the_run_that_was_stopped_is_meant_not_the_one_before_it(added: list[Callback]) -> None:
    call("fit")
    added.append(At("on_fit_start", lambda: os.kill(os.getpid(), signal.SIGINT)))
    with pytest.raises(SystemExit):
        call("fit", "--run", "mine")
    added.clear()
    assert call("test", "--ckpt_path", "last").start.run != Path("runs/mine")  # there is nothing to test in it
    assert call("fit", "--ckpt_path", "last").start.folder == Path("runs/mine")


def test_a_run_that_never_could_begin_leaves_no_folder(added: list[Callback]) -> None:
    def fail() -> None:
        raise ValueError("no such column")

    added.append(At("on_fit_start", fail))
    with pytest.raises(ValueError, match="no such column"):
        call("fit", "--run", "mine")
    assert runs() == []


def test_a_last_that_is_cut_short_is_stood_in_for_by_the_newest_whole_state(capsys: pytest.CaptureFixture[str]) -> None:
    call("fit")
    run = runs()[0]
    expected, log = torch.load(checkpoint_file(run, LAST), weights_only=True), (run / "metrics.csv").read_text()
    for name in ("last.ckpt", "step-000008.ckpt"):  # one file with two names, as a damaged disk would have it
        os.truncate(run / "checkpoints" / name, 3000)
    (run / "checkpoints" / "best.ckpt").unlink()
    assert "the newest readable one of its run is --ckpt_path" in refused("test", "--ckpt_path", "last")
    cli = call("fit", "--ckpt_path", "last")
    said = capsys.readouterr().out
    assert "last.ckpt cannot be read as a checkpoint" in said
    assert "step-000006.ckpt instead, of step 6, the newest that can be read" in said
    assert cli.start.folder == run and cli.trainer.global_step == 8
    again = torch.load(checkpoint_file(run, LAST), weights_only=True)
    assert all(torch.equal(value, again["state_dict"][name]) for name, value in expected["state_dict"].items())
    assert (run / "metrics.csv").read_text() == log
    for file in (run / "checkpoints").iterdir():
        os.truncate(file, 3000)
    assert f"no other checkpoint of {run} can be read" in refused("fit", "--ckpt_path", "last")


def test_a_full_disk_ends_training_cleanly_with_every_older_state(
    added: list[Callback], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("fit", "--trainer.max_epochs", "4")
    whole = losses(runs()[0])
    run = Path("runs/mine")
    disk = FullDisk(monkeypatch, of=None)
    added.append(At("on_train_epoch_end", lambda: setattr(disk, "of", "last.ckpt")))
    message = refused("fit", "--run", "mine", "--trainer.max_epochs", "4")
    assert re.search(r"the disk is full: .*No space left on device.*make room, then go on as shown above", message)
    assert torch.load(checkpoint_file(run, LAST), weights_only=True)["global_step"] == 3
    assert not list(run.rglob("*.tmp"))
    added.clear()
    disk.of = None
    call("fit", "--ckpt_path", "last", "--run", "mine")
    assert losses(run) == whole


def test_a_full_disk_ends_a_test_with_a_message_and_no_result(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("fit", "--run", "mine")
    disk = FullDisk(monkeypatch, of="metrics.csv")
    message = refused("test", "--run", "mine")
    assert re.search(r"^train.py: the disk is full: .*No space left .*Make room, then start it again$", message)
    assert [path.name for path in Path("runs/mine").glob("test-*/*")] == ["hparams.yaml"]
    disk.of = None
    call("test", "--run", "mine")


def test_a_log_that_cannot_be_written_ends_training_cleanly(monkeypatch: pytest.MonkeyPatch) -> None:
    call("fit", "--trainer.max_epochs", "4")
    log = (runs()[0] / "metrics.csv").read_text()
    count = iter(range(100))

    def full(file: Any, *args: Any, **kwargs: Any) -> Any:
        if next(count) == 9:
            with open(file, "ab") as torn:
                torn.write(b"9,1,0.5")
            raise OSError(28, "No space left on device", str(file))
        return open(file, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("callbacks.csv_log.open", full, raising=False)
        assert "the disk is full: [Errno 28]" in refused("fit", "--run", "mine", "--trainer.max_epochs", "4")
    call("fit", "--ckpt_path", "last", "--run", "mine")
    assert Path("runs/mine/metrics.csv").read_text() == log
