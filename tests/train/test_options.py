"""Options, data modules and callbacks on the command line are honoured or refused aloud."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from lightning import Callback

import train
from callbacks import OPTIONAL
from gssr.runs import options
from gssr.runs.command_line import RunCLI
from gssr.runs.folders import LAST, checkpoint_file, runs
from tests.datamodules.test_time_mmd import weeks, write
from tests.train.command_line import CONFIG, call, losses, refused

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


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


def test_a_refused_option_of_the_data_is_told_in_one_line() -> None:
    told = refused("fit", "--data", "datamodules.TableSequences", "--data.path", "prices.csv")
    assert told.startswith("train.py: there is no file 'prices.csv'; expected a .csv")
    assert "\n" not in told


def test_dates_that_come_twice_are_told_without_a_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.concat([weeks(60), weeks(60).iloc[[3]]]).sort_values("start_date", kind="stable")
    given = ["--data.path", str(write(here / "mmd", "Health", table)), "--data.domain", "Health", "--data.text", "none"]
    told = refused("fit", "--data", "datamodules.TimeMMD", *given, "--data.same_time", "refuse")
    assert re.fullmatch(
        r"train.py: 1 of 61 rows of \S+ have the same time as another row, such as .*merge such .*", told
    )
    assert "Traceback" not in capsys.readouterr().err and not runs()


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


def on(cli: RunCLI) -> list[str]:
    return [type(callback).__name__ for callback in cli.trainer.callbacks if type(callback) in OPTIONAL.values()]


def test_sections_turn_callbacks_on_in_a_fixed_order_and_null_turns_them_off(here: Path) -> None:
    (here / "toy.yaml").write_text(CONFIG + "gradient_norms:\n  patience: 3\nweight_average:\n  decay: 0.5\n")
    (here / "less.yaml").write_text("weight_average: null\n")
    cli = call("fit", "--weight_average.decay", "0.9", "--trainer.callbacks", "tests.train.test_options.Mine")
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
