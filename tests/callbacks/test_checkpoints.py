"""Checkpoints are whole, the best is the best, and Ctrl-C loses nothing."""

import contextlib
import itertools
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer, seed_everything

from callbacks import AtomicCheckpointIO, Interrupted, RunCheckpoints
from gssr.runs.folders import BEST, LAST, checkpoint_file
from tests.callbacks.training import same, train, trainer_for, weights
from tests.full_disk import FullDisk
from tests.toy import ToyData, ToyNetwork

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


class Unpicklable:
    def __reduce__(self) -> Any:
        raise RuntimeError("the disk is full")


def test_a_write_that_fails_leaves_the_older_file(tmp_path: Path) -> None:
    io, file = AtomicCheckpointIO(), tmp_path / "checkpoints" / "last.ckpt"
    io.save_checkpoint({"step": 1, "weight": torch.arange(1000)}, file)
    with pytest.raises(RuntimeError, match="the disk is full"):
        io.save_checkpoint({"weight": torch.arange(1000), "late": Unpicklable()}, file)
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]
    assert io.load_checkpoint(file)["step"] == 1


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"evil": SimpleNamespace()}, tmp_path / "evil.ckpt")
    with pytest.raises(Exception, match=r"evil.ckpt was not loaded: it asks for types.SimpleNamespace"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt")


def test_a_run_leaves_last_best_and_older_states(tmp_path: Path) -> None:
    trainer = train(tmp_path, checkpoint={"every_n_steps": 4, "keep": 2})
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt", "step-000012.ckpt", "step-000015.ckpt"]
    last = torch.load(checkpoint_file(tmp_path, LAST), weights_only=True)
    assert last["global_step"] == 15
    assert same([*last["state_dict"].values()], weights(trainer))
    assert torch.load(tmp_path / "checkpoints" / "step-000012.ckpt", weights_only=True)["global_step"] == 12


class Scores(ToyNetwork):
    """Logs given validation scores, one an epoch."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = scores

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/open_loop_mae", self.scores[self.current_epoch])


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [
        ("min", (3.0, 1.0, 2.0), 10),
        ("max", (1.0, 2.0, 2.0), 10),
        ("min", (float("nan"), 5.0, 6.0), 10),
        ("min", (0.0, -1.0, -1.5), 15),
    ],
)
def test_best_is_the_best(mode: str, scores: tuple[float, ...], best: int, tmp_path: Path) -> None:
    train(tmp_path, network=Scores(*scores), checkpoint={"mode": mode, "keep": 0})
    assert torch.load(checkpoint_file(tmp_path, BEST), weights_only=True)["global_step"] == best


class TwoScores(Scores):
    """Logs a second score, too, from the second epoch on where the first is None."""

    def __init__(self, scores: tuple[float, ...], texts: tuple[float | None, ...]) -> None:
        super().__init__(*scores)
        self.texts = texts

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        if (cost := self.texts[self.current_epoch]) is not None:
            self.log("val/loss_text", cost)


@pytest.mark.parametrize(
    ("scores", "texts", "best"),
    [
        pytest.param((0.5, 0.3392, 0.3420), (1.1, 0.984, 0.910), 15, id="noise of one against progress of the other"),
        pytest.param((0.5, 0.3392, 0.45), (1.1, 0.984, 0.980), 10, id="progress of one against noise of the other"),
        pytest.param((0.31, 0.30, 0.33), (20.0, 10.0, 9.9), 10, id="a score of another size"),
        pytest.param((3.0, 1.0, 2.0), (None, None, None), 10, id="the second is not measured"),
        pytest.param((3.0, 1.0, 0.5), (1.0, float("nan"), 1.0), 15, id="a score that is no number"),
    ],
)
def test_of_two_scores_each_counts_in_its_own_spread(
    scores: tuple[float, ...], texts: tuple[float | None, ...], best: int, tmp_path: Path
) -> None:
    monitor = ["val/open_loop_mae", "val/loss_text"]
    trainer = train(tmp_path, network=TwoScores(scores, texts), checkpoint={"monitor": monitor, "keep": 0})
    assert torch.load(checkpoint_file(tmp_path, BEST), weights_only=True)["global_step"] == best
    (saver,) = (callback for callback in trainer.callbacks if isinstance(callback, RunCheckpoints))
    assert ("val/loss_text" in saver.when_best(trainer)) == (texts[0] is not None)


def test_best_is_remembered_by_a_resumed_run_and_not_taken_to_another(tmp_path: Path) -> None:
    scores = (1.0, 5.0, 4.0)
    train(tmp_path / "run", network=Scores(*scores), stop=6)
    train(tmp_path / "run", network=Scores(*scores), resume=True)
    assert torch.load(checkpoint_file(tmp_path / "run", BEST), weights_only=True)["global_step"] == 5

    train(tmp_path / "old", network=Scores(*scores), stop=6)
    branch = trainer_for(tmp_path / "branch")
    branch.fit(Scores(*scores), ToyData(), ckpt_path=checkpoint_file(tmp_path / "old", LAST), weights_only=True)
    assert torch.load(checkpoint_file(tmp_path / "branch", BEST), weights_only=True)["global_step"] == 15


def test_a_score_that_is_not_logged_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'val/typo' was not logged by validation; logged were \[.*val/open_loop_mae"):
        train(tmp_path, checkpoint={"monitor": "val/typo"})
    train(tmp_path / "none", checkpoint={"monitor": None, "keep": 0}, max_epochs=1)
    assert [path.name for path in (tmp_path / "none" / "checkpoints").iterdir()] == ["last.ckpt"]


class CtrlC(Callback):
    """Sends this process real signals, in the middle of an optimizer step."""

    def __init__(self, number: int, times: int = 1) -> None:
        self.number, self.times = number, times

    def on_before_optimizer_step(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == 2:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_after_the_step_with_its_state_saved(
    number: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    trainer = trainer_for(tmp_path, [CtrlC(number)])
    with pytest.raises(Interrupted, match="stopped after step 3"):
        trainer.fit(ToyNetwork(), ToyData())
    assert signal.getsignal(number) is before
    assert "Stopping after this step" in capfd.readouterr().err
    saved = torch.load(checkpoint_file(tmp_path, LAST), weights_only=True)
    assert saved["global_step"] == 3
    assert (tmp_path / "metrics.csv").read_text().splitlines()[-1].startswith("2,"), "the last step is not in the log"


class LogOfEverySave(Callback):
    """Keeps what a kill right after a save would leave: the step of the state, and the steps in the log."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.found = folder, []

    def on_save_checkpoint(self, trainer: Trainer, *args: Any) -> None:
        rows = (self.folder / "metrics.csv").read_text().splitlines()[1:]
        self.found.append((trainer.global_step, [int(row.split(",")[0]) for row in rows]))


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 3}, {"accumulate_grad_batches": 2}])
def test_the_log_of_a_state_that_is_saved_lacks_none_of_its_steps(options: dict[str, Any], tmp_path: Path) -> None:
    watch = LogOfEverySave(tmp_path)
    train(tmp_path, callbacks=[watch], checkpoint={"every_n_steps": 1, "keep": 0}, **options)
    assert len(watch.found) >= 9
    for step, logged in watch.found:
        assert logged == list(range(step))


