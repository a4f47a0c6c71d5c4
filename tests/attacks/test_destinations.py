"""Places that cannot be written to, and disks that fill up: told before the work, or in one paragraph, nothing half."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gssr.backbone.frozen
import gssr.runs.trained
from callbacks import PredictionWriter
from callbacks import TestReport as Reporting  # by its own name pytest would take it for a test
from gssr import checkpoint
from gssr.commands import main as command
from gssr.runs.folders import RunError
from gssr.sequences.collate import collate
from gssr.shown import file_name
from tests.evaluation.fakes import NAMES, UNITS, FakeNetwork, series, with_goal
from tests.full_disk import FullDisk
from tests.networks import make_network

pytestmark = pytest.mark.attack


@pytest.fixture(scope="module")
def trained(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = make_network(tiny_folder, latent_dim=4, hidden_dim=8, text_layers=(2,), goal_layer=2, names=["wind"])
    network.world.scaler.fit(torch.tensor([[20.0], [150.0], [60.0]]))
    saved: dict[str, Any] = {"global_step": 3, "state_dict": network.state_dict()}
    saved["hyper_parameters"] = dict(network.hparams)
    network.on_save_checkpoint(saved)
    file = tmp_path_factory.mktemp("run") / "best.ckpt"
    checkpoint.write(saved, file)
    return file


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("time,wind\n2024-01-01,40\n2024-01-02,50\n2024-01-03,60\n")
    return tmp_path


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))


def no_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *args: False)


def link_to_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo("out.pipe")
    os.symlink("out.pipe", "out")


PLACES: dict[str, tuple[Callable[[pytest.MonkeyPatch], Any], str, str]] = {
    "a folder": (lambda patch: os.mkdir("out"), "out", "out'? is a folder; give the name of a file"),
    "a pipe": (lambda patch: os.mkfifo("out"), "out", "is no file that can be replaced"),
    # Never a device of the machine: where the check is missing, root would replace it.
    "a link to a pipe": (link_to_a_pipe, "out", "is no file that can be replaced"),
    "no such folder": (lambda patch: None, "no/where/out", "does not exist; make it first"),
    "below a file": (lambda patch: None, "a.csv/out", "does not exist; make it first"),
    "no room": (no_room, "out", "out cannot be written: it needs about .* and 1 are free"),
    "no rights": (no_rights, "out", "is read-only for you; choose another place"),
}
COMMANDS = {
    "plan --json": ["plan", "--input", "a.csv", "--ckpt_path", "x.ckpt", "--json"],
    "plan --plot": ["plan", "--input", "a.csv", "--ckpt_path", "x.ckpt", "--plot"],
    "state capture --out": ["state", "capture", "--prompt", "A", "--out"],
    "state blend --out": ["state", "blend", "a.csv", "a.csv", "--out"],
    "generate --save": ["generate", "--prompt", "A", "--learn", "a.csv", "--save"],
}


def ended(*line: str) -> int:
    """The exit status, whether the parser of options refuses or the command."""
    try:
        return command.main([*line])
    except SystemExit as stopped:
        assert isinstance(stopped.code, int)
        return stopped.code


@pytest.mark.parametrize("what", PLACES)
@pytest.mark.parametrize("line", COMMANDS)
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    line: str, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, place, message = PLACES[what]

    def begun(*args: Any, **options: Any) -> None:
        pytest.fail("the work was begun")

    monkeypatch.setattr(gssr.runs.trained, "load_trained", begun)
    monkeypatch.setattr(gssr.backbone.frozen.FrozenBackbone, "__init__", begun)
    before = sorted(Path().iterdir())
    with monkeypatch.context() as patch:
        prepare(patch)
        assert ended(*COMMANDS[line], place) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert re.match(f"gssr.*: .*{message}", told)
    assert [path for path in sorted(Path().iterdir()) if path.stem != "out"] == before


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_disk_that_fills_up_leaves_the_older_plan(
    option: str, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = "out.png"
    Path(place).write_text("old")
    line = ["plan", "--input", "a.csv", "--ckpt_path", str(trained), "--samples", "2", "--no-texts", "--horizon", "2"]
    with monkeypatch.context() as patch:
        FullDisk(patch, of=place)
        assert command.main([*line, option, place]) == 2
    assert f"gssr: {place} cannot be written: No space left on device; make room" in capsys.readouterr().err
    assert Path(place).read_text() == "old" and sorted(map(str, Path().iterdir())) == ["a.csv", place]
    assert command.main([*line, option, place]) == 0
    assert Path(place).read_bytes() != b"old"


class Network(FakeNetwork):
    world = SimpleNamespace(scaler=SimpleNamespace(std=torch.ones(2)))
    value_names, value_units = NAMES, UNITS


def predict(folder: Path, breaks: BaseException | None = None) -> None:
    """The hooks of a `predict` of two batches, as Lightning calls them."""
    data = SimpleNamespace(goal_dim=0, value_guides=())
    trainer: Any = SimpleNamespace(datamodule=data, is_global_zero=True, default_root_dir=str(folder))
    writer, network = PredictionWriter(charts=1), Network()
    batch = collate([with_goal(record, 96.0, 112.0, "Become 104") for record in series(2)])
    batch.series = ["s" * 300, *batch.series[1:]]
    plans = network.plan(batch, batch.goal, samples=4), network.plan(batch, [None] * len(batch), samples=4)
    try:
        writer.on_predict_start(trainer, network)
        for number in range(2):
            writer.on_predict_batch_end(trainer, network, plans, batch, number)
            if breaks is not None and number == 1:
                raise breaks
        writer.on_predict_end(trainer, network)
    except BaseException as error:
        writer.on_exception(trainer, network, error)
        raise


@pytest.mark.parametrize("error", [ValueError("late"), KeyboardInterrupt(), SystemExit(1), OSError(28, "No space")])
def test_a_predict_that_breaks_off_leaves_nothing_that_looks_like_a_result(error: BaseException, here: Path) -> None:
    with pytest.raises(type(error)):
        predict(here / "predict", error)
    assert list((here / "predict").iterdir()) == []


def test_a_predict_ends_with_all_lines_and_charts(here: Path) -> None:
    predict(here / "predict")
    names = [path.name for path in (here / "predict").iterdir()]
    assert sorted(names) == [f"fan_0000_{file_name('s' * 300)}.png", "predictions.jsonl"]
    assert len((here / "predict/predictions.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize("of", ["predictions.jsonl", "fan_0000"])
def test_a_disk_that_fills_up_in_predict_leaves_whole_files(
    of: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FullDisk(monkeypatch, of=of)
    with pytest.raises(OSError, match="No space left"):
        predict(here / "predict")
    left = [path.name for path in (here / "predict").iterdir()]
    assert left == ([] if of == "predictions.jsonl" else ["predictions.jsonl"])


@pytest.mark.parametrize("prepare", [no_room, no_rights])
@pytest.mark.parametrize("callback", [PredictionWriter, Reporting])
def test_test_and_predict_ask_for_room_before_the_work(
    callback: type[Any], prepare: Callable[[pytest.MonkeyPatch], None], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer: Any = SimpleNamespace(is_global_zero=True, default_root_dir=str(here))
    prepare(monkeypatch)
    with pytest.raises(RunError, match="cannot be written"):
        getattr(callback(), "on_predict_start" if callback is PredictionWriter else "on_test_start")(trainer, None)
