"""A part that does not learn stops the run, by name; a run that learns is left alone."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from callbacks import GradientError, GradientNormCheck
from callbacks.gradient_norms import component_norms, distance, projections
from tests.callbacks.training import same, train, weights
from tests.toy import ToyNetwork

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


def logged(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_norms_are_those_of_a_loop() -> None:
    modules = {"a": nn.Linear(3, 2), "b": nn.Linear(2, 2), "c": nn.Linear(2, 1)}
    modules["b"](modules["a"](torch.randn(5, 3))).square().sum().backward()
    norms = component_norms(modules)
    for name in ("a", "b"):
        squares = [float(x) ** 2 for p in modules[name].parameters() for x in p.grad.flatten()]
        assert norms[name] == pytest.approx(math.sqrt(math.fsum(squares)), rel=1e-6)
    assert norms["c"] == 0.0


def test_norms_are_logged_and_training_is_the_same(tmp_path: Path) -> None:
    watched = train(tmp_path / "a", callbacks=[GradientNormCheck()])
    assert same(weights(watched), weights(train(tmp_path / "b")))
    rows = logged(tmp_path / "a")
    for name in ("rssm", "value_head", "prefix"):
        norms = [float(row[f"grad_norm/{name}"]) for row in rows if row[f"grad_norm/{name}"]]
        assert len(norms) == 15
        assert min(norms) > 0
        assert float(rows[-1][f"moved/{name}"]) > 0


class Detached(ToyNetwork):
    """The prefix has a loss that never reaches it: the mistake that this callback is for."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        h = self.rssm(x)
        return (self.value_head(h) - y).square().mean() + self.prefix(h).detach().mean() + 0.0 * self.prefix(h).sum()


def test_a_part_without_gradient_stops_the_run_by_name(tmp_path: Path) -> None:
    check = GradientNormCheck(patience=3)
    with pytest.raises(GradientError, match=r"prefix has had no usable gradient for 3 steps .*: text\. Check"):
        train(tmp_path, network=Detached(), callbacks=[check])
    assert check.without_gradient == {"rssm": 0, "value_head": 0, "prefix": 3}


def test_patience_is_counted_over_a_stop(tmp_path: Path) -> None:
    train(tmp_path, network=Detached(), callbacks=[GradientNormCheck(patience=6)], stop=4)
    with pytest.raises(GradientError, match="no usable gradient for 6 steps"):
        train(tmp_path, network=Detached(), callbacks=[GradientNormCheck(patience=6)], resume=True)


def test_a_part_without_a_loss_may_rest(tmp_path: Path) -> None:
    network = ToyNetwork(alpha_text=0.0)
    trainer = train(tmp_path, network=network, callbacks=[GradientNormCheck(patience=2)])
    assert trainer.global_step == 15
    assert float(logged(tmp_path)[0]["grad_norm/prefix"]) == 0.0


class Explodes(ToyNetwork):
    """At the third step the loss, or only a gradient, is not finite."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.global_step == 2 and self.where == "loss":
            loss = loss * float("nan")
        if self.global_step == 2 and self.where == "gradient":
            zero = self.value_head.weight.sum() * 0  # 0 at a point where the root's slope is infinite
            loss = loss + zero.sqrt()
        return loss


@pytest.mark.parametrize(
    ("where", "message"), [("loss", "the loss is nan at step 2"), ("gradient", "value_head is nan")]
)
def test_what_is_not_finite_stops_before_the_update(where: str, message: str, tmp_path: Path) -> None:
    network = Explodes(where)
    seen: list[list[Tensor]] = []

    class Remember(GradientNormCheck):
        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            seen.append(weights(trainer))

    with pytest.raises(GradientError, match=message):
        train(tmp_path, network=network, callbacks=[Remember()])
    assert same(seen[-1], [*network.state_dict().values()])
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


class Still(ToyNetwork):
    """Gradients arrive, but the optimizer was not given the prefix."""

    def parameters_of_components(self) -> list[nn.Parameter]:
        return [p for name, part in self.components().items() if name != "prefix" for p in part.parameters()]


def test_a_part_that_never_moved_is_told_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(GradientError, match="prefix: the weights are still the initial ones after 15 steps"):
        train(tmp_path, network=Still(), callbacks=[GradientNormCheck()])


def test_after_a_stop_the_beginning_is_still_the_first_one(tmp_path: Path) -> None:
    train(tmp_path / "whole", callbacks=[GradientNormCheck()])
    train(tmp_path / "run", callbacks=[GradientNormCheck()], stop=7)
    train(tmp_path / "run", callbacks=[GradientNormCheck()], resume=True)
    names = [f"moved/{name}" for name in ("rssm", "value_head", "prefix")]
    whole, resumed = logged(tmp_path / "whole")[-1], logged(tmp_path / "run")[-1]
    assert [resumed[name] for name in names] == [whole[name] for name in names]


def test_the_estimated_distance_is_near_the_true_one() -> None:
    torch.manual_seed(0)
    ratios = []
    for _ in range(20):
        a, b = nn.Linear(40, 30), nn.Linear(40, 30)
        true = math.sqrt(
            sum(float((p - q).square().sum()) for p, q in zip(a.parameters(), b.parameters(), strict=True))
        )
        start = projections(a)
        assert start[-1] == pytest.approx(math.sqrt(sum(float(p.square().sum()) for p in a.parameters())), rel=1e-6)
        ratios.append((distance(start, projections(b)) * start[-1] / true) ** 2)
        assert distance(start, projections(a)) == 0.0
    assert sum(ratios) / len(ratios) == pytest.approx(1.0, abs=0.3)  # standard error about 0.11


def test_every_looks_only_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(
        "callbacks.gradient_norms.component_norms", lambda parts: looks.append(1) or component_norms(parts)
    )
    train(tmp_path, callbacks=[GradientNormCheck(every=5)])
    assert len(looks) == 3
