"""README and docs are true: commands parse, options and files exist, links lead somewhere, the Python runs."""

import importlib.util
import re
import shlex
import sys
import tomllib
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from lightning import Trainer

from datamodules import Storms
from gssr.commands.main import build_parser
from gssr.network.steering import SteeredPrior
from gssr.runs.command_line import RunCLI
from gssr.runs.folders import CHECKPOINTS, CONFIG
from gssr.runs.options import flat as flat_options
from tests.networks import make_network

ROOT = Path(__file__).resolve().parents[1]
FILES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*.md", "datamodules/**/*.md"]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for pattern in FILES
    for path in sorted(ROOT.glob(pattern))
}
README = PAGES["README.md"]
# The changelog names options that are gone.
NAMING = [page for page in PAGES if page != "CHANGELOG.md"]
PLACEHOLDER = re.compile(r"[A-Z]+(\.\w+)?$")
# Options of train.py that are read before the others, and of `python train.py --data`.
OWN = ("--config", "--ckpt_path", "--run", "--trust", "--data", "--model")


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every command in a bash block of a page, each once."""
    lines = [line for page in PAGES.values() for block in blocks("bash", page) for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in re.sub(r"\s#.*|^#.*", "", line).split("&&")]
    return list(dict.fromkeys(part for part in parts if part))


TRAIN = [line for line in commands() if line.startswith("python train.py")]
OTHERS = [line for line in commands() if line not in TRAIN]


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


def options_of(cli: RunCLI) -> dict[str, Any]:
    """The options as they will be used, by the names that a user types."""
    flat = {
        key.replace(".init_args", ""): value
        for key, value in flat_options(yaml.safe_load(cli.options_as_yaml())).items()
    }
    return flat | {key.removesuffix(".class_path"): value for key, value in flat.items() if key.endswith("class_path")}


@pytest.fixture(scope="module")
def config_of_main_job() -> str:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(ROOT)
        return parse(monkeypatch, ["fit"]).options_as_yaml()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config_of_main_job: str) -> Path:
    """A folder with the configs and runs of the main job, as the user's checkout has them; we are in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name in ("storms-20250131-142501", "seed0", "storms"):
        run = tmp_path / "runs" / name
        (run / CHECKPOINTS).mkdir(parents=True)
        for checkpoint in ("last", "best"):
            torch.save({"global_step": 400}, run / CHECKPOINTS / f"{checkpoint}.ckpt")
        (run / CONFIG).write_text(config_of_main_job, encoding="utf-8")
    return tmp_path


