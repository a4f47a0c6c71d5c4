"""Every shipped configuration parses, says what its keys are, and is complete where it claims to be."""

import importlib
import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

import train
from benchmarks.quality import ablations
from benchmarks.quality.sets import data_set
from benchmarks.shapes import SHAPES
from callbacks import OPTIONAL, RunCheckpoints
from gssr.network import GoalNetwork
from gssr.network.options import KINDS
from gssr.runs.options import flat

CONFIGS = sorted((Path(train.__file__).parent / "configs").glob("*.yaml"))
ABLATIONS = sorted((CONFIGS[0].parent / "ablations").glob("*.yaml"))
COMPLETE = ("default.yaml", "pretrain_nano.yaml")


def classes(config: dict[str, Any]) -> list[tuple[type, dict[str, Any]]]:
    parts = [config[section] for section in ("model", "data") if section in config]
    found = []
    for part in parts:
        module, name = part["class_path"].rsplit(".", 1)
        found.append((getattr(importlib.import_module(module), name), part.get("init_args", {})))
    found += [(owner, config[name]) for name, owner in OPTIONAL.items() if config.get(name) is not None]
    return [*found, (RunCheckpoints, config.get("checkpoint", {}))]


def options(owner: type) -> set[str]:
    """The options of a class; those of its base too, where it passes keywords on."""
    parameters = inspect.signature(owner.__init__).parameters
    own = {name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD} - {"self"}
    return own if len(own) == len(parameters) - 1 else own | options(owner.__base__)


def test_there_are_configs() -> None:
    granite = {f"granite-{size}.yaml" for size in SHAPES}
    assert {"default.yaml", "debug.yaml", "pretrain_nano.yaml", *granite} <= {path.name for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_parses(path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["fit", "--config", str(path), "--print_config"])
    assert stopped.value.code == 0
    used = yaml.safe_load(capsys.readouterr().out)
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert used["model"]["class_path"] == given["model"]["class_path"]
    for section in ("trainer", "checkpoint"):
        own = {key: value for key, value in given.get(section, {}).items() if key != "callbacks"}
        assert {key: used[section][key] for key in own} == own


@pytest.mark.parametrize("path", [*CONFIGS, *ABLATIONS], ids=lambda path: path.name)
def test_no_key_is_unknown_to_its_class(path: Path) -> None:
    for owner, given in classes(yaml.safe_load(path.read_text(encoding="utf-8"))):
        known = options(owner)
        assert set(given) <= known, f"{owner.__name__} has no {set(given) - known}"


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.name in COMPLETE], ids=lambda path: path.name)
def test_every_option_of_the_classes_is_there_to_be_seen(path: Path) -> None:
    for owner, given in classes(yaml.safe_load(path.read_text(encoding="utf-8"))):
        wanted = options(owner)
        assert set(given) == wanted, f"{path.name} does not show {sorted(wanted - set(given))} of {owner.__name__}"
        for group in KINDS if owner is GoalNetwork else ():
            wanted = {item.name for item in fields(KINDS[group])}
            assert set(given[group]) == wanted, f"{path.name} does not show {sorted(wanted - set(given[group]))}"


