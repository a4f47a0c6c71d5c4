"""Fans that follow the noise of a series as its values arrive: by the past alone, and only where there is one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Trainer

from datamodules import Sines, Storms, Strikes
from datamodules.sequence_data import SequenceData
from datamodules.table_sequences import TableSequences
from gssr.evaluation.imagining import imagine, recent_spread
from gssr.metrics import interval_covers
from gssr.network import GoalNetwork
from gssr.network.calibration import Calibration
from gssr.network.fitting import adopt
from gssr.network.recent import BEFOREHAND, HALF_LIFE, earlier_origins, weighted_factor
from gssr.sequences.collate import collate
from tests.networks import make_network

C, H, ROWS = 6, 4, 400
TEST = int(0.85 * ROWS)  # the first row of the test part


def values(noise: float, seed: int = 0) -> np.ndarray:
    """A level with noise of deviation 1, `noise` in the test part."""
    return np.random.default_rng(seed).normal(size=ROWS) * np.where(np.arange(ROWS) < TEST, 1.0, noise)


def data_of(folder: Path, value: np.ndarray, **options: object) -> TableSequences:
    days = pd.date_range("2020-01-01", periods=len(value)).strftime("%Y-%m-%d")
    table = pd.DataFrame({"day": days, "value": value.round(3)})
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / "t.csv", index=False)
    own = {"time_column": "day", "goals": None, "context": C, "horizon": H, "lead_in": True}
    data = TableSequences(str(folder / "t.csv"), **own | options)
    data.setup("fit")
    return data


@pytest.fixture
def network(tiny_folder: Path, tmp_path: Path) -> GoalNetwork:
    """Before its first step, fitted to noise of deviation 1."""
    made = make_network(tiny_folder, latent_dim=4, hidden_dim=16, text_layers=(1,), goal_layer=1, linear_lags=4)
    adopt(made, data_of(tmp_path / "fit", values(1.0)), "fit")
    return made.eval()


def test_the_factor_is_a_weighted_quantile_that_is_drawn_to_one() -> None:
    spacing, before = earlier_origins(12)
    assert spacing == 2 and before == list(range(2, 31, 2))
    needed = torch.rand(len(before), 12, 2, generator=torch.Generator().manual_seed(0)) * 3
    needed[3, :, 1] = torch.nan
    found = weighted_factor(needed, before, spacing)
    for y in range(2):
        pairs = [
            (float(needed[i, h, y]), 0.5 ** ((k - h - 1) / 12 / HALF_LIFE))
            for i, k in enumerate(before)
            for h in range(12)
            if h + 1 <= k and not needed[i, h, y].isnan()
        ]
        sizes, weights = np.array(sorted(pairs)).T
        size = sizes[np.searchsorted(weights.cumsum(), 0.8 * weights.sum())]
        amount = weights.sum() * spacing / 144
        power = amount / (amount + BEFOREHAND)
        assert float(found[y]) == pytest.approx(size**power, rel=1e-4)


def test_what_has_not_arrived_or_was_not_observed_counts_for_nothing() -> None:
    needed = torch.full((2, 4, 1), 2.0)
    needed[0, 1:] = 1e9  # one step before the origin, only one step has arrived
    assert weighted_factor(needed, [1, 5], 1) < 2
    assert torch.equal(weighted_factor(torch.full((2, 4, 1), torch.nan), [1, 5], 1), torch.ones(1))


@pytest.mark.parametrize("noise", [0.4, 3.0])
def test_fans_hold_where_the_noise_of_the_test_part_is_another(
    noise: float, network: GoalNetwork, tmp_path: Path
) -> None:
    data = data_of(tmp_path / "t", values(noise, 1))
    batch = collate(list(data.windows("test"))[3 * H :])
    truth = batch.value[:, C:, 0]
    recent = recent_spread(network, batch, data)
    assert recent is not None and recent.shape == (len(batch), 1)
    held = [
        interval_covers(imagine(network, batch, None, 64, 0, recent=factor).sample[..., 0], truth).float().mean()
        for factor in (None, recent)
    ]
    assert abs(held[0] - 0.8) > 0.15
    assert abs(held[1] - 0.8) < 0.75 * abs(held[0] - 0.8)


def test_no_fan_knows_what_comes_after_its_origin(network: GoalNetwork, tmp_path: Path) -> None:
    at = TEST + 20
    other = values(1.0, 1)
    other[at:] += 50
    factors = []
    for name, value in (("a", values(1.0, 1)), ("b", other)):
        data = data_of(tmp_path / name, value)
        window = next(w for w in data.windows("test") if abs(float(w.value[0, 0]) - round(value[at - C], 3)) < 1e-6)
        factors.append(recent_spread(network, collate([window]), data))
    assert factors[0] is not None and factors[0] != 1 and torch.equal(*factors)


def test_earlier_windows_lie_behind_the_training_part_and_end_where_they_should(tmp_path: Path) -> None:
    value = values(1.0)
    data = data_of(tmp_path, value)
    first = data.windows("test")[0]
    until = float(first.time[C - 1])
    found = data.earlier("table", until, [1, 7, 55, 300])
    assert list(found) == [1, 7, 55]  # the last one would forecast what was trained on
    for k, record in found.items():
        assert record.time[C - 1] == until - 24 * k and len(record) == C + H
        np.testing.assert_allclose(record.value[:, 0], value.round(3)[TEST - k - C : TEST - k + H], atol=1e-5)
    through = data_of(tmp_path / "all", value, train_through="test")
    assert through.earlier("table", until, [1, 7]) == {}


def test_series_that_are_in_one_part_each_have_no_earlier_windows(network: GoalNetwork, tmp_path: Path) -> None:
    table = pd.DataFrame({"id": np.repeat(["a", "b", "c", "d"], 100), "value": values(1.0).round(3)})
    table.to_csv(tmp_path / "t.csv", index=False)
    data = TableSequences(str(tmp_path / "t.csv"), series_column="id", goals=None, context=C, horizon=H)
    data.setup("fit")
    assert recent_spread(network, collate(list(data.windows("test"))[:3]), data) is None


def test_fans_under_a_goal_stay_as_validation_left_them() -> None:
    sample = torch.randn(9, 2, 3, 1)
    out = Calibration(1)(sample, torch.tensor([False, True]), torch.full((2, 1), 2.0))
    assert torch.equal(out[:, 1], sample[:, 1])
    middle = sample[:, 0].median(0).values
    torch.testing.assert_close(out[:, 0], middle + 2 * (sample[:, 0] - middle))


def test_predict_widens_the_fan_without_a_goal_by_it(
    network: GoalNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=str(tmp_path))
    wide = []
    for factor in (1.0, 3.0):
        monkeypatch.setattr(network.forecaster, "recent", lambda batch, data, f=factor: torch.full((len(batch), 1), f))
        ((_, plan),) = trainer.predict(network, datamodule=data_of(tmp_path / "t", values(1.0)))
        wide.append(plan.quantiles[..., -1] - plan.quantiles[..., 0])
    torch.testing.assert_close(wide[1], 3 * wide[0])


def test_data_of_many_short_series_leave_fans_as_they_are() -> None:
    assert not any(hasattr(kind, "earlier") for kind in (SequenceData, Storms, Strikes, Sines))
