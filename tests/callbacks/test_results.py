"""`test` ends with the report that fits the data."""

from pathlib import Path
from types import SimpleNamespace

import pytest

import callbacks.results as module
from callbacks import TestReport as Reporting  # by its own name pytest would take it for a test
from datamodules.storms.datamodule import Storms
from tests.evaluation.fakes import FakeNetwork, FakeStorms


class Network(FakeNetwork):
    table = SimpleNamespace(add=lambda texts: None)


class Data(FakeStorms):
    value_resolution = (5.0, 1.0)

    def texts(self) -> list[str]:
        return []


def trainer(data: object, folder: Path) -> SimpleNamespace:
    return SimpleNamespace(datamodule=data, is_global_zero=True, default_root_dir=str(folder))


def test_any_data_module_gets_a_table_of_forecasts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Reporting(samples=4).on_test_end(trainer(Data(), tmp_path), Network())
    assert {path.name for path in tmp_path.iterdir()} == {"data_test.md", "data_test.json"}
    said = capsys.readouterr().out
    assert "| persistence |" in said and "| linear autoregression |" in said and "coverage of 80 % intervals" in said


def test_storms_keep_their_own_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    report = SimpleNamespace(to_markdown=lambda: "the storms' table", write=lambda folder: None)
    monkeypatch.setattr(module, "evaluate_storms", lambda *args, **options: asked.append(options) or report)
    monkeypatch.setattr(Storms, "setup", lambda self, stage=None: None)
    Reporting(samples=7, quick=True).on_test_end(trainer(Storms(), tmp_path), Network())
    assert asked == [{"samples": 7, "quick": True}]
