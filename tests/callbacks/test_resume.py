"""A run that was stopped and resumed is, bit for bit, the run that was not stopped."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks import ConfigOfResumedRun, HonourOptimizerOptions
from callbacks.resume import random_state, set_random_state
from gssr.sequences.scaler import Scaler
from tests.callbacks.training import same, train, weights
from tests.toy import ToyData, ToyNetwork

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")

AFTER_EPOCHS: dict[str, Any] = {"val_check_interval": 7, "check_val_every_n_epoch": None}
BOTH: dict[str, Any] = AFTER_EPOCHS | {"max_steps": 100}
EVERY_SECOND: dict[str, Any] = {"check_val_every_n_epoch": 2}

# 20 rows in batches of 4: an epoch is 5 steps. Stops within an epoch, before a validation, at an epoch's end or start.
SCHEDULES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "validation every epoch": ({}, (2, 5, 6)),
    "validation within epochs": ({"val_check_interval": 2, "check_val_every_n_epoch": None}, (4, 5)),
    "validation after epochs": (AFTER_EPOCHS, (5, 7, 10)),
    "validation every second epoch": (EVERY_SECOND, (5, 10)),
    "steps alone": (AFTER_EPOCHS | {"max_epochs": -1, "max_steps": 13}, (5, 7, 10)),
    "steps and epochs": (BOTH, (5, 7, 10)),
    "no validation": ({"limit_val_batches": 0, "max_epochs": -1, "max_steps": 13}, (5, 8)),
    "accumulated gradients": ({"accumulate_grad_batches": 2, "max_epochs": 4}, (2, 3)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_stopped_anywhere_and_resumed_is_as_never_stopped(name: str, tmp_path: Path) -> None:
    options, stops = SCHEDULES[name]
    whole = train(tmp_path / "whole", **options)
    log = (tmp_path / "whole" / "metrics.csv").read_text()
    for stop in stops:
        folder = tmp_path / f"stopped-{stop}"
        assert train(folder, stop=stop, **options).global_step == stop
        resumed = train(folder, resume=True, **options)
        assert resumed.global_step == whole.global_step
        assert same(weights(resumed), weights(whole)), f"other weights after a stop at step {stop}"
        assert (folder / "metrics.csv").read_text() == log, f"other losses after a stop at step {stop}"


def test_stopped_twice(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    for stop in (3, 9):
        train(tmp_path / "run", stop=stop, resume=stop > 3)
    assert same(weights(train(tmp_path / "run", resume=True)), weights(whole))


@pytest.mark.parametrize(
    ("shorter", "longer"),
    [
        ({"max_epochs": 1}, {"max_epochs": 3}),
        ({"max_epochs": 1, "limit_val_batches": 0}, {"max_epochs": 3, "limit_val_batches": 0}),
        ({"max_epochs": -1, "max_steps": 7}, {"max_epochs": -1, "max_steps": 12}),
        *[({"max_epochs": n} | AFTER_EPOCHS, {"max_epochs": 4} | AFTER_EPOCHS) for n in (1, 2, 3)],
        *[({"max_epochs": n} | BOTH, {"max_epochs": 4} | BOTH) for n in (1, 2, 3)],
        ({"max_epochs": 1} | EVERY_SECOND, {"max_epochs": 3} | EVERY_SECOND),
    ],
)
def test_a_finished_run_goes_on_when_its_end_is_moved(
    shorter: dict[str, Any], longer: dict[str, Any], tmp_path: Path
) -> None:
    whole = train(tmp_path / "whole", **longer)
    train(tmp_path / "run", **shorter)
    assert same(weights(train(tmp_path / "run", resume=True, **longer)), weights(whole))
    # The last step of the shorter run was validated, too.
    run, log = (
        [{name: cell for name, cell in row.items() if not name.startswith("val/")} for row in csv.DictReader(text)]
        for text in ((tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("run", "whole"))
    )
    assert run == log


def test_validation_does_not_disturb_the_training_stream(tmp_path: Path) -> None:
    with_validation = train(tmp_path / "a")
    without = train(tmp_path / "b", limit_val_batches=0)
    assert same(weights(with_validation), weights(without))


class Watched(ToyNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[torch.Tensor] = []

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.rows.append(batch[0])
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(("stop", "size"), [(1, 10), (1, 7), (3, 2), (4, 3), (6, 5)])
def test_another_batch_size_is_honoured_within_an_epoch(stop: int, size: int, tmp_path: Path) -> None:
    whole, first, second = Watched(), Watched(), Watched()
    train(tmp_path / "whole", network=whole, data=ToyData(6), max_epochs=2)
    train(tmp_path / "run", network=first, data=ToyData(6), stop=stop, max_epochs=2)
    train(tmp_path / "run", network=second, data=ToyData(size), resume=True, max_epochs=2)
    assert torch.equal(torch.cat(first.rows + second.rows), torch.cat(whole.rows)), "rows were left out or seen twice"
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == list(range(len(first.rows) + len(second.rows)))


def test_another_amount_of_data_within_an_epoch_is_refused(tmp_path: Path) -> None:
    train(tmp_path, stop=2)
    with pytest.raises(ValueError, match="the saved order is of 20 windows"):
        train(tmp_path, resume=True, data=ToyData(size=40))
    with pytest.raises(ValueError, match="within an epoch of 5 batches of 4, an epoch now has 3 of 4"):
        train(tmp_path, resume=True, limit_train_batches=3)


@pytest.mark.parametrize("stop", [3, 5])
@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (2, 1), (1, 3)])
@pytest.mark.parametrize("early", [True, False], ids=["loader built early", "loader built late"])
def test_another_number_of_workers_changes_nothing(
    early: bool, before: int, after: int, stop: int, tmp_path: Path
) -> None:
    # Without epochs the number of steps is known at once, and the loader is built after the checkpoint has been read.
    options = {} if early else {"max_epochs": -1, "max_steps": 12}
    whole = train(tmp_path / "whole", **options)
    train(tmp_path / "run", data=ToyData(num_workers=before), stop=stop, **options)
    resumed = train(tmp_path / "run", data=ToyData(num_workers=after), resume=True, **options)
    assert same(weights(resumed), weights(whole))
    assert (tmp_path / "run" / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()


class Scaled(ToyData):
    """Toy data with a scaler, as all data of sequences have."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.scaler = Scaler(1)
        self.scaler.mean.fill_(mean)


