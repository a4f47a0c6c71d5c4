"""The suite of public series: rules of windows, what is written, and the table of made-up scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.quality.cells import Cells
from benchmarks.series import __main__ as command
from benchmarks.series import windows
from benchmarks.series.fans import FIXED, NETWORK, fan_table
from benchmarks.series.report import interval, report
from benchmarks.series.sets import HORIZONS, SERIES, Series


class Made(Series):
    """A series without a package."""

    def _rdatasets(self) -> pd.Series:
        return pd.Series(np.random.default_rng(0).normal(size=120).cumsum())


def scored(folder: Path, method: str, crps: float, covered: float) -> None:
    windows = {"crps": np.full((4, 2), crps), "covered_80": np.full((4, 2), covered)}
    about = {"windows": 100, "context": 16, "seconds": 3.0}
    Cells(folder).make(method, {}, lambda: {"windows": windows, "about": about})


def test_steps_have_rules_and_names_are_of_one_series_each() -> None:
    assert {series.step for series in SERIES.values()} <= HORIZONS.keys()
    assert len({(series.package, series.item, series.column) for series in SERIES.values()}) == len(SERIES) >= 25


@pytest.mark.parametrize(("step", "second"), [("M", "2000-02-01"), ("W", "2000-01-08"), ("h", "2000-01-01T01:00")])
def test_rows_stand_at_the_times_of_the_source(step: str, second: str, tmp_path: Path) -> None:
    Made("p", "i", "c", "2000-01-01", step).write(tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv", dtype=str)
    assert list(table) == ["time", "value"] and table["time"][1] == second and len(table) == 120


def test_the_table_shows_ratios_ranks_and_coverage(tmp_path: Path) -> None:
    for name, ours, covered in (("good", 1.0, 0.8), ("bad", 4.0, 0.4)):
        for method, crps in (("persistence", 2.0), ("linear autoregression", 1.5), (f"{NETWORK}-seed0", ours)):
            scored(tmp_path / name, method, crps, covered)
    text = report({name: Cells(tmp_path / name) for name in ("good", "bad", "missing")})
    assert "| good | 100 | 16 | 0.50 | 1.00 | 0.75 | 1 | 80 % | 3 |" in text
    assert "| bad | 100 | 16 | 2.00 | 1.00 | 0.75 | 3 | 40 % | 3 |" in text
    assert "| persistence | 2 | 1.000 |" in text and "Best or second on 1 of 2" in text
    assert "88 % on 1 of 2" in text and "behind persistence: bad." in text
    assert "missing" not in text and report({}) == "no series is measured yet\n"


def test_the_interval_is_of_the_geometric_mean() -> None:
    low, high = interval(np.log(np.array([0.5, 2.0] * 50)))
    assert low < 1 < high and high / low == pytest.approx(np.exp(2 * 1.96 * np.log(2) / 10), rel=0.05)


def test_the_command_scores_a_series_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "SERIES", {"made": Made("p", "i", "c", "2000-01-01", "Y")})
    given = ["series", "--untrained", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", given)
    command.main()
    assert "| made | " in capsys.readouterr().out and (tmp_path / "series.md").is_file()
    monkeypatch.setattr(command, "linear", None)
    command.main()
    monkeypatch.setattr("sys.argv", given + ["--options=--data.goals=null"])
    with pytest.raises(SystemExit, match="other options"):
        command.main()


def test_a_method_of_some_origins_is_compared_from_these_alone(tmp_path: Path) -> None:
    crps = {"persistence": [2.0, 4.0, 4.0], f"{NETWORK}-seed0": [1.0, 4.0, 4.0], "AutoTheta": [1.5]}
    for method, each in crps.items():
        windows = {"crps": np.array(each)[:, None], "covered_80": np.ones((len(each), 1))}
        rows = {"rows": [0]} if method == "AutoTheta" else {}
        cell = {"windows": windows, "about": {"windows": 9, "context": 4, "seconds": 1}} | rows
        Cells(tmp_path).make(method, {}, lambda cell=cell: cell)
    text = report({"one": Cells(tmp_path)})
    assert "| one | 9 | 4 | 0.90 | 1.00 | 0.75 | 1 |" in text  # behind 0.75 over all origins, ahead of it from its own
    assert "| AutoTheta | 1 | 0.667 |" in text


def test_fans_are_shown_by_step_and_by_quiet_and_wild_contexts(tmp_path: Path) -> None:
    by_window = np.array([0.0, 0.0, 1.0, 1.0])[:, None] * np.ones(6)
    for kind, covered, crps in ((FIXED, by_window, 2.0), (NETWORK, np.full((4, 6), 0.8), 1.0)):
        windows = {"covered_80": covered, "crps": np.full((4, 6), crps)}
        cell = {"windows": windows, "changes": [1.0, 2.0, 3.0, 4.0]}
        Cells(tmp_path).make(f"{kind}-seed0", {}, lambda cell=cell: cell)
    lines = fan_table({"one": Cells(tmp_path), "not measured": Cells(tmp_path / "other")})
    half, quiet, wild = "50 % (30.0)", "0 % (80.0)", "100 % (20.0)"
    assert lines[2] == f"| validation alone | {' | '.join([half] * 4)} | {quiet} | {wild} | 0 of 1 | 1.000 |"
    assert lines[3] == f"| and recent errors | {' | '.join(['80 % (0.0)'] * 6)} | 1 of 1 | 0.500 |"
    assert fan_table({}) == []


def test_few_windows_are_scored_with_and_without_the_pretrained_forecaster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(windows, "SERIES", {"made": Made("p", "i", "c", "2000-01-01", "Y")})
    monkeypatch.setattr(windows, "SIZES", (20, 30, 1000))
    given = ["windows", "--out", str(tmp_path / "out"), "--draw", str(tmp_path / "drawn.png")]
    monkeypatch.setattr("sys.argv", given)
    windows.main()
    said = capsys.readouterr().out
    assert "| series | 20 | 30 |" in said and "| made | " in said and (tmp_path / "drawn.png").stat().st_size > 1000
    cells = Cells(tmp_path / "out")
    small, large = cells.get("made-20"), cells.get("made-30")
    assert small["windows"] == 20 and large["windows"] == 30
    one, other = (pd.read_csv(tmp_path / "out" / f"made-{size}.csv") for size in (20, 30))
    assert one["value"].iloc[-1] == other["value"].iloc[-1] and len(one) < len(other)
    monkeypatch.setattr(windows, "scored", None)
    windows.main()


def test_means_are_of_series_that_are_long_enough() -> None:
    scores = {
        "gold": {100: {"without": 1.0, "with": 0.5}, 300: {"without": 1.0, "with": 1.0}},
        "output": {100: {"without": 1.0, "with": 2.0}},
    }
    text = windows.report(scores)
    assert "| gold | 1.00 → 0.50 | 1.00 → 1.00 |" in text and "| output | 1.00 → 2.00 | – |" in text
    assert "| 100 | 2 | 1.000 | " in text and "| 1 of 2 |" in text and "| 300 | 1 | 1.000 | " in text
