"""`test` ends with the report of its data module."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from callbacks import TestReport as Reporting  # by its own name pytest would take it for a test
from datamodules import SequenceData, Storms
from gssr.evaluation.report import Report
from tests.evaluation.fakes import FakeNetwork, FakeSpeaker, FakeStorms


class Network(FakeNetwork):
    world = SimpleNamespace(scaler=SimpleNamespace(std=torch.ones(1)))

    def encode_texts(self, texts: list[str]) -> None:
        pass


class Data(FakeStorms):
    """The report of every data module that has none of its own."""

    evaluate = SequenceData.evaluate


def trainer(data: object, folder: Path) -> SimpleNamespace:
    return SimpleNamespace(datamodule=data, is_global_zero=True, default_root_dir=str(folder))


def test_any_data_module_gets_a_table_of_forecasts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Reporting(samples=4).on_test_end(trainer(Data(), tmp_path), Network())
    assert {path.name for path in tmp_path.iterdir()} == {"data_test.md", "data_test.json"}
    said = capsys.readouterr().out
    assert "| persistence |" in said and "| linear autoregression |" in said and "coverage of 80 % intervals" in said


def test_a_data_module_with_a_report_of_its_own_is_asked_for_it(tmp_path: Path) -> None:
    class Own(FakeStorms):
        asked: dict[str, object] = {}

        def evaluate(self, network: object, **options: object) -> Report:
            self.asked |= {"network": network, **options}
            return Report("own", "Own", "", {}, [], [])

    data, network = Own(), Network()
    Reporting(samples=7, quick=True).on_test_end(trainer(data, tmp_path), network)
    assert data.asked == {"network": network, "samples": 7, "quick": True}
    assert data.stages == ["fit", "test"] and (tmp_path / "own.md").is_file()


def test_only_the_first_process_reports(tmp_path: Path) -> None:
    one = trainer(None, tmp_path)
    one.is_global_zero = False
    Reporting().on_test_end(one, Network())
    assert not list(tmp_path.iterdir())


def test_storms_have_a_report_of_their_own() -> None:
    class Fake(FakeStorms):
        evaluate = Storms.evaluate

    report = Fake().evaluate(FakeSpeaker(), samples=2, quick=True)
    assert report.name == "storms_test" and {"goals", "plausibility", "belief", "plan_texts"} <= {
        table.key for table in report.tables
    }
