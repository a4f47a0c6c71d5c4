"""The command line, with the toy network: runs, resume, and options that are honoured or refused aloud."""

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Callback
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import train
from callbacks import OPTIONAL
from gssr.network.compatibility import CheckpointMismatch
from gssr.runs import class_paths, command_line, options
from gssr.runs.command_line import RunCLI
from gssr.runs.folders import BEST, CLAIM, LAST, checkpoint_file, runs
from tests.full_disk import FullDisk
from tests.toy import ToyData, ToyNetwork

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
    monkeypatch.setattr(options, "DEFAULT_CONFIG", tmp_path / "toy.yaml")
    monkeypatch.setattr(command_line, "prepare_cpu", lambda: None)
    monkeypatch.setattr(class_paths, "PROJECT", (*class_paths.PROJECT, "tests.toy"))
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


def call(*args: str) -> RunCLI:
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


def test_a_refused_option_of_the_data_is_told_in_one_line() -> None:
    told = refused("fit", "--data", "datamodules.TableSequences", "--data.path", "prices.csv")
    assert told.startswith("train.py: there is no file 'prices.csv'; expected a .csv")
    assert "\n" not in told


def test_other_data_by_name_alone() -> None:
    cli = call("fit", "--data", "tests.toy.ToyData", "--data.size", "30", "--trainer.max_epochs", "1")
    assert cli.datamodule.size == 30


