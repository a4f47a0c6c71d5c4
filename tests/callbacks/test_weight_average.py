"""The average of the weights: what it is, who sees it, and that a stop does not change it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks import WeightAverage
from gssr.runs.folders import BEST, LAST, checkpoint_file
from tests.callbacks.training import same, train, weights
from tests.toy import ToyNetwork

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


class Watch(Callback):
    """Keeps the weights after every step, and those that validation sees."""

    def __init__(self) -> None:
        self.trained: list[list[Tensor]] = []
        self.validated: list[list[Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.trained.append([p.detach().clone() for p in pl_module.parameters()])

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.validated.append([p.detach().clone() for p in pl_module.parameters()])


def averaged(first: list[Tensor], steps: list[list[Tensor]], decay: float) -> list[Tensor]:
    """Step by step from the definition, in double precision."""
    found = [p.double() for p in first]
    for t, step in enumerate(steps, 1):
        d = min(decay, (1 + t) / (10 + t))
        found = [d * old + (1 - d) * new.double() for old, new in zip(found, step, strict=True)]
    return found


def close(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.allclose(x.double(), y.double(), atol=1e-6) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("decay", [0.999, 0.2])
def test_validation_and_what_is_left_are_the_average(decay: float, tmp_path: Path) -> None:
    network, watch = ToyNetwork(), Watch()
    first = [p.detach().clone() for p in network.parameters()]
    trainer = train(tmp_path, network=network, callbacks=[WeightAverage(decay), watch])
    per_epoch = len(watch.trained) // 3
    for epoch in (1, 2, 3):
        expected = averaged(first, watch.trained[: epoch * per_epoch], decay)
        assert close(watch.validated[2 * epoch - 1], expected)
    assert close([p.detach() for p in network.parameters()], expected)
    assert not close(watch.trained[-1], expected)
    saved = torch.load(checkpoint_file(tmp_path, LAST), weights_only=True)
    assert same([saved["state_dict"][name] for name in trainer.lightning_module.state_dict()], weights(trainer))
    assert checkpoint_file(tmp_path, BEST).exists()


def test_training_is_the_same_with_an_average_and_without(tmp_path: Path) -> None:
    with_it, without = Watch(), Watch()
    train(tmp_path / "a", callbacks=[WeightAverage(), with_it])
    train(tmp_path / "b", callbacks=[without])
    assert all(same(a, b) for a, b in zip(with_it.trained, without.trained, strict=True))


@pytest.mark.parametrize("stop", [2, 5, 6])
@pytest.mark.parametrize("options", [{}, {"val_check_interval": 2, "check_val_every_n_epoch": None}])
def test_stopped_anywhere_and_resumed_is_as_never_stopped(stop: int, options: dict[str, Any], tmp_path: Path) -> None:
    whole, resumed, before = Watch(), Watch(), Watch()
    uninterrupted = train(tmp_path / "whole", callbacks=[WeightAverage(), whole], **options)
    train(tmp_path / "run", stop=stop, callbacks=[WeightAverage(), before], **options)
    after = train(tmp_path / "run", resume=True, callbacks=[WeightAverage(), resumed], **options)
    assert same(weights(after), weights(uninterrupted))
    for part in ("trained", "validated"):
        seen = getattr(before, part) + getattr(resumed, part)
        assert all(same(a, b) for a, b in zip(seen, getattr(whole, part), strict=True))


class Shared(ToyNetwork):
    """A network in which one part has two names, as the steering of a goal network has."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.again = next(self.children())


def test_a_part_with_two_names_is_saved_as_the_average_under_both(tmp_path: Path) -> None:
    network = Shared()
    whole = train(tmp_path / "whole", network=network, callbacks=[WeightAverage()])
    saved = torch.load(checkpoint_file(tmp_path / "whole", LAST), weights_only=True)["state_dict"]
    assert all(torch.equal(saved[name], value) for name, value in network.state_dict().items())
    train(tmp_path / "run", stop=6, network=Shared(), callbacks=[WeightAverage()])
    resumed = train(tmp_path / "run", resume=True, network=Shared(), callbacks=[WeightAverage()])
    assert same(weights(resumed), weights(whole))


def test_a_step_of_several_batches_counts_once(tmp_path: Path) -> None:
    network, watch = ToyNetwork(), Watch()
    first = [p.detach().clone() for p in network.parameters()]
    train(tmp_path, network=network, callbacks=[WeightAverage(), watch], accumulate_grad_batches=5, max_epochs=2)
    expected = averaged(first, watch.trained[4::5], 0.999)
    assert close([p.detach() for p in network.parameters()], expected)


def test_a_checkpoint_without_an_average_starts_one_from_its_weights(tmp_path: Path) -> None:
    train(tmp_path, stop=5)
    saved = torch.load(checkpoint_file(tmp_path, LAST), weights_only=True)["state_dict"]
    network, watch = ToyNetwork(), Watch()
    train(tmp_path, resume=True, network=network, callbacks=[WeightAverage(), watch])
    named = [name for name, _ in network.named_parameters()]
    found = [saved[name].double() for name in named]
    for t, step in enumerate(watch.trained, 6):
        d = (1 + t) / (10 + t)
        found = [d * old + (1 - d) * new.double() for old, new in zip(found, step, strict=True)]
    assert close([p.detach() for p in network.parameters()], found)


def test_a_decay_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="decay is 1"):
        WeightAverage(1.0)