def test_the_readme_has_the_commands_of_a_first_hour() -> None:
    first = [line for line in commands() if line in README]
    for start in ("pip install -e", "python train.py fit", "pytest", "tensorboard", "gssr plan"):
        assert any(line.startswith(start) for line in first), start
    for line in ("python train.py fit --ckpt_path last", "python train.py test --ckpt_path best"):
        assert line in first
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("line", TRAIN)
def test_a_train_command_parses_and_its_options_arrive(line: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = shlex.split(line)[2:]
    if args[-1] == "--help" or "--model.help" in args:
        with pytest.raises(SystemExit) as end:
            RunCLI(args)
        assert end.value.code == 0
        return
    if "--run" in args and "--ckpt_path" not in args:  # a new run of that name
        args[args.index("--run") + 1] = "new"
    cli = parse(monkeypatch, args)
    options = options_of(cli)
    for name, value in zip(args[1::2], args[2::2], strict=True):
        if name in ("--data", "--model") or name not in OWN:
            given = yaml.safe_load(value)
            assert options[name[2:]] == given or str(options[name[2:]]) == value, (name, options[name[2:]])
    assert (cli.start.checkpoint is not None) == ("--ckpt_path" in args)
    assert all(Path(file).is_file() for name, file in zip(args[1::2], args[2::2], strict=True) if name == "--config")


@pytest.mark.parametrize("line", OTHERS)
def test_another_command_names_what_exists(line: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    scripts = {script.name for script in entry_points(group="console_scripts")} | {
        "ruff",
        "mkdocs",
        "pip-audit",
        ".ci/run",
    }
    program, *args = [word for word in shlex.split(line) if not re.match("[A-Z_]+=", word)]
    if program == "pip":
        assert set(re.findall(r"\[([\w,]+)\]", line.replace(",", "]["))) <= set(project["optional-dependencies"])
    elif program == "python" and args[0] == "-m":
        assert importlib.util.find_spec(args[1]) is not None
    elif program == "python":
        assert (ROOT / args[0]).is_file()
    elif program in project["scripts"]:
        assert callable(build_parser().parse_args(args).run)
    else:
        assert program in scripts


def named_options() -> list[list[str]]:
    """[option] or [option, value] as pages name them in their text: `--data.horizon 4`."""
    found = [option for page in NAMING for option in re.findall(r"`(--[a-z][\w.-]+(?: [^`\n]+)?)`", PAGES[page])]
    return [shlex.split(option)[:2] for option in dict.fromkeys(found)]


@cache
def source() -> str:
    """All Python of commands and benchmarks, which declares the options that are not those of train.py."""
    folders = ("gssr", "benchmarks")
    return "\n".join(file.read_text(encoding="utf-8") for folder in folders for file in ROOT.glob(f"{folder}/**/*.py"))


def test_options_named_in_the_text_exist(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ModuleType("mine")  # the user's file of which CONTRIBUTING speaks
    mine.MyPrior = type("MyPrior", (SteeredPrior,), {"__module__": "mine"})
    monkeypatch.setitem(sys.modules, "mine", mine)
    table = ["--data", "datamodules.TableSequences", "--data.path", "x.csv"]
    bases = [["fit"], ["fit", *table], ["predict", "--ckpt_path", "best"]]
    known = [options_of(parse(monkeypatch, base)) for base in bases]
    wrong = []
    for name, *value in named_options():
        if ".help" in name or name in OWN:
            continue
        # The data module decides which options there are: the first of these that has it.
        base = next((base for base, options in zip(bases, known, strict=True) if name[2:] in options), None)
        if base is None:
            if "." in name or f'"{name}"' not in source():
                wrong.append(name)
        elif value and not PLACEHOLDER.match(value[0]):
            arrived = options_of(parse(monkeypatch, [*base, name, value[0]]))[name[2:]]
            if arrived != yaml.safe_load(value[0]) and str(arrived) != value[0]:
                wrong.append((name, value, arrived))
    assert wrong == []


def test_the_python_of_the_docs_runs(place: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = make_network(tiny_folder, latent_dim=4, hidden_dim=16, text_layers=(2,), goal_layer=2,
        names=list(Storms.value_names), units=list(Storms.value_units), resolution=list(Storms.value_resolution),
    )  # fmt: skip
    network.world.scaler.mean.copy_(torch.tensor([50.0, 990.0, 27.0, -62.0]))
    network.world.scaler.std.copy_(torch.tensor([25.0, 20.0, 9.0, 20.0]))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(network)
    for run in (place / "runs").iterdir():
        trainer.save_checkpoint(run / CHECKPOINTS / "best.ckpt")

    (code,) = blocks("python", PAGES["docs/python.md"])
    names: dict[str, Any] = {}
    exec(compile(code, "docs/python.md", "exec"), names)
    plan, history = names["plan"], names["history"]
    assert history.series == ["Ian 2022"] and history.context.tolist() == [8]
    assert plan.mean.shape == (1, 8, 4) and torch.isfinite(plan.mean).all()
    assert plan.rollouts.sample.shape == (64, 1, 8, 4) and plan.quantiles.shape[:3] == (1, 8, 4)
    assert len(plan.text[0]) == 8
    expected = network.plan(history, history.goal).mean  # the same network, never saved
    assert torch.equal(plan.mean, expected)
    assert "tensor(" in capsys.readouterr().out


@pytest.mark.parametrize("page", [page for page in PAGES if blocks("python", PAGES[page])])
def test_python_of_a_page_compiles_and_imports_what_exists(page: str) -> None:
    for code in blocks("python", PAGES[page]):
        compile(code, page, "exec")
        exec("\n".join(line for line in code.splitlines() if re.match(r"(from|import) ", line)), {})


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings."""
    titles = re.findall(r"^#+ (.*)", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_and_files_are_there(page: str) -> None:
    text, folder = PAGES[page], (ROOT / page).parent
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", text):
        if link.startswith("http"):
            continue
        assert (folder / link).exists(), f"{page} links to {link}"
        if anchor:
            target = (folder / link).resolve() if link else ROOT / page
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page} links to {link}#{anchor}"
    rooms = ("gssr", "datamodules", "callbacks", "configs", "docs", "benchmarks", "tests")
    for name in re.findall(rf"`((?:{'|'.join(rooms)})/[\w./-]*)`", text):
        assert page == "CHANGELOG.md" or (ROOT / name).exists(), f"{page} names {name}"


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_page_begins_with_a_title_and_fits_the_screen(page: str) -> None:
    text = PAGES[page]
    assert text.startswith(("# ", "--8<-- "))
    assert re.findall(r"\{\{\w+\}\}", text) == []
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE).splitlines()
    assert [line for line in prose if len(line) > 120 and not line.startswith(("|", "![", "    "))] == []
