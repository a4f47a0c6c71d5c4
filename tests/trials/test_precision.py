"""Numbers keep their digits on the way into a file: rates, concentrations, large counts, bounds of goals."""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch

from gssr.commands import plan as plan_command
from gssr.evaluation.predictions import Forecast
from gssr.sequences.collate import collate
from gssr.sequences.record import Record
from tests.evaluation.fakes import FakePlan
from tests.networks import make_network

pytestmark = pytest.mark.trial

SAMPLES, STEPS = 40, 3


def line(value: torch.Tensor, rollouts: int | None = None) -> dict:
    """What a file says of plans with some values (C + H) of one dimension; quantiles are those values, too."""
    known = value.float().masked_fill(~value.isfinite(), torch.nan).numpy()[:, None]
    record = Record(
        "s", np.arange(len(known)) * 24.0, known, [None] * len(known), goal_start=0, goal_step=len(known) - 1
    )
    record.goal_low, record.goal_high = known[0], known[-1]
    ahead = value[None, 1:, None]
    imagined = SimpleNamespace(mean=ahead.expand(SAMPLES, -1, -1)[:, None], sample=ahead[None])
    plan = FakePlan(imagined, ahead, ahead[..., None].expand(-1, -1, -1, 5), [[]])
    return json.loads(Forecast(collate([record]), plan, plan, ["y"], [""]).lines(rollouts)[0])


# davidusb-geek/emhass#82: forecasts of small values were written as 0.0.
@pytest.mark.parametrize(
    "first",
    [0.0021, 1 / 3, 1e-30, 1.1754944e-38, 1e-45, 123456.78, 16777217, 3.3895313e38, -0.00012345, 0.1 + 0.2],
    ids=repr,
)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_each_number_of_a_file_gives_its_tensor_back(first: float, kind: torch.dtype) -> None:
    value = (torch.tensor([1.0, 0.5, 0.9, -0.3], dtype=torch.float64) * first).to(kind)
    found, known = line(value), value.float()

    def back(numbers: list, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.float64).flatten(1)[:, 0].to(dtype)

    assert torch.equal(back(found["context"], torch.float32), known[:1])
    assert torch.equal(back(found["truth"], torch.float32), known[1:])
    for name in ("with_goal", "without_goal"):
        for part in ("mean", "quantiles"):
            assert torch.equal(back(found[name][part], kind), value[1:])
        assert torch.equal(back(found[name]["rollouts"][7], kind), value[1:])
    assert torch.equal(back([found["goal_low"], found["goal_high"]], torch.float32), known[[0, -1]])


@pytest.mark.parametrize("number", [0.1, 0.0021, 35.0, 1e20, 123456.79, -1.5], ids=repr)
def test_numbers_have_no_more_digits_than_they_need(number: float) -> None:
    assert json.dumps(line(torch.tensor([number, number]))["context"]) == f"[[{number}]]"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")], ids=repr)
def test_what_is_no_number_is_null(number: float) -> None:
    assert line(torch.tensor([1.0, number]))["with_goal"]["mean"] == [[None]]


def test_no_zero_is_negative() -> None:
    found = line(torch.tensor([-0.0, -0.0]))
    assert "-" not in json.dumps([found[part] for part in ("context", "truth", "goal_low", "with_goal")])


@pytest.mark.parametrize(("asked", "written"), [(None, SAMPLES), (3, 3), (0, 0), (1000, SAMPLES)])
def test_a_file_says_of_how_many_rollouts_it_holds_some(asked: int | None, written: int) -> None:
    plan = line(torch.ones(4), asked)["with_goal"]
    assert (len(plan["rollouts"]), plan["samples"]) == (written, SAMPLES)


@pytest.fixture(scope="module")
def checkpoint(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = make_network(tiny_folder, latent_dim=4, hidden_dim=8, text_layers=(2,), goal_layer=2, names=["rate"])
    network.world.scaler.fit(torch.tensor([[0.0021], [0.0024], [0.0018]]))
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_model_summary=False)
    trainer.strategy.connect(network)
    file = tmp_path_factory.mktemp("run") / "best.ckpt"
    trainer.save_checkpoint(file)
    return file


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_a_plan_keeps_the_digits_of_its_history(kind: str, scale: float, checkpoint: Path, tmp_path: Path) -> None:
    rates = [rate * scale for rate in (0.0021, 0.00213, 0.002173, 0.0021731)]
    frame = pd.DataFrame({"time": ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"], "rate": rates})
    file = tmp_path / f"t.{kind}"
    if kind == "parquet":
        frame.to_parquet(file)
    elif kind == "jsonl":
        frame.to_json(file, orient="records", lines=True, double_precision=15)
    else:
        frame.to_csv(file, index=False, sep="\t" if kind == "tsv" else ",")
    parser = argparse.ArgumentParser()
    plan_command.add_commands(parser.add_subparsers())
    given = ("--input", file, "--ckpt_path", checkpoint, "--no-texts", "--json", tmp_path / "plan.json")
    options = parser.parse_args(["plan", *map(str, given), "--samples", str(SAMPLES), "--horizon", str(STEPS)])
    options.run(options)
    found = json.loads((tmp_path / "plan.json").read_text())
    assert [row[0] for row in found["context"]] == [float(str(np.float32(rate))) for rate in rates]
    plan = found["without_goal"]
    assert np.shape(plan["rollouts"]) == (SAMPLES, STEPS, 1) and plan["samples"] == SAMPLES
    assert len({rollout[0][0] for rollout in plan["rollouts"]}) == SAMPLES
    np.testing.assert_allclose(np.mean(plan["rollouts"], axis=0), plan["mean"], rtol=1e-4)
