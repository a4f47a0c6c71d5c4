"""The calendar in the units: what is fitted, when it is kept, and that forecasts follow it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gssr.network import GoalNetwork
from gssr.network.calendar import expected, fit_waves, scale_of, waves
from gssr.network.fitting import adopt
from gssr.sequences.collate import collate
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Batch, Record
from gssr.sequences.scaler import Scaler
from tests.network.test_goal_network import C, H, record
from tests.networks import make_network

DAY = 24.0


def daily(years: float, size: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of days with a year of the given size, and noise of 1."""
    time = np.arange(0, years * 365.25) * DAY
    return time, size * np.sin(2 * np.pi * time / (365.25 * DAY)) + np.random.default_rng(seed).normal(size=len(time))


def windows(time: np.ndarray, value: np.ndarray, stride: int = 1) -> list[Record]:
    length = C + H
    return [
        replace(record(0), series="s", goal=None, time=time[i : i + length], value=value[i : i + length, None],
            text=[None] * length, goal_low=None, goal_high=None)
        for i in range(0, len(time) - length + 1, stride)
    ]  # fmt: skip


def scaler(value: np.ndarray) -> Scaler:
    return Scaler(1).fit(value[:, None])


def test_waves_repeat_after_their_period() -> None:
    time = torch.arange(0.0, 400.0)[None] * 24
    found = waves(torch.cat([time, time + 168], 1))
    week = slice(6, 12)
    torch.testing.assert_close(found[:, :400, week], found[:, 400:, week], atol=1e-6, rtol=0)
    assert found.shape == (1, 800, 18) and (found[:, :400, :6] - found[:, 400:, :6]).abs().max() > 0.1


def test_a_year_is_found_beside_a_trend() -> None:
    time, value = daily(6, 5.0)
    value += np.linspace(0, 20, len(value))
    batch, own = collate(windows(time, value, 3)), scaler(value)
    assert fit_waves(batch, own) == ["year", "week"]
    truth = 5 * torch.sin(2 * torch.pi * batch.time / (365.25 * DAY))
    assert (expected(batch, own)[..., 0] - truth).abs().mean() < 0.4


@pytest.mark.parametrize(
    ("step", "rows", "named"),
    [(DAY, 800, ["week"]), (DAY, 2000, ["year", "week"]), (1.0, 300, ["day"]), (30.4375 * DAY, 100, ["year"]),
     (365.25 * DAY, 100, [])],
)  # fmt: skip
def test_periods_that_fit_the_step_and_the_series_are_fitted(step: float, rows: int, named: list[str]) -> None:
    time = np.arange(rows) * step
    value = np.random.default_rng(1).normal(size=rows)
    own = scaler(value)
    assert fit_waves(collate(windows(time, value)), own) == named
    assert bool(own.waves.any()) == bool(named)


def test_values_that_are_the_calendar_stay() -> None:
    time, value = daily(6, 5.0)
    season = np.sin(2 * np.pi * time / (365.25 * DAY))
    records = [
        Record(w.series, w.time, np.column_stack([w.value, season[np.isin(time, w.time)]]), w.text, goal_start=C - 1)
        for w in windows(time, value, 3)
    ]
    batch, own = collate(records), Scaler(2).fit(np.column_stack([value, season]))
    assert fit_waves(batch, own, known=1) == ["year", "week"]
    found = expected(batch, own)
    assert found[..., 0].abs().mean() > 1 and not found[..., 1].any()


@pytest.mark.parametrize("kind", ["training", "window", "last", "mixed"])
def test_values_come_back_and_steps_have_their_own_mean(kind: str) -> None:
    time, value = daily(4, 5.0)
    batch, own = collate(windows(time, value, 50)), scaler(value)
    fit_waves(batch, own)
    scale = scale_of(kind, True, batch, own)
    torch.testing.assert_close(scale.inverse(scale.transform(batch.value)), batch.value, atol=1e-4, rtol=1e-4)
    part = scale.steps(C)
    torch.testing.assert_close(part.inverse(scale.transform(batch.value)[:, C:]), batch.value[:, C:], atol=1e-4, rtol=0)