def test_other_data_of_the_same_size_are_told(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    train(tmp_path, stop=2, data=Scaled(1.0))
    train(tmp_path, resume=True, data=Scaled(1.0), stop=4)
    assert not [w for w in recwarn if "training data" in str(w.message)]
    with pytest.warns(match="the training data are not those of the checkpoint.*Training goes on with the new data"):
        train(tmp_path, resume=True, data=Scaled(2.0))


def test_changed_optimizer_options_win_over_the_checkpoint(tmp_path: Path) -> None:
    train(tmp_path, stop=4)
    network = ToyNetwork(lr=0.1, weight_decay=0.5)
    trainer = train(tmp_path, resume=True, network=network, callbacks=[HonourOptimizerOptions()], max_epochs=1)
    group = trainer.optimizers[0].param_groups[0]
    assert group["weight_decay"] == 0.5
    assert group["lr"] == pytest.approx(0.1 / (1 + 0.1 * trainer.global_step))  # the schedule went on, scaled


def test_unchanged_optimizer_options_change_nothing(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "run", stop=4)
    assert same(weights(train(tmp_path / "run", resume=True, callbacks=[HonourOptimizerOptions()])), weights(whole))


def test_random_state_is_plain_and_whole(tmp_path: Path) -> None:
    import random

    import numpy as np

    def draw() -> list[float]:
        return [float(torch.rand(())), float(torch.randn(())), random.random(), random.gauss(0, 1), np.random.rand()]

    random.gauss(0, 1)  # leaves half of a pair behind
    torch.save(random_state(), tmp_path / "state.pt")
    expected = draw()
    draw()
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw() == expected


def test_the_config_of_a_resumed_run_is_replaced_and_kept(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("lr: 1\n")
    train(tmp_path, stop=2)
    train(tmp_path, resume=True, callbacks=[ConfigOfResumedRun(config, "lr: 1\n", 2)], max_epochs=1)
    assert [path.name for path in tmp_path.glob("config*")] == ["config.yaml"]
    train(tmp_path, resume=True, callbacks=[ConfigOfResumedRun(config, "lr: 2\n", 5)], max_epochs=2)
    assert config.read_text() == "lr: 2\n"
    assert (tmp_path / "config-until-step-000005.yaml").read_text() == "lr: 1\n"