class SignalAt(Callback):
    """Sends this process a real signal in a hook, the n-th time that it is called."""

    def __init__(self, hook: str, count: int) -> None:
        calls = itertools.count(1)

        def call(*args: Any, **kwargs: Any) -> None:
            if next(calls) == count:
                os.kill(os.getpid(), signal.SIGTERM)

        setattr(self, hook, call)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 15 steps that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


# 5 steps an epoch, a validation of 2 batches after each. What is saved when the signal has come: the step of the state.
MOMENTS = {
    "before the first step": ("on_train_epoch_start", 1, None),
    "in the first step": ("on_before_optimizer_step", 1, 1),
    "in the middle of an epoch": ("on_train_batch_end", 8, 8),
    "in the last step of an epoch": ("on_before_optimizer_step", 10, 10),
    "in a validation": ("on_validation_batch_start", 2, 5),
    "while pictures of plans are made": ("on_validation_end", 2, 10),
    "while a checkpoint is written": ("on_save_checkpoint", 1, 5),
    "between two epochs": ("on_train_epoch_end", 1, 6),
    "in the last step of all": ("on_before_optimizer_step", 15, 15),
    "in the last validation": ("on_validation_batch_start", 5, 15),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment_loses_nothing(moment: str, whole: Path, tmp_path: Path) -> None:
    hook, count, saved = MOMENTS[moment]
    seed_everything(0, verbose=False)
    trainer = trainer_for(tmp_path, [SignalAt(hook, count)])
    with contextlib.suppress(Interrupted):
        trainer.fit(ToyNetwork(), datamodule=ToyData())
    last = checkpoint_file(tmp_path, LAST)
    assert (torch.load(last, weights_only=True)["global_step"] if last.exists() else None) == saved
    train(tmp_path, resume=saved is not None)
    expected = torch.load(checkpoint_file(whole, LAST), weights_only=True)
    reached = torch.load(last, weights_only=True)
    assert same([*reached["state_dict"].values()], [*expected["state_dict"].values()])
    assert (tmp_path / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def test_a_second_ctrl_c_ends_training_at_once(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path, [CtrlC(signal.SIGINT, times=2)])
    with pytest.raises(SystemExit):
        trainer.fit(ToyNetwork(), ToyData())
    assert trainer.interrupted
    assert trainer.global_step == 2


def test_a_second_ctrl_c_while_a_checkpoint_is_written_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = itertools.count(1)

    def interrupted(descriptor: int) -> None:
        if next(count) == 3:  # the third file: the draft is written and has not taken its name
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("gssr.files.os.fsync", interrupted)
    trainer = trainer_for(tmp_path, checkpoint={"every_n_steps": 1, "keep": 0}, logger=False)
    with pytest.raises(SystemExit):
        trainer.fit(ToyNetwork(), ToyData())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    assert torch.load(checkpoint_file(tmp_path, LAST), weights_only=True)["global_step"] == 2


def test_a_second_sigterm_is_the_same_request(tmp_path: Path) -> None:
    """Schedulers send it to a process and to its group."""
    trainer = trainer_for(tmp_path, [CtrlC(signal.SIGTERM, times=2)])
    with pytest.raises(Interrupted) as stopped:
        trainer.fit(ToyNetwork(), ToyData())
    assert stopped.value.signal == signal.SIGTERM
    assert torch.load(checkpoint_file(tmp_path, LAST), weights_only=True)["global_step"] == 3


def test_a_full_disk_leaves_the_older_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io, file = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, file)
    FullDisk(monkeypatch)
    with pytest.raises(OSError, match="No space left on device"):
        io.save_checkpoint({"step": 2, "weight": torch.zeros(1000)}, file)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert io.load_checkpoint(file)["step"] == 1


def test_a_score_of_what_is_trained_on_does_not_choose_the_best(tmp_path: Path) -> None:
    data = ToyData()
    data.train_through = "val"
    with pytest.raises(
        ValueError, match=r"train_through is val: val/loss scores windows that are .*--checkpoint.monitor null"
    ):
        train(tmp_path / "a", data=data, checkpoint={"monitor": "val/loss"})
    train(tmp_path / "b", data=data, checkpoint={"monitor": None})
    assert checkpoint_file(tmp_path / "b", LAST).exists() and not checkpoint_file(tmp_path / "b", BEST).exists()


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="every_n_steps is 0"):
        RunCheckpoints(every_n_steps=0)
