import csv
from pathlib import Path

import pytest
from lightning import LightningModule

from callbacks import FreeNatsAnnealing
from tests.callbacks.training import train

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


def test_a_straight_line_then_constant() -> None:
    anneal = FreeNatsAnnealing(start=3.0, end=1.0, steps=4)
    assert [anneal.value(step) for step in range(6)] == [3.0, 2.5, 2.0, 1.5, 1.0, 1.0]
    assert FreeNatsAnnealing(start=3.0, end=1.0, steps=0).value(0) == 1.0


def test_every_step_is_trained_with_its_own_value_also_after_a_stop(tmp_path: Path) -> None:
    anneal = FreeNatsAnnealing(start=1.0, end=0.0, steps=10)
    train(tmp_path, stop=4, callbacks=[anneal])
    resumed = train(tmp_path, resume=True, callbacks=[FreeNatsAnnealing(start=1.0, end=0.0, steps=10)])
    with open(tmp_path / "metrics.csv", newline="") as file:
        logged = [float(row["train/free_nats"]) for row in csv.DictReader(file)]
    assert logged == pytest.approx([anneal.value(step) for step in range(15)])
    assert resumed.lightning_module.objective.free_nats == anneal.value(14)


def test_nonsense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="start is -1.0"):
        FreeNatsAnnealing(start=-1.0)
    with pytest.raises(ValueError, match="sets objective.free_nats, which LightningModule lacks"):
        FreeNatsAnnealing().on_fit_start(None, LightningModule())  # type: ignore[arg-type]
