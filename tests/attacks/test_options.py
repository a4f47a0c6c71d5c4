"""Options outside of their domains: each is answered in one line before anything is built."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback

import datamodules
import train
from callbacks import FreeNatsAnnealing, GradientNormCheck, PlanRollouts, RunCheckpoints, TestReport, WeightAverage
from gssr.commands.main import main
from gssr.network.config import restore
from gssr.network.objective import ObjectiveConfig
from gssr.network.optimizer import OptimizerConfig
from gssr.network.options import ValuesConfig
from gssr.network.schedules import Decay
from gssr.network.speaker import SpeechConfig
from gssr.network.steering import SteeringConfig
from gssr.network.world_model import WorldModelConfig
from gssr.runs.command_line import RunCLI
from gssr.runs.folders import runs
from gssr.training.architectures import Nano
from gssr.training.optimizers import MuonAdamWConfig
from tests.train.command_line import stand_in

pytestmark = [pytest.mark.attack, pytest.mark.filterwarnings("ignore:.*:UserWarning")]
NAN, INFINITY = float("nan"), float("inf")

CONSTRUCTIONS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (WorldModelConfig, {"latent_dim": 0}),
    (WorldModelConfig, {"latent_dim": 10**9}),
    (WorldModelConfig, {"latent_dim": 10**5000}),
    (WorldModelConfig, {"latent_dim": True}),
    (WorldModelConfig, {"hidden_dim": -1}),
    (WorldModelConfig, {"hidden_dim": 12.5}),
    (WorldModelConfig, {"text_layers": ()}),
    (WorldModelConfig, {"text_layers": (4, 4)}),
    (WorldModelConfig, {"text_layers": (-1,)}),
    (WorldModelConfig, {"goal_layer": "three"}),
    (WorldModelConfig, {"goal_queries": 0}),
    (WorldModelConfig, {"reads_changes": 1}),
    (WorldModelConfig, {"error_order": 0}),
    (WorldModelConfig, {"normalisation": "batch"}),
    (SteeringConfig, {"strength": INFINITY}),
    (SteeringConfig, {"strength": NAN}),
    (SteeringConfig, {"max_norm": 0.0}),
    (Decay, {"gamma": NAN}),
    (SpeechConfig, {"injection": "prompt"}),
    (SpeechConfig, {"prefix_tokens": 10**6}),
    (SpeechConfig, {"state_rank": 0}),
    (SpeechConfig, {"state_layers": []}),
    (ObjectiveConfig, {"text_dropout": 2}),
    (ObjectiveConfig, {"goal_dropout": -0.1}),
    (ObjectiveConfig, {"alpha_kl": -1.0}),
    (ObjectiveConfig, {"alpha_open": INFINITY}),
    (ObjectiveConfig, {"free_nats": NAN}),
    (ObjectiveConfig, {"open_samples": 5}),
    (ObjectiveConfig, {"open_samples": 2}),
    (ObjectiveConfig, {"min_context": 0}),
    (OptimizerConfig, {"lr": -0.001}),
    (OptimizerConfig, {"lr": NAN}),
    (OptimizerConfig, {"weight_decay": -1}),
    (OptimizerConfig, {"warmup_steps": -5}),
    (ValuesConfig, {"resolution": (NAN,)}),
    (ValuesConfig, {"names": "wind"}),
    (MuonAdamWConfig, {"decay_share": 1.5}),
    (MuonAdamWConfig, {"warmup_steps": 0}),
    (Nano, {"hidden_size": 100}),
    (Nano, {"layers": 0}),
    (FreeNatsAnnealing, {"steps": -1}),
    (FreeNatsAnnealing, {"end": INFINITY}),
    (GradientNormCheck, {"patience": 0}),
    (PlanRollouts, {"goals": "all"}),
    (PlanRollouts, {"seed": 2**32}),
    (PlanRollouts, {"samples": 10**9}),
    (RunCheckpoints, {"every_n_steps": 0}),
    (RunCheckpoints, {"keep": -1}),
    (RunCheckpoints, {"mode": "least"}),
    (TestReport, {"samples": 0}),
    (WeightAverage, {"decay": 1.0}),
    (WeightAverage, {"decay": NAN}),
    (datamodules.Sines, {"batch_size": 0}),
    (datamodules.Sines, {"batch_size": 10**9}),
    (datamodules.Sines, {"context": 10**6}),
    (datamodules.Sines, {"noise": NAN}),
    (datamodules.Sines, {"seed": -1}),
    (datamodules.Sines, {"num_workers": 10**6}),
    (datamodules.Sines, {"level_jitter": INFINITY}),
    (datamodules.Sines, {"train_through": "all"}),
    (datamodules.Storms, {"class_share": 2.0}),
    (datamodules.Storms, {"goal_jitter": -1}),
    (datamodules.TableSequences, {"path": "t.csv", "split_shares": (0.5, 0.5)}),
    (datamodules.TableSequences, {"path": "t.csv", "split_shares": (NAN, 0.5, 0.5)}),
    (datamodules.TableSequences, {"path": "t.csv", "value_columns": ["a", "a"]}),
    (datamodules.TableSequences, {"path": "t.csv", "text_lag": -1}),
    (datamodules.TimeMMD, {"path": "x", "val_share": NAN}),
    (datamodules.TextCorpus, {"weights": {"a": -1.0}}),
    (datamodules.TextCorpus, {"row_length": 0}),
]


@pytest.mark.parametrize(
    ("kind", "given"),
    CONSTRUCTIONS,
    ids=[
        f"{kind.__name__}-{name}-{str(value)[:12] if not isinstance(value, int) or abs(value) < 10**20 else 'huge'}"
        for kind, given in CONSTRUCTIONS
        for name, value in [list(given.items())[-1]]
    ],
)
def test_built_from_python(kind: Callable[..., Any], given: dict[str, Any]) -> None:
    name = list(given)[-1]
    with pytest.raises(ValueError, match=rf"^{name} is .*(expected|pairs)") as refused:
        kind(**given)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


def test_restored_from_a_checkpoint() -> None:
    with pytest.raises(ValueError, match="latent_dim is 1000000000; expected a whole number from 1 to 8,192"):
        restore(WorldModelConfig, {"latent_dim": 10**9})


CONFIG = """
threads: 1
trainer: {max_epochs: 1, accelerator: cpu, logger: false, enable_progress_bar: false, enable_model_summary: false}
model: {class_path: tests.toy.ToyNetwork}
data: {class_path: tests.toy.ToyData}
"""
NETWORK = ["--model", "gssr.network.GoalNetwork"]
CALLS: dict[str, tuple[list[str], str]] = {
    "no thread": (["--threads", "0"], "threads is 0; expected null or a whole number from 1"),
    "a negative seed": (["--seed_everything", "-1"], "seed_everything is -1; expected"),
    "a latent state of width 0": ([*NETWORK, "--model.world.latent_dim", "0"], "model.world.latent_dim is 0; expected"),
    "terabytes": ([*NETWORK, "--model.world.hidden_dim", "1000000000"], "model.world.hidden_dim is 1000000000; expec"),
    "a share above 1": ([*NETWORK, "--model.objective.text_dropout", "2"], "model.objective.text_dropout is 2"),
    "NaN": ([*NETWORK, "--model.optimizer.lr", ".nan"], "model.optimizer.lr is nan; expected a number of at least 0"),
    "infinity": ([*NETWORK, "--model.steering.strength", ".inf"], "model.steering.strength is inf; expected"),
    "a word for a number": ([*NETWORK, "--model.world.latent_dim", "many"], "latent_dim.*many"),
    "an unknown injection": ([*NETWORK, "--model.speech.injection", "nose"], "speech.injection.*nose"),
    "a precision of all weights": ([*NETWORK, "--trainer.precision", "bf16-true"], "expected one of 32-true, bf16-mix"),
    "double precision": ([*NETWORK, "--trainer.precision", "64"], "trainer.precision is 64, but GoalNetwork keeps"),
    "no windows in a batch": (["--data", "datamodules.Sines", "--data.batch_size", "0"], "data.batch_size is 0; expec"),
    "checkpoints never": (["--checkpoint.every_n_steps", "0"], "checkpoint.every_n_steps is 0; expected"),
    "an average of nothing": (["--weight_average.decay", "1"], "weight_average.decay is 1"),
    "free nats below 0": (["--free_nats.start", "-1"], "free_nats.start is -1"),
    "no device": (["--trainer.devices", "0"], "trainer"),
    "an empty list of devices": (["--trainer.devices", "[]"], r"trainer.devices is \[\]; expected"),
    "a device twice": (["--trainer.devices", "[0, 0]"], r"trainer.devices is \[0, 0\]; expected"),
    "devices in words": (["--trainer.devices", "some"], "Lightning refuses these options of the trainer: `devices`"),
    "an unknown precision": (["--trainer.precision", "nonsense"], "trainer.precision: .*bf16-mixed"),
    "an unknown accelerator": (["--trainer.accelerator", "nonsense"], "invalid accelerator name"),
    "an unknown strategy": (["--trainer.strategy", "nonsense"], "invalid strategy name"),
    "fewer than no steps": (["--trainer.max_steps", "-5"], "trainer.max_steps is -5; expected"),
    "fewer than no epochs": (["--trainer.max_epochs", "-2"], "trainer.max_epochs is -2; expected"),
    "a validation at once": (["--trainer.val_check_interval", "0"], "trainer.val_check_interval is 0; expected"),
    "a validation after 2.5 epochs": (["--trainer.val_check_interval", "2.5"], "trainer.val_check_interval is 2.5"),
    "no gradient": (["--trainer.accumulate_grad_batches", "0"], "trainer.accumulate_grad_batches is 0; expected"),
    "a negative clip": (["--trainer.gradient_clip_val", "-1"], "trainer.gradient_clip_val is -1; expected"),
    "an unknown clip": (["--trainer.gradient_clip_algorithm", "x"], "trainer.gradient_clip_algorithm is 'x'; expected"),
    "half a batch too much": (["--trainer.limit_train_batches", "1.5"], "trainer.limit_train_batches is 1.5; expected"),
    "a time that is none": (["--trainer.max_time", "soon"], "Lightning refuses these options.*soon"),
    "a run name of 300 characters": (["--run", "x" * 300], "--run is 'x+...x+'; expected at most 200 printable"),
    "a run name of many bytes": (["--run", "\u20ac" * 99], "--run is .*expected at most 200"),
    "a run name that moves the cursor": (["--run", "mine\x1b[2J"], r"--run is 'mine\\x1b\[2J'; expected"),
    "a run name of two lines": (["--run", "mine\nyours"], r"--run is 'mine\\nyours'; expected"),
    "a checkpoint of 300 characters": (["--ckpt_path", "x" * 300], "--ckpt_path is 'x+...x+'; expected at most 200"),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stand_in(tmp_path, CONFIG, monkeypatch)
    return tmp_path


@pytest.mark.parametrize("name", CALLS)
def test_given_to_train(name: str) -> None:
    args, message = CALLS[name]
    with pytest.raises(SystemExit) as refused:
        train.main(["fit", *args])
    said = str(refused.value.code)
    assert re.search(message, said) and "\n" not in said and "Traceback" not in said
    assert runs() == []


@pytest.mark.parametrize(
    "given",
    [
        "--horizon 10000",
        "--horizon 0",
        "--context -1",
        "--goal_step 0",
        "--strength inf",
        "--strength nan",
        "--strength -1",
        "--samples 0",
        "--samples 1000000000",
        "--seed -1",
        f"--seed {'9' * 5000}",
    ],
    ids=lambda given: given[:24],
)
def test_given_to_plan(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    option, value = given.split()
    with pytest.raises(SystemExit) as refused:
        main(["plan", "--input", "ian.csv", f"{option}={value}"])
    assert refused.value.code == 2
    assert re.search(rf"argument {option}: '[^']+'?(\.\.\.)? is not a (whole )?number", capsys.readouterr().err)


class Refuses(Callback):
    """Ends training where an option that looked fine turns out to be bad."""

    def on_train_batch_start(self, *args: Any) -> None:
        raise ValueError("this cannot be trained")


def test_a_resume_that_fails_before_its_first_step_leaves_the_run_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    train.main(["fit", "--run", "mine"])
    config = (runs()[0] / "config.yaml").read_text()
    longer = ["fit", "--run", "mine", "--ckpt_path", "last", "--trainer.max_epochs", "2", "--trust", "tests.toy"]
    with monkeypatch.context() as patch:
        original = RunCLI.instantiate_trainer

        def instantiate(self: RunCLI, **kwargs: Any) -> Any:
            trainer = original(self, **kwargs)
            trainer.callbacks.append(Refuses())
            return trainer

        patch.setattr(RunCLI, "instantiate_trainer", instantiate)
        with pytest.raises((ValueError, SystemExit)):
            train.main([*longer, "--model.lr", "3.5"])
    assert (runs()[0] / "config.yaml").read_text() == config
    assert [file for file in os.listdir(runs()[0]) if "until" in file] == []
    cli = train.main(longer)
    assert cli.model.lr == 0.01 and cli.trainer.global_step == 10
    assert "max_epochs: 2" in (runs()[0] / "config.yaml").read_text()


def test_a_validation_between_two_optimizer_steps_is_refused() -> None:
    args = ["fit", "--trainer.accumulate_grad_batches", "2", "--trainer.val_check_interval"]
    with pytest.raises(SystemExit) as refused:
        train.main([*args, "3"])
    assert re.search("a validation every 3 of 5 batches falls between two optimizer steps", str(refused.value.code))
    assert runs() == []
    assert train.main([*args, "2"]).trainer.global_step == 3
    assert torch.load(runs()[0] / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
