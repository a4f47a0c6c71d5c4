"""Run folders: none is ever shared, and `last` and `best` mean what a user expects."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from gssr.runs.folders import (
    BEST,
    CONFIG,
    LAST,
    RunError,
    checkpoint_file,
    claim,
    find_checkpoint,
    new_folder,
    new_run,
    runs,
)

NOON = datetime(2025, 1, 31, 12, 0, 0)


def make(root: Path, name: str, *checkpoints: str) -> Path:
    run = root / name
    (run / "checkpoints").mkdir(parents=True)
    (run / CONFIG).write_text("trainer: {}\n")
    for checkpoint in checkpoints:
        checkpoint_file(run, checkpoint).write_bytes(b"")
    return run


def test_runs_started_at_the_same_moment_have_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: new_folder(tmp_path / "runs", "storms", NOON), range(32)))
    assert len(set(folders)) == 32
    assert {folder.name for folder in folders} == {
        "storms-20250131-120000",
        *(f"storms-20250131-120000-{n}" for n in range(2, 33)),
    }


TOGETHER = """
import sys
from gssr.runs.folders import *
sys.stdin.readline()  # all wait for the same word
folder = new_folder(Path(sys.argv[1]), "storms", datetime(2025, 1, 31, 12))
held = claim(folder)
print(folder.name)
"""


def test_processes_that_start_at_the_same_moment_have_folders_of_their_own(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TOGETHER, str(tmp_path / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    names = {process.communicate()[0].strip() for process in processes}
    assert names == {"storms-20250131-120000", *(f"storms-20250131-120000-{n}" for n in (2, 3, 4))}


def test_runs_are_ordered_by_when_they_began_not_by_name(tmp_path: Path) -> None:
    names = ["zebra-20250131-120000", "apple-20250201-000000", "apple-20250201-000000-2", "apple-20250201-000000-10"]
    for name in names:
        make(tmp_path, name)
    mine = make(tmp_path, "my best run")  # its config was written just now
    assert runs(tmp_path) == [mine, *(tmp_path / name for name in reversed(names))]
    assert runs(tmp_path / "nowhere") == []


def test_last_is_of_the_newest_run_that_has_one(tmp_path: Path) -> None:
    make(tmp_path, "storms-20250101-000000", LAST, BEST)
    newer = make(tmp_path, "storms-20250102-000000", LAST)
    make(tmp_path, "storms-20250103-000000")  # stopped before its first checkpoint
    assert find_checkpoint(LAST, root=tmp_path).checkpoint == checkpoint_file(newer, LAST)
    best = find_checkpoint(BEST, root=tmp_path)
    assert best.run == tmp_path / "storms-20250101-000000"
    assert not best.is_last
    assert find_checkpoint(LAST, root=tmp_path).is_last


def test_to_train_last_is_also_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    saved = make(tmp_path, "storms-20250101-000000", LAST)
    stopped = make(tmp_path, "storms-20250102-000000")
    (tmp_path / "storms-20250103-000000").mkdir()  # killed before it had a config
    found = find_checkpoint(LAST, root=tmp_path, to_train=True)
    assert (found.run, found.checkpoint, found.is_last) == (stopped, None, True)
    assert find_checkpoint(LAST, stopped.name, tmp_path, to_train=True).checkpoint is None
    assert find_checkpoint(LAST, saved.name, tmp_path, to_train=True).checkpoint == checkpoint_file(saved, LAST)
    with pytest.raises(RunError, match="has no checkpoints.last"):
        find_checkpoint(LAST, stopped.name, tmp_path)
    with pytest.raises(RunError, match="has no checkpoints.last"):
        find_checkpoint(LAST, "storms-20250103-000000", tmp_path, to_train=True)
    with pytest.raises(RunError, match="no run"):
        find_checkpoint(LAST, "misspelt", tmp_path, to_train=True)


def test_what_a_killed_owner_left_is_removed(tmp_path: Path) -> None:
    run = make(tmp_path, "storms-20250101-000000", LAST)
    drafts = [run / "metrics.csv.12.tmp", run / "checkpoints" / "last.ckpt.12.tmp"]
    for draft in drafts:
        draft.write_bytes(b"half")
    with claim(run):
        assert not any(draft.exists() for draft in drafts)
    assert checkpoint_file(run, LAST).exists()


def test_a_named_run_is_meant_even_if_another_is_newer(tmp_path: Path) -> None:
    older = make(tmp_path, "storms-20250101-000000", LAST)
    make(tmp_path, "storms-20250102-000000", LAST)
    for name in (older.name, str(older)):
        assert find_checkpoint(LAST, name, tmp_path).run == older
    with pytest.raises(RunError, match=r"has no checkpoints.best\.ckpt; it has last\.ckpt"):
        find_checkpoint(BEST, older.name, tmp_path)
    with pytest.raises(RunError, match=r"no run .*nonsense; runs, newest first: storms-20250102"):
        find_checkpoint(LAST, "nonsense", tmp_path)


def test_a_path_is_a_path(tmp_path: Path) -> None:
    run = make(tmp_path, "storms-20250101-000000", LAST, "step-000010")
    found = find_checkpoint(str(checkpoint_file(run, "step-000010")), root=tmp_path)
    assert (found.run, found.is_last) == (run, False)
    assert find_checkpoint(str(checkpoint_file(run, LAST)), root=tmp_path).is_last
    assert find_checkpoint("step-000010", run.name, tmp_path).checkpoint == found.checkpoint
    alone = tmp_path / "sent by a friend.ckpt"
    alone.write_bytes(b"")
    assert find_checkpoint(str(alone), root=tmp_path).run is None
    with pytest.raises(RunError, match=r"no such file; expected last, best or the path .* storms-20250101"):
        find_checkpoint("lost.ckpt", root=tmp_path)


def test_no_run_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run.*python train.py fit"):
        find_checkpoint(LAST, root=tmp_path / "runs")


def test_a_run_that_the_user_names_is_not_overwritten(tmp_path: Path) -> None:
    assert new_run("storms", "mine", tmp_path) == tmp_path / "mine"
    with pytest.raises(RunError, match="exists; go on with it by adding --ckpt_path last"):
        new_run("storms", "mine", tmp_path)
    assert new_run("storms", root=tmp_path).name.startswith("storms-")
