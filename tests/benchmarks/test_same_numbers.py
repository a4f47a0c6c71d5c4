"""The proof that a restructuring changes no number: it tells equal trainings and predictions from others."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.same_numbers import main

COLUMNS = ["step", "train/loss", "grad_norm/rssm", "val/open_loop_mae"]
ROWS = [[0, 1.5, 3.0, ""], [1, 1.25, 2.0, 0.75]]
WINDOW = {"series": "Ian", "with_goal": None, "without_goal": {"mean": [[1.0, 2.5]], "text": ["near"]}}


def training(folder: Path, rows: list[list[Any]], columns: list[str] = COLUMNS) -> str:
    folder.mkdir(exist_ok=True)
    lines = [columns, *rows]
    (folder / "metrics.csv").write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return str(folder)


def predictions(file: Path, *windows: dict[str, Any]) -> str:
    file.write_text("".join(json.dumps(window) + "\n" for window in windows))
    return str(file)


def test_equal_trainings_are_identical_in_every_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [training(tmp_path / name, ROWS) for name in "ab"]
    assert main(["--runs", *runs, "--tolerance", "0"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("identical") == len(COLUMNS) and "trainings: the same" in shown


@pytest.mark.parametrize(
    ("row", "column", "value", "code"),
    [
        (0, 1, 1.5 + 5e-7, 0),  # within the tolerance
        (0, 1, 1.5 + 5e-6, 1),
        (1, 3, 0.76, 1),
        (1, 3, "", 1),  # not measured in one of them
        (1, 1, "nan", 1),
        (1, 0, 2, 1),  # another step
        (1, 2, 99.0, 0),  # a norm of gradients
    ],
)
def test_a_loss_that_differs_by_more_than_the_tolerance_decides(
    tmp_path: Path, row: int, column: int, value: Any, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = [list(line) for line in ROWS]
    changed[row][column] = value
    assert main(["--runs", training(tmp_path / "a", ROWS), training(tmp_path / "b", changed)]) == code
    shown = capsys.readouterr().out
    (line,) = (line for line in shown.splitlines() if line.startswith(f"{COLUMNS[column]} "))
    assert "identical" not in line and ("decides nothing" in line) == (column == 2)


def test_nan_in_both_is_the_same_and_a_missing_row_is_not(tmp_path: Path) -> None:
    lost = [[0, "nan", 3.0, ""]]
    assert main(["--runs", training(tmp_path / "a", lost), training(tmp_path / "b", lost)]) == 0
    assert main(["--runs", training(tmp_path / "a", ROWS), training(tmp_path / "b", ROWS[:1])]) == 1


def test_columns_of_one_training_are_listed_and_decide_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = training(tmp_path / "b", [[*row, 1] for row in ROWS], [*COLUMNS, "train/new"])
    assert main(["--runs", training(tmp_path / "a", ROWS), more]) == 0
    assert f"only in {more}: train/new" in capsys.readouterr().out
    assert main(["--runs", training(tmp_path / "a", ROWS), training(tmp_path / "c", [[1]], ["other"])]) == 2
    assert main(["--runs", *(training(tmp_path / n, [[1]], ["moved/rssm"]) for n in "de")]) == 1  # nothing decides


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("without_goal", "mean"), [[1.0, 2.51]], "window[1].without_goal.mean[0][1]: numbers by 0.01"),
        (("without_goal", "text"), ["far"], "window[1].without_goal.text[0]: texts"),
        (("with_goal",), {"mean": []}, "window[1].with_goal: texts, or what only one"),
    ],
)
def test_any_difference_of_predictions_decides(
    tmp_path: Path, path: tuple[str, ...], value: Any, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = predictions(tmp_path / "a.jsonl", WINDOW, WINDOW)
    changed = json.loads(json.dumps(WINDOW))
    owner = changed
    for name in path[:-1]:
        owner = owner[name]
    owner[path[-1]] = value
    assert main(["--predictions", first, predictions(tmp_path / "b.jsonl", WINDOW, changed)]) == 1
    assert told in capsys.readouterr().out
    assert main(["--predictions", first, predictions(tmp_path / "b.jsonl", WINDOW)]) == 1
    assert main(["--predictions", first, predictions(tmp_path / "b.jsonl", WINDOW, WINDOW)]) == 0
    assert "identical (2 windows)" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    capsys.readouterr()
    run, empty = training(tmp_path / "a", ROWS), training(tmp_path / "b", [])
    (tmp_path / "x.jsonl").write_text("{")
    for arguments, message in (
        (["--runs", run, str(tmp_path / "none")], "cannot be read"),
        (["--runs", run, empty], "has no rows"),
        (["--predictions", str(tmp_path / "x.jsonl"), str(tmp_path / "x.jsonl")], "is no JSON Lines"),
        (["--predictions", *[predictions(tmp_path / "y.jsonl")] * 2], "holds no prediction"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
