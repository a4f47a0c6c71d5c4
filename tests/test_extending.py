"""A data module with its report, a callback and a steered prior: each is one file of a user and one line of config."""

import json
from pathlib import Path

import pytest
import torch

import train
from gssr.network import GoalNetwork
from gssr.network.gaussian import Gaussian
from gssr.network.goal_encoder import LatentGoal
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

PRIOR = '''
from gssr.network.steering import SteeredPrior


class Shared(SteeredPrior):
    """Pulls all dimensions by the mean of their distances. Args: factor: Times the distance."""

    def __init__(self, schedule, latent_dim, max_norm, factor: float = 0.5) -> None:
        super().__init__(schedule, latent_dim, max_norm)
        self.factor = factor

    def correction(self, gain, prior, h, goal):
        away = goal.x - prior.mean
        return self.factor * gain[:, None] * away.mean(-1, keepdim=True).expand_as(away)
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run whose data module and callback are files of a user, tested afterwards."""
    folder, threads = tmp_path_factory.mktemp("mine"), torch.get_num_threads()
    (folder / "tides.py").write_text(DATA)
    (folder / "count.py").write_text(CALLBACK)
    (folder / "shared.py").write_text(PRIOR)
    (folder / "prior.yaml").write_text("model: {init_args: {steering: {prior: shared.Shared}}}\n")
    (folder / "data.yaml").write_text("data: {class_path: tides.Tides}\n")
    (folder / "callback.yaml").write_text("trainer: {callbacks+: {class_path: count.Count}}\n")
    small = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    options = ["--data.stride", "8", "--data.amplitude", "3", "--model.steering.prior.factor", "0.25"]
    configs = [part for file in (DEBUG, "data.yaml", "callback.yaml", "prior.yaml") for part in ("--config", str(file))]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        patch.setenv("GSSR_CACHE", str(folder / "cache"))
        train.main(["fit", "--run", "mine", *configs, *small, *options])
        own = "tides.Tides,count.Count,shared.Shared"
        train.main(["test", "--run", "mine", "--ckpt_path", "last", "--trust", own])
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


def test_a_steered_prior_is_used_and_comes_back_with_the_checkpoint(run: Path) -> None:
    network = GoalNetwork.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    steering = network.world.steering
    assert type(steering).__name__ == "Shared" and steering.factor == 0.25
    latent = steering.latent_dim
    goal = LatentGoal(torch.arange(1.0, latent + 1)[None], torch.tensor([True]), *torch.tensor([[0], [2], [4]]))
    prior = Gaussian(torch.zeros(1, latent), torch.ones(1, latent))
    moved = steering(prior, torch.zeros(1, 1), 1, goal).prior.mean
    gain = steering.schedule(1, goal, 1.0)
    torch.testing.assert_close(moved, (0.25 * gain * (latent + 1) / 2)[:, None].expand(1, latent))