def source(time: np.ndarray, value: np.ndarray) -> SimpleNamespace:
    """What the network asks of a data module."""
    every = windows(time, value)
    first = int(0.8 * len(every))
    parts = {"train": every[: first - C - H], "val": every[first:]}
    return SimpleNamespace(
        value_names=("y",), value_units=("",), value_resolution=(0.0,), known_values=0, has_text=False,
        has_goals=False, step="1D", season_steps=7, scaler=scaler(value[:first]), windows=parts.__getitem__,
        train_through="train",
    )  # fmt: skip


@pytest.fixture
def network(tiny_folder: Path) -> GoalNetwork:
    return make_network(tiny_folder, latent_dim=4, hidden_dim=16, text_layers=(2,), goal_layer=2, text_steps=6,
        linear_lags=9, normalisation="auto", calendar="auto")  # fmt: skip


def test_it_is_kept_where_forecasts_are_better_for_it(network: GoalNetwork, capsys: pytest.CaptureFixture[str]) -> None:
    time, value = daily(8, 8.0)
    data = source(time, value)
    adopt(network, data, "fit")
    assert network.options.world.calendar is True and network.hparams["world"]["calendar"] is True
    assert "calendar on" in capsys.readouterr().out
    batch: Batch = collate(data.windows("val")[::20])
    found = network.rollout(batch, [None] * len(batch), samples=8).mean.mean(0)
    truth = 8 * torch.sin(2 * torch.pi * batch.time[:, C:] / (365.25 * DAY))
    assert (found[..., 0] - truth).abs().mean() < 0.7


def test_it_is_left_out_of_a_walk_and_of_goals(network: GoalNetwork, capsys: pytest.CaptureFixture[str]) -> None:
    time, value = daily(6, 0.0)
    data = source(time, value.cumsum())
    adopt(network, data, "fit")
    assert network.options.world.calendar is False and not network.world.scaler.waves.any()
    assert network.options.world.normalisation in capsys.readouterr().out
    assert network.chosen["world"] == {"normalisation": network.options.world.normalisation, "calendar": False}


def test_goals_in_any_words_need_units_of_the_training_part(network: GoalNetwork, tiny_folder: Path) -> None:
    data = source(*daily(4, 3.0))
    data.has_goals = True
    adopt(network, data, "fit")
    assert network.chosen["world"] == {"normalisation": "training", "calendar": False}
    other = make_network(tiny_folder, latent_dim=4, hidden_dim=16, text_layers=(2,), goal_layer=2, calendar=True)
    with pytest.raises(ValueError, match="goals of a column, of a file or with named classes need normalisation"):
        adopt(other, data, "fit")


@pytest.mark.parametrize("classes", [False, True])
def test_written_numbers_leave_the_units_to_the_data_and_named_classes_do_not(
    network: GoalNetwork, classes: bool
) -> None:
    data = source(*daily(8, 8.0))
    named = {"classes": {"any": ["Be {class}"]}, "class_bounds": [{"key": "low", "low": -99, "high": 0}]}
    data.has_goals, data.goal_writer = (
        True,
        GoalWriter.of({"numbers": {"any": ["Be at {value}"]}} | (named if classes else {})),
    )
    adopt(network, data, "fit")
    assert network.options.world.calendar is not classes
    if classes:
        assert network.options.world.normalisation == "training"


@pytest.mark.parametrize(("own", "row"), [(None, "{values}:"), ("level {y}:", "level {y}:")])
def test_the_data_say_how_a_row_is_put_into_words(own: str | None, row: str, tiny_folder: Path) -> None:
    data = source(*daily(4, 3.0))
    data.has_text, data.value_row = True, own
    options = {"latent_dim": 4, "hidden_dim": 16, "text_layers": (2,), "goal_layer": 2, "history": 1}
    made = make_network(tiny_folder, row="auto", values=True, **options)
    adopt(made, data, "fit")
    assert made.hparams["speech"]["row"] == row and made.speaker.prompts.row([2.0]).endswith(" 2:")
    change = collate(data.windows("train")).value.diff(dim=1).abs().mean()
    assert 0.2 < made.world.scaler.usual_change.item() / change < 5
    made = make_network(tiny_folder, row="auto", **options)
    adopt(made, data, "fit")
    assert made.world.scaler.usual_change.item() == 1  # nothing reads it
