"""What validation measures, on hand-made cases."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from gssr.network import GoalNetwork
from gssr.network.noise import WindowNoise
from gssr.network.validation import batch_number, with_borrowed_goals
from gssr.sequences.batches import DealtBatches
from gssr.sequences.collate import collate
from gssr.sequences.record import Record
from tests.conftest import SENTENCES
from tests.networks import make_network


def record(series: str, start: float, goal: str | None, bound: float = 40.0) -> Record:
    value = np.full((5, 2), start, np.float32)
    limits = np.array([bound, np.nan], np.float32)
    return Record(series, np.arange(5.0), value, [None] * 5, goal, limits, limits, 2)


@pytest.fixture
def network(tiny_folder: Path) -> GoalNetwork:
    return make_network(tiny_folder, latent_dim=4, hidden_dim=16, text_layers=(1,), goal_layer=1,
        names=["a", "b"], units=["", ""], resolution=[5.0, 0.0],
    )  # fmt: skip


def test_a_goal_is_borrowed_from_the_most_similar_start_of_another_series() -> None:
    batch = collate(
        [
            record("x", 50, "own", 1.0),
            record("x", 51, "same series", 2.0),
            record("y", 60, "near", 3.0),
            record("z", 54, None, 4.0),
            record("w", 90, "far", 5.0),
        ]
    )
    lent = with_borrowed_goals(batch, batch)
    low, high = lent.goal_low, lent.goal_high
    assert lent.goal == ["near", "near", "same series", "same series", "near"]
    assert low[:, 0].tolist() == high[:, 0].tolist() == [3.0, 3.0, 2.0, 2.0, 3.0]


def test_nothing_is_borrowed_where_there_is_one_series() -> None:
    batch = collate([record("x", 50, "a"), record("x", 60, "b")])
    assert with_borrowed_goals(batch, batch).goal == [None, None]


def test_a_batch_is_measured_by_one_process_under_the_number_that_it_has_in_all_of_them() -> None:
    numbers = []
    for rank in range(3):
        for size in (4, 13):  # two batches for three processes, and seven
            loader = DataLoader(range(size), batch_sampler=DealtBatches(size, 2, rank, 3))
            numbers.append([batch_number(loader, index) for index in range(len(loader))])
    assert numbers == [[0], [0, 3, 6], [1], [1, 4], [None], [2, 5]]
    assert batch_number(DataLoader(range(4)), 2) == 2  # a loader of someone else's, in one process


def test_a_miss_counts_in_tolerances_outside_the_bounds(network: GoalNetwork) -> None:
    nan = float("nan")
    value = torch.tensor([[60.0, 0.0], [49.0, 0.0], [35.0, 0.0]])
    low, high = torch.tensor([[40.0, nan]] * 3), torch.tensor([[50.0, nan]] * 3)
    batch = collate([record(str(i), 50.0, "a") for i in range(3)]).with_goals(["a"] * 3, low, high)
    assert torch.allclose(network.validation.miss(value, batch), torch.tensor([1.0, 0.0, 0.5]))


def test_latent_health_tells_a_latent_that_carries_the_value(network: GoalNetwork) -> None:
    g = np.random.default_rng(0)
    records = [
        Record(f"s{i}", np.arange(6.0), g.normal(i, 0.1, (6, 2)).astype(np.float32), [None] * 6, goal_start=2)
        for i in range(8)
    ]
    batch = collate(records)
    told = network.forecaster.latent_health(batch)
    assert told["kl_per_dim"].shape == (4,)
    assert torch.isfinite(told["kl_per_dim"]).all() and (told["kl_per_dim"] >= 0).all()
    # A head that ignores x is as good with another sequence's x.
    with torch.no_grad():
        network.world.value_head.net[-1].weight.zero_()
    ignoring = network.forecaster.latent_health(batch)
    assert ignoring["value_error"] == pytest.approx(ignoring["value_error_permuted"])


class Windows(LightningDataModule):
    """48 windows of a random walk, so that rollouts of an untrained network are too wide or too narrow."""

    value_names, value_units, value_resolution = ("a", "b"), ("", ""), (5.0, 0.0)
    has_text, has_goals, known_values, train_through = False, False, 0, "train"

    def texts(self) -> list[str]:
        return []

    def val_dataloader(self) -> DataLoader[Record]:
        steps = np.random.default_rng(0).normal(size=(48, 6, 2)).cumsum(1).astype(np.float32)
        records = [Record(f"s{i}", np.arange(6.0), walk, [None] * 6, goal_start=2) for i, walk in enumerate(steps)]
        return DataLoader(records, batch_size=16, collate_fn=collate)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_validation_fits_how_wide_the_fans_are_and_rollouts_take_it(network: GoalNetwork) -> None:
    data = Windows()
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.validate(network, data, verbose=False)
    factor = network.state_dict()["calibration.factor"]
    assert (factor[0, :3] != 1).all() and (factor[1] == 1).all()  # no window has a goal
    batch = next(iter(data.val_dataloader()))
    fitted, plain = (network.rollout(batch, [None] * 16, 32, calibrated=flag) for flag in (True, False))
    assert torch.equal(fitted.mean, plain.mean)
    torch.testing.assert_close(fitted.sample.std(0), plain.sample.std(0) * factor[0, :3])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_windows_that_are_trained_on_do_not_say_how_wide_fans_are(network: GoalNetwork) -> None:
    data = Windows()
    data.train_through = "val"
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.validate(network, data, verbose=False)
    assert (network.state_dict()["calibration.factor"] == 1).all() and "val/open_loop_mae" in trainer.callback_metrics


def test_the_score_of_data_without_goals_leaves_out_what_is_known_beforehand(network: GoalNetwork) -> None:
    batch = collate([record("x", 50.0, None), record("y", 40.0, None)])
    batch.goal_low[:] = batch.goal_high[:] = torch.nan
    forecast = batch.value[:, 3:] + torch.tensor([2.0, 8.0])
    for known, expected in ((0, 5.0), (1, 2.0)):
        network.validation.known_values = known
        network.validation.begin("val")
        network.validation._add_errors(batch, forecast)
        assert network.validation.means()["val/open_loop_mae"] == pytest.approx(expected)


def test_means_are_weighted_by_what_was_counted_and_one_nan_is_an_error(network: GoalNetwork) -> None:
    validation = network.validation
    validation.begin("val")
    for mean, count in [(1.0, 3), (2.0, 1)]:
        validation._add("few", torch.tensor(mean), count)
    assert validation.means() == {"val/few": 1.25}
    for mean, count in [(1.0, 1), (float("nan"), 2)]:
        validation._add("broken", torch.tensor(mean), count)
    with pytest.raises(RuntimeError, match="val/broken is not finite"):
        validation.means()


def test_what_beliefs_tell_of_texts_is_measured_kept_and_decides_whether_plans_have_any(network: GoalNetwork) -> None:
    """Texts that stand behind two different beliefs; a network whose beliefs are all the same tells nothing."""
    records = [replace(record(f"s{i}", 10.0 * i, None), text=[SENTENCES[i % 2]] * 5) for i in range(6)]
    batch = collate(records)
    for alike in (False, True):
        x = torch.zeros(6, 5, 4) if alike else torch.arange(6.0)[:, None, None].expand(6, 5, 4)
        network.objective.text_loss(batch, x, WindowNoise(list(range(6)), 0, every=1))
        gain = network.objective.text_gain
        assert gain is not None and gain.count > 0
        assert (gain.mean.abs().item() < 1e-5) == (alike or not any(p.any() for p in network.speaker.parameters()))
    network.validation.begin("val")
    network.validation._sums["text_gain", None] = 0.0, 1
    assert "val/text_gain" not in network.validation.means()
    network.validation.calibrate()
    with pytest.warns(UserWarning, match="plans have no texts"):
        assert network.plan(batch, [None] * 6, 4).text == [[] for _ in range(6)]
    network.objective.text_loss(batch.select([0]), x[:1], WindowNoise([0], 0, every=1))
    assert network.objective.text_gain is None


def test_a_network_that_was_trained_without_texts_writes_none(network: GoalNetwork) -> None:
    batch = collate([record("a", 10.0, None)])
    network.objective.lacks = {"text"}
    network.validation.begin("val")
    network.validation.means()
    network.validation.calibrate()
    with pytest.warns(UserWarning, match="training had none"):
        assert network.plan(batch, [None], 4).text == [[]]
