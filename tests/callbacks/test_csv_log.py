"""metrics.csv: one row a step, any columns, and nothing lost on resume."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

from callbacks import CsvLog


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_logged_at_one_step_shares_a_row(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    log.log_metrics({"epoch": 0, "a": torch.tensor(1.5)}, step=0)
    log.log_metrics({"val": 2.0}, step=0)
    log.log_metrics({"epoch": 0, "a": 0.1}, step=3)
    assert rows(tmp_path) == [
        {"step": "0", "epoch": "0", "a": "1.5", "val": "2.0"},
        {"step": "3", "epoch": "0", "a": "0.1", "val": ""},
    ]


def test_numbers_are_written_whole(tmp_path: Path) -> None:
    log, value = CsvLog(tmp_path), torch.tensor(1 / 3)
    log.log_metrics({"a": value}, step=0)
    assert torch.tensor(float(rows(tmp_path)[0]["a"])) == value


def test_a_new_column_keeps_the_older_rows(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    for step in range(3):
        log.log_metrics({"a": step}, step=step)
    log.log_metrics({"b": 7}, step=3)
    assert [(row["a"], row["b"]) for row in rows(tmp_path)] == [("0", ""), ("1", ""), ("2", ""), ("", "7")]


def test_a_resumed_run_appends_and_replaces_only_what_it_makes_again(tmp_path: Path) -> None:
    first = CsvLog(tmp_path)
    for step in range(6):
        first.log_metrics({"a": step}, step=step)
    second = CsvLog(tmp_path, resume_step=4)
    for step in (4, 5, 6):
        second.log_metrics({"a": 10 * step, "c": 1}, step=step)
    assert [row["a"] for row in rows(tmp_path)] == ["0", "1", "2", "3", "40", "50", "60"]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_resume_that_is_refused_touches_nothing(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    log.log_metrics({"a": 1}, step=5)
    before = (tmp_path / "metrics.csv").read_bytes()
    CsvLog(tmp_path, resume_step=0).finalize("failed")
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,a,b\n0,1,2\n1,3")
    log = CsvLog(tmp_path, resume_step=1)
    log.log_metrics({"a": 5, "b": 6}, step=1)
    assert [row["a"] for row in rows(tmp_path)] == ["1", "5"]


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", []),
        (b"step,a", []),
        (b"step,a\n0,1\n1,2\n9,0.12", ["1", "2"]),  # of 0.1234
        (b"step,a\n0,1\n1,2\n9,", ["1", "2"]),
        (b"step,a\r0,1\r1,2\r", ["1", "2"]),
        (b"step,a\n0,1\r\n\n1,2\r\r\n", ["1", "2"]),
    ],
)
def test_a_file_that_a_kill_cut_is_gone_on_with(content: bytes, kept: list[str], tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    CsvLog(tmp_path, resume_step=9).log_metrics({"a": 5}, step=9)
    assert [row["a"] for row in rows(tmp_path)] == [*kept, "5"]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_garbage_in_the_middle_is_left_out_aloud(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(b"step,a\n0,1\n\x00\x00\xff,2\n,3\nnan,3\n3,4,5\n2,3\n")
    with pytest.warns(match="metrics.csv: 4 of 6 rows could not be read"):
        CsvLog(tmp_path).log_metrics({"a": 5}, step=3)
    assert [row["a"] for row in rows(tmp_path)] == ["1", "3", "5"]


def test_everything_is_on_disk_after_every_call(tmp_path: Path) -> None:
    """A run may be killed at any time."""
    log = CsvLog(tmp_path)
    for step in range(4):
        log.log_metrics({"a": 10.0**-step}, step=step)
        assert [row["a"] for row in rows(tmp_path)] == [str(10.0**-s) for s in range(step + 1)]
        log.log_metrics({"a": 1, f"b{step // 2}": step}, step=step)
        assert rows(tmp_path)[-1] == {"step": str(step), "a": "1"} | {
            f"b{k}": str(step) if k == step // 2 else "" for k in range(step // 2 + 1)
        }
        log.log_metrics({"a": 10.0**-step}, step=step)


def test_hyperparameters_are_plain_yaml(tmp_path: Path) -> None:
    CsvLog(tmp_path).log_hyperparams({"lr": 0.1, "layers": (1, 2), "path": tmp_path, "none": None})
    assert yaml.safe_load((tmp_path / "hparams.yaml").read_text()) == {
        "lr": 0.1,
        "layers": [1, 2],
        "path": str(tmp_path),
        "none": None,
    }


def test_a_kill_while_a_row_is_added_to_leaves_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state may have been saved since the row was begun, and no later run makes the row again."""
    log = CsvLog(tmp_path)
    log.log_metrics({"a": 1.0, "b": 2.0}, step=0)
    log.log_metrics({"a": 3.0}, step=1)
    before = (tmp_path / "metrics.csv").read_text()

    class Torn(csv.DictWriter):
        def writerow(self, row):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("callbacks.csv_log.csv.DictWriter", Torn)
        for more in ({"b": 4.0}, {"c": 5.0}):
            with pytest.raises(KeyboardInterrupt):
                log.log_metrics(more, step=1)
            assert (tmp_path / "metrics.csv").read_text() == before
    log.log_metrics({"d": 6.0}, step=1)
    assert rows(tmp_path)[1] == {"step": "1", "a": "3.0", "b": "4.0", "c": "5.0", "d": "6.0"}


def test_a_step_that_is_logged_again_after_a_kill_stays_one_row(tmp_path: Path) -> None:
    whole, killed = CsvLog(tmp_path / "whole"), CsvLog(tmp_path / "killed")
    for log in (whole, killed):
        log.log_metrics({"loss": 0.1, "norm": 2.0}, step=0)
        log.log_metrics({"loss": 1 / 3}, step=1)
    resumed = CsvLog(tmp_path / "killed", resume_step=2)
    for log in (whole, resumed):
        log.log_metrics({"norm": 0.7}, step=1)
        log.log_metrics({"loss": 1 / 3}, step=1)
        log.log_metrics({"loss": 0.2}, step=2)
    assert resumed.file.read_text() == whole.file.read_text()
