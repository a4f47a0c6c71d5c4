"""Two processes on a CPU do together what one does: the data is shared, and so are checkpoints, logs and the end."""

import csv
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import train
from callbacks import OPTIONAL
from callbacks.resume import random_state
from gssr import ranks
from gssr.runs import command_line
from gssr.runs.folders import LAST, checkpoint_file, runs
from tests.callbacks.training import same
from tests.distributed import gradients, toy, validated
from tests.toy import ToyRows
from tests.train.command_line import CONFIG

pytestmark = [pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore:.*:UserWarning")]
ROOT = Path(__file__).resolve().parent.parent


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"} | more


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def pair(tiny_folder: Path, out: Path) -> list[dict[str, Any]]:
    """What tests/distributed.py wrote down, by rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "tests.distributed", str(tiny_folder), str(out)]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0"}
    with ExitStack() as stack:
        files = [stack.enter_context(open(out / f"rank{rank}.log", "w+")) for rank in range(2)]
        processes = [
            subprocess.Popen(command, cwd=ROOT, env=environment(LOCAL_RANK=str(r), **where), stdout=f, stderr=f)
            for r, f in enumerate(files)
        ]
        try:
            codes = [process.wait(timeout=800) for process in processes]
        finally:
            for process, file in zip(processes, files, strict=True):
                process.kill()
                file.seek(0)
                print(file.read()[-6000:])
    assert codes == [0, 0]
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def rows_of(told: dict[str, Any], *parts: str) -> list[tuple[float, ...]]:
    return [tuple(row.tolist()) for part in parts for batch in told["stopped"][part]["rows"] for row in batch]


def test_every_row_is_trained_on_once_an_epoch(pair: list[dict[str, Any]]) -> None:
    every = sorted(tuple(row.tolist()) for row in ToyRows(23, 0).x)
    for parts in (("whole",), ("first", "second")):
        seen = sorted(row for told in pair for row in rows_of(told, *parts))
        assert seen == sorted(every * 3)  # three epochs


def test_one_process_goes_on_with_what_two_have_left_of_an_epoch(pair: list[dict[str, Any]], out: Path) -> None:
    rest = toy(out / "alone", strategy="auto", devices=1)
    every = sorted(tuple(row.tolist()) for row in ToyRows(23, 0).x)
    before = [row for told in pair for row in rows_of(told, "first")]
    assert len(before) == 23 + 2 * 2 * 3  # an epoch of four steps, and two of the next
    assert sorted(before + [tuple(row.tolist()) for batch in rest["rows"] for row in batch]) == sorted(every * 3)
    assert rest["step"] == 6 + 4 + 8  # 11 rows were left; batches of 3


def test_a_stop_in_one_process_stops_both_after_one_step_and_the_rest_is_as_never_stopped(
    pair: list[dict[str, Any]], out: Path
) -> None:
    for told in (part["stopped"] for part in pair):
        assert told["first"]["step"] == 6 and told["second"]["step"] == told["whole"]["step"] == 12
        # Dropout and noise are drawn from each process's own stream; one stream for both would not come out the same.
        assert same(told["second"]["weights"], told["whole"]["weights"])
    assert same(pair[0]["stopped"]["whole"]["weights"], pair[1]["stopped"]["whole"]["weights"])


def test_one_process_writes(pair: list[dict[str, Any]], out: Path) -> None:
    with open(out / "whole" / "metrics.csv", newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(12))
    assert {path.name for path in (out / "whole").iterdir()} == {"metrics.csv", "hparams.yaml", "checkpoints"}
    assert {path.name for path in (out / "whole" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_the_checkpoint_holds_the_random_numbers_of_both(pair: list[dict[str, Any]], out: Path) -> None:
    saved = torch.load(checkpoint_file(out / "whole", LAST), weights_only=True)
    first, second = saved["callbacks"]["TrainingRandomness"]["ranks"]
    assert first.keys() == second.keys() == random_state().keys()
    assert not torch.equal(first["torch"], second["torch"])


def test_each_process_has_noise_of_its_own_also_after_a_resume(pair: list[dict[str, Any]]) -> None:
    first, second = (told["goals"] for told in pair)
    assert torch.equal(first["first"], torch.randn(4, generator=torch.Generator().manual_seed(0)))  # as in one process
    assert not torch.equal(first["first"], second["first"])
    assert not torch.equal(first["noise"], second["noise"])
    for told in (first, second):
        assert torch.equal(told["resumed"], told["noise"])


def test_a_loss_that_is_not_finite_in_one_process_stops_both_before_the_update(pair: list[dict[str, Any]]) -> None:
    assert pair[0]["exploded"]["error"].startswith("the loss of another process is not finite at step 2")
    assert pair[1]["exploded"]["error"].startswith("the loss is nan at step 2")


def test_a_process_without_goals_and_texts_trains_along(pair: list[dict[str, Any]]) -> None:
    assert same(pair[0]["goals"]["weights"], pair[1]["goals"]["weights"])


@pytest.mark.parametrize("batch_size", [2, 8])  # three batches for two processes, and one
def test_validation_by_two_is_validation_by_one(
    pair: list[dict[str, Any]], out: Path, tiny_folder: Path, batch_size: int
) -> None:
    alone = validated(out, str(tiny_folder), batch_size)
    assert {"val/open_loop_mae", "val/hit_true", "val/loss_text", "val/miss_borrowed"} <= alone.keys()
    for told in pair:
        assert told["goals"][f"validated {batch_size}"] == pytest.approx(alone, rel=1e-5, abs=1e-6)


def test_gradients_of_two_are_those_of_one_with_the_double_batch(
    pair: list[dict[str, Any]], out: Path, tiny_folder: Path
) -> None:
    alone = gradients(out, str(tiny_folder), 4)
    for told in pair:
        assert told["gradients"].keys() == alone.keys()
        for name, gradient in told["gradients"].items():
            assert torch.allclose(gradient, alone[name], rtol=1e-4, atol=1e-6), name
    assert sum(gradient.abs().sum() for gradient in alone.values()) > 0


def test_the_command_makes_one_run_and_tests_it_on_one_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    off = "".join(f"{name}: null\n" for name in OPTIONAL)
    (tmp_path / "toy.yaml").write_text(CONFIG + off)
    arguments = ["fit", "--config", "toy.yaml", "--trainer.strategy", "ddp", "--trainer.devices", "2"]
    command = [sys.executable, str(ROOT / "train.py"), *arguments, "--trainer.max_epochs", "1"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained 2 steps.") == 1  # 20 rows, twice 5 a step
    (run,) = runs()
    assert str(yaml.safe_load((run / "config.yaml").read_text())["trainer"]["devices"]) == "2"
    monkeypatch.setattr(command_line, "prepare_cpu", lambda: None)
    train.main(["test", "--ckpt_path", "best", "--trust", "tests.toy"])
    assert "test runs on one device, not on 2" in capsys.readouterr().out


def test_what_is_started_from_outside_needs_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(CONFIG)
    monkeypatch.setattr(command_line, "prepare_cpu", lambda: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(SystemExit, match="start it with --run NAME"):
        train.main(["fit", "--config", "toy.yaml"])
    assert not Path("runs").exists()


def test_seeds_of_processes_differ_and_the_first_has_that_of_the_run() -> None:
    assert ranks.seed_of(3, 0) == 3
    assert len({ranks.seed_of(seed, rank) for seed in range(20) for rank in range(20)}) == 400
    assert (ranks.rank(), ranks.world(), ranks.gather("x"), ranks.any_rank(True)) == (0, 1, ["x"], True)


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, False),
        ({"NODE_RANK": "1"}, False),  # the second node, started by hand
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),  # torchrun on the second node
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_the_first_process_is_known_before_there_is_a_process_group(
    variables: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ranks.is_first() == first
