"""The commands that are printed do what they say when they are typed, whatever a run is called."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

import train
from gssr.commands.main import main

pytestmark = [pytest.mark.trial, pytest.mark.filterwarnings("ignore")]


def typed(line: str) -> None:
    """Do what a shell does with a line."""
    words = shlex.split(line)
    if words[0] == "gssr":
        assert main(words[1:]) == 0, line
    else:
        assert words[:2] == ["python", "train.py"], line
        train.main(words[2:])


def copied(here: Path, name: str) -> None:
    """The trained run by another name."""
    shutil.copytree(here / "runs/small", f"runs/{name}", ignore=shutil.ignore_patterns("predict-*", "test-*"))


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The commands of the lines that were printed, such as `  plan    python train.py predict ...`."""
    lines = capsys.readouterr().out.splitlines()
    return [line[line.index("python train.py") :] for line in lines if "python train.py" in line]


# As with clones of a hub beside its cache: one name for a run and an export, and names that a shell would split.
@pytest.mark.parametrize("name", ["plain", "it's $HOME; ls", "-x"])
def test_from_training_to_a_fetched_network(
    name: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(here / "days.csv", tmp_path)
    copied(here, name)
    train.main(["fit", f"--run={name}", "--ckpt_path", "last"])
    after_training = printed(capsys)
    assert [line.split()[2] for line in after_training] == ["fit", "test", "predict"]
    if name == "plain":  # the other names differ in nothing but the words
        typed(after_training[1])
    typed(after_training[2])
    assert len(list(Path("runs", name).glob("predict-*/predictions.jsonl"))) == 1

    # An export of that name beside it does not take its place.
    assert main(["push", "--", name, name]) == 0
    typed(after_training[2])
    assert len(list(Path("runs", name).glob("predict-*/predictions.jsonl"))) == 2

    card = Path(name, "README.md").read_text(encoding="utf-8").split("```")[1].splitlines()[1:]
    shutil.rmtree(f"runs/{name}")
    capsys.readouterr()
    for line in card:
        typed(line)
    pulled = printed(capsys)
    assert [line.split()[2] for line in pulled] == ["test", "predict"] and shlex.split(pulled[1]) == shlex.split(
        card[1]
    )
    (file,) = Path("runs", name).glob("predict-*/predictions.jsonl")
    assert json.loads(file.read_text(encoding="utf-8").splitlines()[0])["series"] == "north"


@pytest.mark.parametrize("name", ["it's $HOME; ls"])
def test_a_run_that_is_no_longer_the_newest_is_named(
    name: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(here / "days.csv", tmp_path)
    for run in (name, "newer-20990101-000000"):
        copied(here, run)
    train.main(["fit", "--run", name, "--ckpt_path", "last"])
    typed(printed(capsys)[2])
    assert list(Path("runs", name).glob("predict-*")) and not list(Path("runs").glob("newer*/predict-*"))