@pytest.mark.parametrize("path", [*CONFIGS, *ABLATIONS], ids=lambda path: path.name)
def test_every_key_is_commented(path: Path) -> None:
    """A comment stands above each key, or above a group of neighbours that it speaks of together."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    for i, line in enumerate(lines):
        match = re.match(r"^( *)(?:- )?(\w+):( .+)?$", line)
        if not match or not match[3] or match[2] == "class_path":
            continue  # the keys inside explain a group, its own comment or docstring a class
        above = i - 1
        while above >= 0 and lines[above].strip() and not lines[above].lstrip().startswith("#"):
            above -= 1
        assert lines[above].lstrip().startswith("#"), f"{path.name}:{i + 1} no comment: {line}"


def test_print_config_of_the_main_job_needs_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["fit", "--print_config"])
    used = yaml.safe_load(capsys.readouterr().out)
    assert used["model"]["class_path"] == "gssr.network.GoalNetwork"
    assert used["data"]["class_path"] == "datamodules.Storms"


@pytest.mark.parametrize("size", SHAPES)
def test_a_granite_config_alone_is_the_main_job_with_another_backbone(
    size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    used = []
    for more in ([], ["--config", str(CONFIGS[0].parent / f"granite-{size}.yaml")]):
        with pytest.raises(SystemExit):
            train.main(["fit", *more, "--print_config"])
        used.append(flat(yaml.safe_load(capsys.readouterr().out)))
    default, granite = used
    start = "model.init_args."
    changed = {key.removeprefix(start): granite[key] for key in default if granite[key] != default[key]}
    assert set(granite) == set(default)
    assert changed.pop("backbone.name") == f"ibm-granite/granite-4.0-h-{size}"
    goal, (text,) = changed.pop("world.goal_layer"), changed.pop("world.text_layers")
    assert 0 < goal < text < SHAPES[size]["num_hidden_layers"]
    assert changed == {}


def test_an_ablation_changes_what_it_says_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    """Read on top of the shorter training; of each data set that has one, the values stay those of its own config."""
    folder = ABLATIONS[0].parent
    assert ablations.names()[1:] == [path.stem for path in ABLATIONS if not path.stem.startswith("short_")]
    for data in (data_set("storms", None), data_set("strikes", None)):
        used = {}
        for name in ablations.names() if data.name == "storms" else ("as_shipped", "posterior_mlp"):
            with pytest.raises(SystemExit):
                train.main(["fit", *data.arguments(ablations.configs(data, name)), "--print_config"])
            used[name] = flat(yaml.safe_load(capsys.readouterr().out))
        base = used.pop("as_shipped")
        assert base["model.init_args.objective.alpha_text"] == 0 and base["model.init_args.backbone.name"] == "nano"
        assert base["data.init_args.horizon"] == 8
        for name, options in used.items():
            given = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
            named = {key for key in flat(given) if given["model"].get("init_args") or key == "model.class_path"}
            named -= {"model.class_path"} if given["model"].get("init_args") else set()
            changed = {key for key in options if options[key] != base.get(key)}
            # A class is named by its path, or by class_path and init_args.
            assert all(any(key.startswith(each) for each in named) for key in changed), name
            assert all(any(key.startswith(each) for key in changed) for each in named if "class_path" not in each), name
    with pytest.raises(ValueError, match="no ablation 'no_rain'"):
        ablations.configs(data, "no_rain")


def test_another_model_class_takes_nothing_over_from_the_default_job(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["fit", "--config", str(CONFIGS[0].parent / "pretrain_nano.yaml"), "--print_config"])
    used = yaml.safe_load(capsys.readouterr().out)
    given = yaml.safe_load((CONFIGS[0].parent / "pretrain_nano.yaml").read_text(encoding="utf-8"))
    assert used["model"] == given["model"]
    assert used["data"] == given["data"]


def test_small_data_stop_early_by_steps_and_may_keep_the_linear_part_alone() -> None:
    """One recipe each for tables and for all domains of Time-MMD, with nothing to choose by hand."""
    assert [file.name for file in CONFIGS if "mmd" in file.name] == ["time_mmd.yaml"]
    for name in ("any_table.yaml", "time_mmd.yaml"):
        config = yaml.safe_load((CONFIGS[0].parent / name).read_text(encoding="utf-8"))
        trainer, world = config["trainer"], config["model"]["init_args"]["world"]
        assert trainer["check_val_every_n_epoch"] is None and trainer["val_check_interval"] <= 30
        assert trainer["max_steps"] <= 600 and config["checkpoint"]["patience"] <= 12
        assert trainer["num_sanity_val_steps"] == -1
        assert world["normalisation"] == "auto" and world["linear_lags"] > 0
        assert config["model"]["init_args"]["objective"]["text_dropout"] > 0
