"""Configs that come from someone else: none runs code, none hangs, each is refused in one paragraph."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Callback, LightningModule, Trainer

import train
from gssr import yaml_files
from gssr.runs import class_paths, command_line, options
from gssr.runs.config import read_run_config
from gssr.runs.folders import RunError, claim

pytestmark = [pytest.mark.attack, pytest.mark.filterwarnings("ignore:.*:UserWarning")]

MARK = "open('marker', 'w').close()"
SHELL = {
    "class_path": "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler",
    "init_args": {
        "entrypoint": "sh", "args": ["-c", "touch marker"], "env": {}, "stdout": None, "stderr": None,
        "local_rank_id": 0, "numa_options": None,
    },
}  # fmt: skip
LOGGED = {"save_dir": "marker", "name": "x"}
# Classes that run a command, write where their arguments say, call what they are given, or that an attacker wrote.
CLASSES: dict[str, Any] = {
    "process": SHELL,
    "import": {"class_path": "payload_of_other.Thing"},
    "word": "payload_of_other.Thing",
    "beside": {"class_path": "runs.evil.payload.Thing"},
    "neighbour": {"class_path": "runs.payload.Thing"},
    "rmtree": {"class_path": "shutil.rmtree", "init_args": {"path": "runs"}},
    "reexport": {"class_path": "gssr.runs.start.shutil.rmtree", "init_args": {"path": "runs"}},
    "reexported module": {
        "class_path": "datamodules.text.build.subprocess.Popen",
        "init_args": {"args": "touch marker"},
    },
    "partial": {"class_path": "functools.partial", "init_args": {"func": "os.system"}},
    "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": LOGGED},
    "board": {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": LOGGED},
    "own log": {"class_path": "callbacks.CsvLog", "init_args": {"folder": "marker"}},
    "saver": {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"dirpath": "marker"}},
    "lambda": {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"setup": "os.system"}},
    "profiler": {"class_path": "lightning.pytorch.profilers.SimpleProfiler", "init_args": {"dirpath": "marker"}},
    "extended": {"class_path": "lightning.pytorch.callbacks.Timer.os.system"},
    "jsonargparse": {"class_path": "jsonargparse.set_parsing_settings", "init_args": {"import_path_denylist": []}},
}
PLACES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "model": lambda spec: {"model": spec},
    "data": lambda spec: {"data": spec},
    "callbacks": lambda spec: {"trainer": {"callbacks": [spec]}},
    "callbacks as text": lambda spec: {"trainer": {"callbacks": yaml.safe_dump([spec], default_flow_style=True)}},
    "logger": lambda spec: {"trainer": {"logger": spec}},
    "plugins": lambda spec: {"trainer": {"plugins": [spec]}},
    "strategy": lambda spec: {"trainer": {"strategy": spec}},
    "profiler": lambda spec: {"trainer": {"profiler": spec}},
    "section": lambda spec: {"free_nats": spec},
    "posterior": lambda spec: {"model": {"init_args": {"world": {"posterior": spec}}}},
    "schedule": lambda spec: {"model": {"init_args": {"steering": {"schedule": spec}}}},
}
GOALS: dict[str, Any] = {
    "goals": {"goals": {"x": SHELL}},
    "goals itself": {"goals": SHELL},
    "deep": {"goals": {"forms": [{"a": [SHELL]}]}},
    "text": {"goals": yaml.safe_dump({"x": SHELL}, default_flow_style=True)},
    "numbers": {"resolution": [SHELL]},
    "path": {"path": SHELL},
}


def merged(tree: Any, change: Any) -> Any:
    if isinstance(tree, dict) and isinstance(change, dict) and "class_path" not in change:
        return tree | {name: merged(tree.get(name), part) for name, part in change.items()}
    return change


@pytest.fixture
def evil(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Path]:
    """Writes a run with a checkpoint and the given changes of its config, beside code of the attacker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "prepare_cpu", lambda: None)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = tmp_path / "runs" / "evil"
    (run / "checkpoints").mkdir(parents=True)
    for place in (tmp_path / "payload_of_other.py", tmp_path / "runs" / "payload.py", run / "payload.py"):
        place.write_text(f"{MARK}\nclass Thing:\n    pass\n")
    (tmp_path / "table.csv").write_text("time,y\n" + "".join(f"{2000 + i}-01-01,{i % 7}\n" for i in range(60)))
    torch.save({"global_step": 1, "state_dict": {}}, run / "checkpoints" / "last.ckpt")
    plain = {
        "model": {
            "class_path": "gssr.network.GoalNetwork",
            "init_args": {
                "backbone": {"name": str(tiny_folder)},
                "world": {"latent_dim": 2, "hidden_dim": 4, "text_layers": [1], "goal_layer": 1},
            },
        },
        "data": {"class_path": "datamodules.TableSequences", "init_args": {"path": "table.csv", "time_column": "time"}},
    }

    def write(change: Any) -> Path:
        text = change if isinstance(change, str) else yaml.safe_dump(merged(plain, change))
        (run / "config.yaml").write_text(text)
        return run

    return write