def test_a_data_module_brings_its_default_config(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = Path(train.__file__).parent / "configs"
    monkeypatch.setattr(options, "DEFAULT_CONFIG", configs / "default.yaml")
    chosen = {
        "strikes.yaml": (["fit", "--data", "datamodules.Strikes"], ["fit", "--data=Strikes", "--data.horizon", "4"]),
        "time_mmd.yaml": (["fit", "--data", "datamodules.TimeMMD", "--data.path", "x"],),
        "any_table.yaml": (["fit", "--data", "datamodules.TableSequences", "--data.path", "x"],),
        "sines.yaml": (["fit", "--trainer.max_epochs", "1", "--data", "datamodules.Sines"],),
        None: (
            ["fit"],
            ["fit", "--data", "datamodules.Storms"],
            ["fit", "--data", "no.such.Module"],
            ["fit", "--data.horizon", "4"],
            ["fit", "--data"],
            ["fit", "--config", "mine.yaml", "--data", "datamodules.Strikes"],
        ),
    }
    for name, lines in chosen.items():
        expected = [configs / "default.yaml", *([configs / name] if name else [])]
        assert [options.default_configs(args) for args in lines] == [expected] * len(lines)


MINE = """
from tests.toy import ToyData

class Mine(ToyData):
    default_config = "mine.yaml"

class Child(Mine):
    pass
"""


def test_a_data_module_of_the_user_brings_its_default_config(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "my_data.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(here / "mine"))
    assert "Mine.default_config is 'mine.yaml', but there is no file" in refused("fit", "--data", "my_data.Child")
    (here / "mine" / "mine.yaml").write_text("trainer:\n  max_epochs: 1\ndata:\n  class_path: my_data.Child\n")
    cli = call("fit", "--data", "my_data.Child", "--data.batch_size", "10")
    assert (type(cli.datamodule).__name__, cli.trainer.global_step) == ("Child", 2)


# Callbacks that sections of the config turn on.


def on(cli: RunCLI) -> list[str]:
    return [type(callback).__name__ for callback in cli.trainer.callbacks if type(callback) in OPTIONAL.values()]


def test_sections_turn_callbacks_on_in_a_fixed_order_and_null_turns_them_off(here: Path) -> None:
    (here / "toy.yaml").write_text(CONFIG + "gradient_norms:\n  patience: 3\nweight_average:\n  decay: 0.5\n")
    (here / "less.yaml").write_text("weight_average: null\n")
    cli = call("fit", "--weight_average.decay", "0.9", "--trainer.callbacks", "tests.test_train.Mine")
    assert on(cli) == ["WeightAverage", "GradientNormCheck"]
    names = [type(callback).__name__ for callback in cli.trainer.callbacks]
    assert names.index("ResumePosition") < names.index("WeightAverage") < names.index("Mine") < len(names) - 1
    assert names[-1] == "RunCheckpoints"
    average, norms = (c for c in cli.trainer.callbacks if type(c) in OPTIONAL.values())
    assert (average.decay, norms.patience) == (0.9, 3)
    assert on(call("fit", "--config", "less.yaml")) == ["GradientNormCheck"]
    assert on(call("fit", "--config", "less.yaml", "--gradient_norms", "null")) == []
    run = runs()[0]
    assert yaml.safe_load((run / "config.yaml").read_text())["gradient_norms"] is None
    assert on(call("fit", "--ckpt_path", "last", "--trainer.max_epochs", "3")) == []  # as in the run's own config


def test_a_callback_is_off_for_a_model_without_what_it_needs(here: Path) -> None:
    (here / "toy.yaml").write_text(CONFIG + "plan_rollouts:\n  windows: 2\nfree_nats:\n  steps: 2\n")
    assert on(call("fit")) == ["FreeNatsAnnealing"]
    assert yaml.safe_load((runs()[0] / "config.yaml").read_text())["plan_rollouts"] is None


class Mine(Callback):
    """A callback of the user's own."""


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["--help"], ["fit", "--help"], []):
        with pytest.raises(SystemExit) as stopped:
            call(*args)
        assert stopped.value.code == 0
        said = capsys.readouterr().out
        assert "python train.py fit --config configs/debug.yaml" in said
        assert "--ckpt_path last" in said


def test_a_wrong_stage_is_refused_with_those_that_there_are() -> None:
    assert "'fitt' is no stage; expected fit, validate, test, predict" in refused("fitt")


def test_the_general_help_imports_neither_torch_nor_lightning(here: Path) -> None:
    code = "import runpy, sys; sys.argv = ['train.py', '--help']\n"
    code += f"try: runpy.run_path({train.__file__!r}, run_name='__main__')\n"
    code += "finally: print({'torch', 'lightning', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(train.__file__).parent)
    assert done.returncode == 0 and done.stdout.endswith("set()\n"), done.stdout + done.stderr


class At(Callback):
    """Does something in a hook, once."""

    def __init__(self, hook: str, what: Any) -> None:
        def call(*args: Any, **kwargs: Any) -> None:
            setattr(self, hook, lambda *args, **kwargs: None)
            what()

        setattr(self, hook, call)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> list[Callback]:
    """Callbacks that come first in every trainer from now on."""
    callbacks: list[Callback] = []
    original = RunCLI.instantiate_trainer

    def instantiate(self: RunCLI, **kwargs: Any) -> Any:
        trainer = original(self, **kwargs)
        trainer.callbacks[:0] = callbacks
        return trainer

    monkeypatch.setattr(RunCLI, "instantiate_trainer", instantiate)
    return callbacks


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


# A damaged checkpoint, a full disk, another process.


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


# Nothing that is loaded is executed.


class Evil:
    """Creates a file as it is read by a pickle that may do anything."""

    def __reduce__(self) -> Any:
        return os.system, ("touch marker",)


def test_code_in_a_checkpoint_is_refused(here: Path) -> None:
    call("fit")
    run = runs()[0]
    file = checkpoint_file(run, LAST)
    content = torch.load(file, weights_only=True)
    torch.save(content | {"extra": Evil()}, file)
    for stage in ("fit", "test", "predict"):
        message = refused(stage, "--ckpt_path", "last")
        assert "last.ckpt was not loaded: it asks for posix.system, which is no tensor" in message
    torch.save(content | {"hyper_parameters": {"_instantiator": "os.system", "_class_path": "os.system"}}, file)
    with pytest.raises(ValueError, match="instantiator 'os.system' from the checkpoint"):
        ToyNetwork.load_from_checkpoint(file)
    assert not (here / "marker").exists()


def test_a_checkpoint_of_another_network_is_refused_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def mismatch(self: ToyNetwork, checkpoint: dict[str, Any]) -> None:
        raise CheckpointMismatch("this checkpoint is of another network:\n  latent_dim: 16 in the checkpoint, 8 here")

    call("fit")
    monkeypatch.setattr(ToyNetwork, "on_load_checkpoint", mismatch)
    said = refused("test", "--ckpt_path", "best", "--model.lr", "0.5")
    assert (
        "best.ckpt cannot be used: this checkpoint is of another network:\n  latent_dim: 16 in the checkpoint" in said
    )
    assert "Changed since then:\n  model.lr 0.01 -> 0.5" in said


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.depth", "ToyNetwork.*'depth' is not accepted"),
        ("--model.width", "'?width.*int.*many"),
        ("--plan_rollouts.window", "PlanRollouts.*'window' is not accepted"),
        ("--trainr.max_epochs", "--trainr.max_epochs"),
    ],
)
def test_a_wrong_option_is_answered_by_one_line(option: str, message: str) -> None:
    with pytest.raises(SystemExit) as refused:
        train.main(["fit", option, "many"])
    assert re.search(message, str(refused.value.code)) and "\n" not in str(refused.value.code)
    assert not Path("runs").exists()


def test_the_printed_commands_name_classes_of_ones_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "own_data.py").write_text("from tests.toy import ToyData\nclass Mine(ToyData): ...\n")
    sys.path.insert(0, str(here / "mine"))
    call("fit", "--data", "own_data.Mine")
    said = capsys.readouterr().out
    go_on = re.search(r"go on +python train.py (.*)", said)
    assert go_on is not None and go_on[1] == "fit --ckpt_path last --trust own_data.Mine"
    call(*go_on[1].split(), "--trainer.max_epochs", "3")
    assert len(losses(runs()[0])) == 12


def test_threads_spin_briefly_unless_the_user_says_how_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second thread that spins makes training many times slower beside other programs."""
    for policy, spins, expected in ((None, None, "1000"), (None, "5", "5"), ("active", None, None)):
        for name, value in (("OMP_WAIT_POLICY", policy), ("GOMP_SPINCOUNT", spins)):
            monkeypatch.setenv(name, value or "")
            if value is None:
                monkeypatch.delenv(name)
        with pytest.raises(SystemExit):
            train.main(["fit", "--no_such_option", "1"])
        assert os.environ.get("GOMP_SPINCOUNT") == expected
