"""How training ends: the last step is validated, and a score that gets no better ends it; a resume changes neither."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

from gssr.runs.folders import BEST, LAST, checkpoint_file
from tests.callbacks.training import StopAfter, same, train, trainer_for, weights
from tests.toy import ToyData, ToyNetwork

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")
EPOCH = 5  # steps


class Scores(ToyNetwork):
    """Logs given scores by the number of optimizer steps, 9 where none is given."""

    def __init__(self, **scores: float) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.scores = {int(name[1:]): score for name, score in scores.items()}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/open_loop_mae", self.scores.get(self.trainer.global_step, 9.0))


class Validated(Callback):
    """The optimizer steps after which a validation was made."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_validation_end(self, trainer: Trainer, *args: Any) -> None:
        self.steps.append(trainer.global_step)


def saved(folder: Path, name: str) -> dict[str, Any]:
    return torch.load(checkpoint_file(folder, name), weights_only=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_steps": 8, "max_epochs": -1}, [5, 8]),
        ({"max_steps": 3, "max_epochs": -1}, [3]),
        ({"max_steps": 10, "max_epochs": -1}, [5, 10]),
        ({"max_epochs": 3, "check_val_every_n_epoch": 2}, [10, 15]),
        ({"max_epochs": 4, "check_val_every_n_epoch": 2}, [10, 20]),
        ({"max_epochs": -1, "max_steps": 11, "check_val_every_n_epoch": None, "val_check_interval": 4}, [4, 8, 11]),
        ({"max_epochs": 2, "max_steps": 7, "check_val_every_n_epoch": 9}, [7]),
        ({"max_epochs": 2, "val_check_interval": 0.4}, [2, 4, 5, 7, 9, 10]),
        ({"max_epochs": 3, "limit_val_batches": 0}, []),
    ],
)  # fmt: skip
def test_the_last_step_is_validated_once(options: dict[str, Any], expected: list[int], tmp_path: Path) -> None:
    found = Validated()
    checkpoint = {"monitor": None} if "limit_val_batches" in options else {}
    trainer = train(tmp_path, network=Scores(), callbacks=[found], checkpoint={"keep": 0} | checkpoint, **options)
    last = [] if "limit_val_batches" in options else [trainer.global_step]
    assert found.steps[-1:] == last and len(set(found.steps)) == len(found.steps)
    assert [step for step in found.steps if step not in (5, 10)] == [step for step in expected if step not in (5, 10)]
    assert saved(tmp_path, LAST)["global_step"] == trainer.global_step


def test_the_last_step_can_be_the_best(tmp_path: Path) -> None:
    train(tmp_path, network=Scores(s5=2.0, s8=1.0), max_steps=8, max_epochs=-1)
    assert saved(tmp_path, BEST)["global_step"] == 8


@pytest.mark.parametrize("end", [7, 8, 10])
def test_a_run_that_goes_on_behind_its_last_step_equals_one_that_never_ended(end: int, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", max_steps=18, max_epochs=-1)
    train(tmp_path / "parts", max_steps=end, max_epochs=-1)
    parts = train(tmp_path / "parts", resume=True, max_steps=18, max_epochs=-1)
    assert parts.global_step == whole.global_step == 18 and same(weights(whole), weights(parts))


PATIENT = {"checkpoint": {"patience": 2, "keep": 0}, "max_epochs": 9}


@pytest.mark.parametrize(
    ("scores", "end", "best"),
    [
        ({"s5": 1.0}, 15, 5),
        ({"s5": 3.0, "s10": 4.0, "s15": 2.0}, 25, 15),
        ({f"s{step}": 10.0 / step for step in range(5, 50, 5)}, 45, 45),
        ({"s5": 1.0, "s10": 1.0, "s15": 1.0}, 15, 5),
        ({"s5": float("nan"), "s10": 3.0}, 20, 10),
    ],
)
def test_training_ends_when_no_validation_was_better(
    scores: dict[str, float], end: int, best: int, tmp_path: Path
) -> None:
    trainer = train(tmp_path, network=Scores(**scores), **PATIENT)
    assert trainer.global_step == saved(tmp_path, LAST)["global_step"] == end
    assert saved(tmp_path, BEST)["global_step"] == best


def test_it_ends_within_an_epoch_too(tmp_path: Path) -> None:
    by_steps = {"check_val_every_n_epoch": None, "val_check_interval": 3}
    trainer = train(tmp_path, network=Scores(s3=1.0), **PATIENT, **by_steps)
    assert trainer.global_step == saved(tmp_path, LAST)["global_step"] == 9
    assert saved(tmp_path, LAST)["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"] == 1


@pytest.mark.parametrize("stop", [6, 9, 11, 14])
def test_a_resumed_run_goes_on_counting(stop: int, tmp_path: Path) -> None:
    scores = {"s5": 3.0, "s10": 2.0}
    whole = train(tmp_path / "whole", network=Scores(**scores), **PATIENT)
    train(tmp_path / "parts", network=Scores(**scores), stop=stop, **PATIENT)
    parts = train(tmp_path / "parts", network=Scores(**scores), resume=True, **PATIENT)
    assert parts.global_step == whole.global_step == 20 and same(weights(whole), weights(parts))


def test_a_run_that_ended_is_not_trained_further_unless_it_is_given_more_patience(tmp_path: Path) -> None:
    for _ in range(2):
        assert (
            train(tmp_path, network=Scores(s5=1.0), resume=(tmp_path / "checkpoints").exists(), **PATIENT).global_step
            == 15
        )
    longer = PATIENT | {"checkpoint": {"patience": 4, "keep": 0}}
    assert train(tmp_path, network=Scores(s5=1.0), resume=True, **longer).global_step == 25


def test_without_a_monitored_score_patience_never_ends(tmp_path: Path) -> None:
    options = {"checkpoint": {"patience": 1, "monitor": None, "keep": 0}, "max_epochs": 4}
    assert train(tmp_path, network=Scores(s5=1.0), **options).global_step == 20


def test_an_accumulated_step_is_whole_at_the_end(tmp_path: Path) -> None:
    options = {"accumulate_grad_batches": 2, "max_steps": 5, "max_epochs": -1}
    found = Validated()
    trainer = trainer_for(tmp_path, [found, StopAfter(99)], **options)
    trainer.fit(Scores(), ToyData())
    assert trainer.global_step == 5 and found.steps[-1] == 5


def test_a_network_that_training_makes_worse_is_kept_as_it_began(tmp_path: Path) -> None:
    """Where all validation batches are scored before the first step; it trains on from there as any other."""
    train(tmp_path, network=Scores(_0=1.0, _5=2.0), num_sanity_val_steps=-1)
    best = torch.load(checkpoint_file(tmp_path, BEST), weights_only=True)
    assert best["global_step"] == 0
    branch = trainer_for(tmp_path / "branch")
    branch.fit(Scores(), ToyData(), ckpt_path=checkpoint_file(tmp_path, BEST), weights_only=True)
    assert branch.global_step == 3 * EPOCH


def test_a_look_at_a_few_validation_batches_chooses_nothing(tmp_path: Path) -> None:
    train(tmp_path, network=Scores(_0=1.0, _5=2.0), num_sanity_val_steps=1)
    assert torch.load(checkpoint_file(tmp_path, BEST), weights_only=True)["global_step"] == EPOCH