def refused(capfd: pytest.CaptureFixture[str], *args: str) -> str:
    """What the user reads. No module of an attacker was imported, and nothing was written or removed."""
    begun = time.monotonic()
    with pytest.raises(SystemExit) as stopped:
        train.main([*args])
    assert time.monotonic() - begun < 20
    assert not Path("marker").exists()
    assert Path("runs/evil/config.yaml").exists()
    assert not {"payload_of_other", "runs.payload", "runs.evil.payload", "runs"} & set(sys.modules)
    said = str(stopped.value) + capfd.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("spec", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("place", ["model", "data", "callbacks", "logger"])
def test_no_place_of_a_config_imports_what_is_not_listed(
    place: str, spec: Any, evil: Callable[[Any], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    evil(PLACES[place](spec))
    assert refused(capfd, "predict", "--ckpt_path", "last").startswith("train.py: ")


@pytest.mark.parametrize("spec", [SHELL, CLASSES["import"], CLASSES["reexport"]], ids=["process", "import", "reexport"])
@pytest.mark.parametrize("place", sorted(set(PLACES) - {"model", "data", "callbacks", "logger"}))
def test_no_other_place_either(
    place: str, spec: Any, evil: Callable[[Any], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    evil(PLACES[place](spec))
    assert refused(capfd, "test", "--ckpt_path", "last").startswith("train.py: ")


@pytest.mark.parametrize("change", GOALS.values(), ids=GOALS)
@pytest.mark.parametrize("door", ["run", "config"])
def test_nothing_is_built_where_any_value_is_taken(
    door: str, change: dict[str, Any], evil: Callable[[Any], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    data = {"data": {"class_path": "datamodules.TableSequences", "init_args": {"path": "table.csv"} | change}}
    run = evil({"data": {"init_args": change}})
    if door == "run":
        refused(capfd, "predict", "--ckpt_path", "last")
        return
    Path("mine.yaml").write_text(yaml.safe_dump(data))
    backbone = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["backbone"]["name"]
    refused(capfd, "fit", "--config", "mine.yaml", "--model.backbone.name", backbone, "--model.nothing", "1")


def test_extra_arguments_build_nothing(evil: Callable[[Any], Path], capfd: pytest.CaptureFixture[str]) -> None:
    evil({"model": {"dict_kwargs": {"extra": SHELL}}})
    refused(capfd, "predict", "--ckpt_path", "last")


def test_a_nested_config_is_held_to_the_same_list(
    evil: Callable[[Any], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    for key, content in (("data", SHELL), ("model", SHELL), ("trainer", {"logger": SHELL})):
        evil({key: "nested.yaml"})
        Path("nested.yaml").write_text(yaml.safe_dump(content))
        assert refused(capfd, "predict", "--ckpt_path", "last").startswith("train.py: ")


@pytest.mark.parametrize(
    "change", [{"config": "nested.yaml"}, {"__path__": "nested.yaml"}, {"trust": "payload_of_other"}]
)
def test_a_config_cannot_widen_what_it_may(
    change: dict[str, Any], evil: Callable[[Any], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    Path("nested.yaml").write_text(yaml.safe_dump({"trainer": {"logger": SHELL}}))
    evil(change | {"trainer": {"callbacks": [CLASSES["import"]]}})
    assert refused(capfd, "predict", "--ckpt_path", "last").startswith("train.py: ")


def test_interpolation_is_text(evil: Callable[[Any], Path], capfd: pytest.CaptureFixture[str]) -> None:
    evil({"data": {"init_args": {"path": "${oc.env:HOME}", "time_column": "$(touch marker)"}}})
    assert "${oc.env:HOME}" in refused(capfd, "predict", "--ckpt_path", "last")


def test_what_the_user_names_may_be_used_and_the_refusal_says_how(
    evil: Callable[[Any], Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evil({"trainer": {"callbacks": [{"class_path": "kept.Note"}]}})
    Path("kept.py").write_text(
        "from lightning import Callback\nclass Note(Callback):\n    def __init__(self): open('noted', 'w').close()\n"
    )
    assert "add --trust kept.Note" in refused(capfd, "predict", "--ckpt_path", "last")
    assert not Path("noted").exists()
    monkeypatch.setattr(command_line.RunCLI, "predict", lambda self, **kwargs: None)  # the checkpoint is of no network
    train.main(["predict", "--ckpt_path", "last", "--trust", "kept.Note"])
    assert Path("noted").exists()


@pytest.mark.parametrize("name", ["a b", "../x", "", "x;y", "os.system()"])
def test_trust_takes_import_paths(name: str) -> None:
    with pytest.raises(RunError, match="is no import path"):
        class_paths.allow([], [name])


# What a YAML file may do to its reader.
def _bomb(alias: str, first: str) -> str:
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{i}: &a{i} " + alias.format(",".join([f"*a{i - 1}"] * 9)) for i in range(1, 30)]
    return "\n".join(lines)


YAMLS: dict[str, tuple[str | bytes, str]] = {
    "object": ("a: !!python/object/apply:os.system ['touch marker']", "asks for an object"),
    "name": ("a: !!python/name:os.system", "asks for an object"),
    "own tag": ("a: !include /etc/passwd", "asks for an object"),
    "binary": ("a: !!binary aGVsbG8=", "asks for an object"),
    "set": ("a: !!set {b, c}", "asks for an object"),
    "billion laughs": (_bomb("[{}]", "[x,x,x,x,x,x,x,x,x]"), "more than 100,000 values"),
    "billion merges": (_bomb("{{<<: [{}]}}", "{x: 1}"), "more than 100,000 values"),
    "own alias": ("a: &a [*a]", "inside of what it names"),
    "own alias in a key": ("&a {b: {c: *a}}", "inside of what it names"),
    "unknown alias": ("a: *b", "undefined alias"),
    "3,000 lists": ("a: " + "[" * 3000 + "]" * 3000, "nest"),
    "3,000 dashes": ("- " * 3000, "nested more than 64 deep"),
    "3,000 mappings": ("{a: " * 900 + "1" + "}" * 900, "nested more than 64 deep"),
    "5,000 digits": ("a: " + "9" * 5000, "a number has 5,000 digits"),
    "hexadecimal digits": ("a: 0x" + "f" * 90000, "digits"),
    "sixties": ("a: " + "1:" * 90000 + "1", "digits"),
    "exponent": ("a: 1e" + "9" * 500, "digits"),
    "tagged digits": ("a: !!int '" + "9" * 5000 + "'", "cannot be read"),
    "large": ("a: " + "x" * 2_000_000, "bytes; expected at most"),
    "many values": ("a: [" + "1," * 200_000 + "]", "more than 100,000 values"),
    "twice": ("a: 1\na: 2", "comes twice"),
    "list as key": ("? [a, b]\n: c", "unhashable"),
    "two documents": ("--- a\n--- b", "another document"),
    "NUL": ("a: \x00", "no YAML"),
    "escape": ("a: \x1b[2J", "no YAML"),
    "no UTF-8": (b"a: \xff\xfe", "no UTF-8"),
    "UTF-16": ("a: 1".encode("utf-16"), "no UTF-8"),
    "list": ("[1, 2]", "holds no options"),
    "word": ("hello", "holds no options"),
    "empty": ("", "holds no options"),
    "open bracket": ("a: [1", "no YAML"),
    "merge of a word": ("<<: hello", "expected a mapping"),
}


@pytest.mark.parametrize(("content", "message"), YAMLS.values(), ids=YAMLS)
def test_yaml_is_bounded(content: str | bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    begun = time.monotonic()
    with pytest.raises(RunError, match=message) as error:
        read_run_config(tmp_path)
    assert time.monotonic() - begun < 5
    assert len(str(error.value)) < 600


def test_the_command_line_is_bounded_too(capfd: pytest.CaptureFixture[str], evil: Callable[[Any], Path]) -> None:
    evil({"data": {"init_args": {"goals": _bomb("[{}]", "[x,x,x,x,x,x,x,x,x]")}}})
    refused(capfd, "predict", "--ckpt_path", "last")
    Path("mine.yaml").write_text(YAMLS["billion laughs"][0])
    assert "100,000 values" in refused(capfd, "fit", "--config", "mine.yaml")


def test_yaml_reads_numbers_as_the_command_line_does() -> None:
    text = "{a: 1e-3, b: 2020-01-01, c: 1_000, d: .inf, e: yes, f: null, g: &x [1.5], h: *x}"
    expected = {
        "a": 1e-3,
        "b": "2020-01-01",
        "c": 1000,
        "d": float("inf"),
        "e": True,
        "f": None,
        "g": [1.5],
        "h": [1.5],
    }
    assert yaml_files.load(text) == expected


# Links and devices in a run's folder.
@pytest.mark.parametrize("name", [".claim", "hparams.yaml", "config.yaml", "metrics.csv", "checkpoints/last.ckpt"])
def test_links_in_a_run_are_not_followed(
    name: str, evil: Callable[[Any], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    run = evil({})
    victim = Path("victim").absolute()
    victim.write_bytes((run / name).read_bytes() if (run / name).exists() else b"precious")
    before = victim.read_bytes()
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    for stage in ("fit", "predict"):
        with pytest.raises(SystemExit) as stopped:
            train.main([stage, "--ckpt_path", "last"])
        assert "is a link to" in str(stopped.value)
    with pytest.raises(RunError, match="is a link to"):
        claim(run)
    assert victim.read_bytes() == before


@pytest.mark.parametrize("name", [".claim", "metrics.csv", "checkpoints/best.ckpt"])
def test_a_pipe_in_a_run_does_not_hang(name: str, evil: Callable[[Any], Path]) -> None:
    run = evil({})
    os.mkfifo(run / name)
    with pytest.raises(SystemExit) as stopped:
        train.main(["fit", "--ckpt_path", "last"])
    assert "is neither file nor folder" in str(stopped.value)


def test_the_default_configs_name_listed_classes_only() -> None:
    for file in options.DEFAULT_CONFIG.parent.glob("*.yaml"):
        assert class_paths.not_own(yaml_files.read(file)) == [], file


class _Writes(Callback):
    """Writes where results go."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "written").touch()


def test_a_config_does_not_choose_where_results_are_written(
    evil: Callable[[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line.RunCLI, "predict", lambda self, **kwargs: None)
    for trainer in ({"default_root_dir": "marker"}, {"default_root_dir": "marker", "fast_dev_run": 1}):
        run = evil({"trainer": trainer | {"accelerator": "cpu"}})
        cli = train.main(["predict", "--ckpt_path", "last"])
        _Writes().on_predict_start(cli.trainer, cli.model)
        assert not Path("marker").exists()
        assert [file.resolve() for file in run.rglob("written")]
        shutil.rmtree(run)
        (run / "checkpoints").mkdir(parents=True)
        torch.save({"global_step": 1, "state_dict": {}}, run / "checkpoints" / "last.ckpt")


# Files of others that a user gives as data: what they name is not what he named.
@pytest.mark.parametrize("name", ["goals.yaml", "table.json", "runs/evil/goals.yml"])
@pytest.mark.parametrize("option", ["--data.goals", "--data.path", "--data.goals=", "--model.backbone.name"])
def test_a_file_of_data_does_not_widen_the_list(
    option: str, name: str, evil: Callable[[Any], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    evil({"trainer": {"callbacks": [CLASSES["import"]]}})
    Path(name).write_text(yaml.safe_dump({"x": CLASSES["import"]}))
    given = [f"{option}{name}"] if option.endswith("=") else [option, name]
    assert "payload_of_other.Thing was not imported" in refused(capfd, "predict", "--ckpt_path", "last", *given)


def test_a_file_of_data_in_a_config_of_the_user_does_not_either(
    evil: Callable[[Any], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    evil({"trainer": {"callbacks": [CLASSES["import"]]}})
    Path("goals.yaml").write_text(yaml.safe_dump({"x": CLASSES["import"]}))
    Path("mine.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"goals": "goals.yaml"}}}))
    said = refused(capfd, "predict", "--ckpt_path", "last", "--config", "mine.yaml")
    assert "payload_of_other.Thing was not imported" in said


def test_trust_ends_with_the_call(
    evil: Callable[[Any], Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evil({"trainer": {"callbacks": [{"class_path": "once.Note"}]}})
    Path("once.py").write_text("from lightning import Callback\nclass Note(Callback):\n    pass\n")
    monkeypatch.setattr(command_line.RunCLI, "predict", lambda self, **kwargs: None)
    train.main(["predict", "--ckpt_path", "last", "--trust", "once.Note"])
    assert "once.Note was not imported" in refused(capfd, "predict", "--ckpt_path", "last")
    train.main(["predict", "--ckpt_path", "last", "--trust", "once"])  # the package, after its class was refused


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("divides", "1 / 0"),
        ("no_syntax", "def"),
        ("raises", "raise SystemError"),
        ("imports", "import not_there_at_all"),
    ],
)
def test_a_trusted_module_that_fails_is_named(
    module: str, code: str, evil: Callable[[Any], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    evil({"trainer": {"callbacks": [{"class_path": f"{module}.Note"}]}})
    Path(f"{module}.py").write_text(code + "\n")
    said = refused(capfd, "predict", "--ckpt_path", "last", "--trust", f"{module}.Note")
    assert said.startswith("train.py: ") and module in said


def test_the_refusal_warns_before_it_tells_how(evil: Callable[[Any], Path], capfd: pytest.CaptureFixture[str]) -> None:
    evil({"trainer": {"callbacks": [SHELL]}})
    said = refused(capfd, "predict", "--ckpt_path", "last")
    assert said.index("someone else") < said.index("--trust")
    assert "never" in said.lower() and "Thing" not in said
