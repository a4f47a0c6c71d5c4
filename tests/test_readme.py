"""What README and docs say can be done can be done: commands parse, the Python runs, files and links are there."""

import importlib.util
import re
import shlex
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Trainer

from datamodules import Storms
from gssr.commands.main import build_parser
from gssr.network import GoalNetwork
from gssr.runs.command_line import RunCLI
from gssr.runs.folders import CHECKPOINTS, CONFIG
from gssr.runs.options import flat

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("docs/*.md"))}
PAGES["README.md"] = README


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands() -> list[str]:
    """Every command of the README's bash blocks and of the indented lines of the docs, each once."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    starts = ("    python ", "    gssr ")
    lines += [line[4:] for page in PAGES.values() for line in page.splitlines() if line.startswith(starts)]
    parts = [part.strip() for line in lines for part in re.sub(r"\s#.*", "", line).split("&&")]
    return list(dict.fromkeys(part for part in parts if part))


class Parsed(Exception):
    """Ends a command once its options have been read."""


def parse(monkeypatch: pytest.MonkeyPatch, args: list[str]) -> RunCLI:
    """The command line as train.py reads it, up to where it would build network and data."""
    found: list[RunCLI] = []

    def stop(cli: RunCLI) -> None:
        found.append(cli)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(RunCLI, "before_instantiate_classes", stop)
        patch.setattr(RunCLI, "_set_seed", lambda cli: None)
        with pytest.raises(Parsed):
            RunCLI(args)
    return found[0]


def told(cli: RunCLI) -> dict[str, Any]:
    """The options as they will be used, by the names that a user types."""
    return {key.replace(".init_args", ""): value for key, value in flat(yaml.safe_load(cli.options_as_yaml())).items()}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the configs and a run of the main job, as the user's checkout has them; we are in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    run = tmp_path / "runs" / "storms-20250131-142501"
    (run / CHECKPOINTS).mkdir(parents=True)
    for name in ("last", "best"):
        torch.save({"global_step": 400}, run / CHECKPOINTS / f"{name}.ckpt")
    (run / CONFIG).write_text(parse(monkeypatch, ["fit"]).options_as_yaml(), encoding="utf-8")
    return tmp_path


def test_every_train_command_parses_and_its_options_arrive(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [shlex.split(line)[2:] for line in commands() if line.startswith("python train.py")]
    assert ["fit"] in lines and ["test", "--ckpt_path", "best"] in lines
    assert {"fit", "test", "predict"} <= {args[0] for args in lines}
    for args in lines:
        cli = parse(monkeypatch, args)
        options = dict(zip(args[1::2], args[2::2], strict=True))
        config = told(cli)
        for name, value in options.items():
            key = f"{name[2:]}.class_path" if name in ("--data", "--model") else name[2:]
            if name not in ("--config", "--ckpt_path", "--run"):
                assert config[key] == yaml.safe_load(value) or str(config[key]) == value, args
        assert (cli.start.found is not None) == ("--ckpt_path" in options)
        assert "--config" not in options or Path(options["--config"]).is_file()


def test_options_named_in_the_text_exist(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = [shlex.split(found) for found in re.findall(r"`(--[\w.]+(?: [^`]+)?)`", README)]
    given = [
        part
        for option in named
        if len(option) == 2 and "." in option[0] and ".help" not in option[0]
        for part in option
    ]
    config = told(parse(monkeypatch, ["fit", *given]))
    assert all(str(config[name[2:]]) == value for name, value in zip(given[::2], given[1::2], strict=True))
    for name, *_ in named:
        assert name[2:] in config or name in ("--run", "--config", "--ckpt_path", "--data") or ".help" in name, name


def test_other_commands_name_what_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    scripts = {script.name for script in entry_points(group="console_scripts")}
    others = [shlex.split(line) for line in commands() if not line.startswith("python train.py")]
    assert ["pip", "install", "-e", ".[test]"] in others and ["pytest"] in others
    for program, *args in others:
        if program == "pip":
            assert set(re.findall(r"\[(\w+)\]", " ".join(args))) <= set(project["optional-dependencies"])
        elif program == "python":
            assert args[0] == "-m" and importlib.util.find_spec(args[1]) is not None, args
        elif program in project["scripts"]:
            assert callable(build_parser().parse_args(args).run), args
        else:
            assert program in scripts, program


def test_the_python_of_the_readme_runs(place: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = GoalNetwork(
        str(tiny_folder), latent_dim=4, hidden_dim=16, text_layers=(2,), goal_layer=2,
        value_names=list(Storms.value_names), value_units=list(Storms.value_units), value_resolution=list(Storms.value_resolution),
    )  # fmt: skip
    network.scaler.mean.copy_(torch.tensor([50.0, 990.0, 27.0, -62.0]))
    network.scaler.std.copy_(torch.tensor([25.0, 20.0, 9.0, 20.0]))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(network)
    trainer.save_checkpoint(place / "runs" / "storms-20250131-142501" / CHECKPOINTS / "best.ckpt")

    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) == 10
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    plan, history = names["plan"], names["history"]
    assert history.series == ["Ian 2022"] and history.context.tolist() == [8]
    assert plan.mean.shape == (1, 8, 4) and torch.isfinite(plan.mean).all()
    assert len(plan.text[0]) == 8
    expected = network.plan(history, history.goal).mean  # the same network, never saved
    assert torch.equal(plan.mean, expected)
    assert "tensor(" in capsys.readouterr().out


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_and_files_are_there(page: str) -> None:
    text, folder = PAGES[page], (ROOT / page).parent
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert link.startswith("http") or (folder / link).exists(), f"{page} links to {link}"
    rooms = ("gssr", "datamodules", "callbacks", "configs", "docs", "benchmarks", "tests")
    for name in re.findall(rf"`((?:{'|'.join(rooms)})/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{page} names {name}"
    tree = blocks("", README.partition("## Where things are")[2])[0]
    for line in tree.splitlines():
        assert (ROOT / line.split()[0]).exists(), line


@pytest.mark.parametrize("page", sorted(PAGES))
def test_no_figure_is_left_to_be_filled_in(page: str) -> None:
    assert re.findall(r"\{\{\w+\}\}", PAGES[page]) == []
