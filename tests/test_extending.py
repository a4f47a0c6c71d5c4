"""A data module with a report of its own, and a callback: each is one file of a user and one line of config."""

import json
from pathlib import Path

import pytest
import torch

import train
from gssr.runs.folders import runs

DEBUG = Path(train.__file__).parent / "configs" / "debug.yaml"

DATA = '''
import numpy as np
from matplotlib.figure import Figure

from datamodules import SequenceData
from gssr.evaluation.report import Report, Table
from gssr.sequences.record import Record
from gssr.sequences.windows import cut


class Tides(SequenceData):
    """Args: amplitude: Metres above the mean."""

    value_names, value_units, value_resolution = ("level",), ("m",), (0.0,)
    has_text = has_goals = False

    def __init__(self, *, amplitude: float = 2.0, **windows) -> None:
        super().__init__(**windows)
        self.amplitude = amplitude

    def read_windows(self):
        hours = np.arange(300.0)
        level = self.amplitude * np.sin(2 * np.pi * hours / 12.4)[:, None]
        parts = {"train": slice(0, 200), "val": slice(200, 250), "test": slice(250, 300)}
        return {
            part: cut(Record("harbour", hours[rows], level[rows], [None] * len(hours[rows])), **self.window)
            for part, rows in parts.items()
        }

    def evaluate(self, network, split="test", samples=64, quick=False):
        general = super().evaluate(network, split, samples, quick)
        highest = max(window.value.max() for window in self.windows(split))
        table = Table("highest", "Highest tide", "", {"observed": {"m": highest}})
        return Report("tides", "Tides", "", general.settings, [*general.tables, table], [], {"The tide": Figure()})
'''

CALLBACK = '''
from lightning import Callback


class Count(Callback):
    """Writes the number of steps into the run's folder."""

    def on_train_end(self, trainer, pl_module):
        with open(f"{trainer.default_root_dir}/steps.txt", "w") as file:
            file.write(str(trainer.global_step))
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run whose data module and callback are files of a user, tested afterwards."""
    folder, threads = tmp_path_factory.mktemp("mine"), torch.get_num_threads()
    (folder / "tides.py").write_text(DATA)
    (folder / "count.py").write_text(CALLBACK)
    (folder / "data.yaml").write_text("data: {class_path: tides.Tides}\n")
    (folder / "callback.yaml").write_text("trainer: {callbacks+: {class_path: count.Count}}\n")
    small = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    options = ["--data.stride", "8", "--data.amplitude", "3"]
    configs = [part for file in (DEBUG, "data.yaml", "callback.yaml") for part in ("--config", str(file))]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        patch.setenv("GSSR_CACHE", str(folder / "cache"))
        train.main(["fit", "--run", "mine", *configs, *small, *options])
        train.main(["test", "--run", "mine", "--ckpt_path", "last"])
        (made,) = (path.resolve() for path in runs())
    torch.set_num_threads(threads)
    return made


def test_a_data_module_brings_its_report_and_its_picture(run: Path) -> None:
    (results,) = run.glob("test-*")
    report = json.loads((results / "tides.json").read_text())
    assert report["tables"]["highest"]["observed"]["m"] == pytest.approx(3.0, abs=0.01)
    assert report["tables"]["forecast"]["persistence"]["step 1"]["windows"] > 0
    assert "![The tide](tides_the_tide.png)" in (results / "tides.md").read_text()
    assert (results / "tides_the_tide.png").stat().st_size > 0


def test_its_own_options_and_those_of_every_window_are_one_set(run: Path) -> None:
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["datamodule_hyper_parameters"]
    assert kept["amplitude"] == 3 and kept["context"] == kept["horizon"] == 8


def test_a_callback_joins_those_of_the_config(run: Path) -> None:
    assert (run / "steps.txt").read_text() == "2"
    assert (run / "metrics.csv").is_file() and "PlanRollouts" in (run / "config.yaml").read_text()
