import json

import numpy as np
import pytest
import torch

from gssr.evaluation.baselines import LinearAutoregression, horizon_truth, seasonal_naive
from gssr.evaluation.forecast_report import (
    LINEAR,
    NETWORK,
    PERSISTENCE,
    SEASONAL,
    evaluate_forecasts,
    horizon_columns,
    stretches,
)
from gssr.metrics import fair_crps
from gssr.sequences.collate import collate
from gssr.sequences.record import Record
from gssr.sequences.windows import cut
from tests.evaluation.fakes import FakeNetwork, FakeStorms, series

OWN = "came true, own goals"


class FakeData(FakeStorms):
    def __init__(self) -> None:
        super().__init__(storms=12)


@pytest.fixture(scope="module")
def report():
    return evaluate_forecasts(FakeNetwork(), FakeData(), samples=8)


def test_a_network_that_persists_scores_as_persistence_and_both_as_an_independent_count(report):
    test = FakeData().windows("test")
    error = np.array([np.abs(r.value[4:, 0] - r.value[3, 0]) for r in test])
    rows = report.table("forecast").rows
    squares = report.table("forecast_rmse").rows
    for name in (NETWORK, PERSISTENCE):
        for step in (1, 8):
            assert rows[name][f"step {step}"].value == pytest.approx(error[:, step - 1].mean(), rel=1e-5)
            expected = np.sqrt((error[:, step - 1] ** 2).mean())
            assert squares[name][f"step {step}"].value == pytest.approx(expected, rel=1e-5)
        assert rows[name]["all steps"].value == pytest.approx(error.mean(), rel=1e-5)
    assert rows[f"network − {PERSISTENCE}"]["all steps"].value == pytest.approx(0, abs=1e-5)
    assert rows[NETWORK]["step 1"].windows == len(test) and rows[NETWORK]["step 1"].series == 12


def test_linear_autoregression_is_fitted_on_training_windows(report):
    data = FakeData()
    batch = collate(data.windows("test"))
    linear = LinearAutoregression(0.01).fit(data.windows("train")).predict(batch)[..., 0]
    error = (linear - horizon_truth(batch)[..., 0]).abs()
    assert report.table("forecast").rows[LINEAR]["all steps"].value == pytest.approx(error.mean().item(), rel=1e-5)


def test_crps_and_coverage_are_those_of_the_rollouts_with_noise():
    data, network = FakeData(), FakeNetwork(value_noise=5.0)
    rows = evaluate_forecasts(network, data, samples=64).table("intervals").rows
    truth = horizon_truth(collate(data.windows("test")))[..., 0]
    generator = torch.Generator().manual_seed(3)
    start = torch.tensor(np.array([r.value[3, 0] for r in data.windows("test")]))[:, None]
    samples = start + 5 * torch.randn(400, *truth.shape, generator=generator)
    assert rows["all steps"]["CRPS"].value == pytest.approx(fair_crps(samples, truth).mean().item(), rel=0.05)
    inside = ((truth - start).abs() < 1.2816 * 5).float().mean().item()
    assert rows["all steps"]["coverage of 80 % intervals"].value == pytest.approx(inside, abs=0.06)


def test_goals_that_came_true_are_hit_by_steering_and_within_two_resolutions(report):
    goals = report.table("goals").rows
    assert goals[OWN]["steered"].value == 1.0 and report.settings["tolerance"] == 10
    missed = [abs(round(float(r.value[-1, 0])) - r.value[3, 0]) > 10 for r in FakeData().windows("test")]
    assert 0 < np.mean(missed) < 1
    assert goals[OWN]["unsteered"].value == goals[OWN][PERSISTENCE].value == pytest.approx(1 - np.mean(missed))


def test_data_without_goals_has_no_table_of_goals():
    class Silent(FakeData):
        def windows_evaluation(self, split, goals):
            return []

    made = evaluate_forecasts(FakeNetwork(), Silent(), samples=4)
    assert [table.key for table in made.tables] == ["forecast", "forecast_rmse", "intervals"]


def whole(steps: int = 60, step: float = 1.0) -> Record:
    return Record("one", step * np.arange(steps), np.arange(steps, dtype=float)[:, None] % 7, [None] * steps)


def test_seasonal_naive_repeats_the_last_period_that_is_known():
    windows = cut(whole(), 10, 9)
    path = seasonal_naive(windows, collate(windows), 7)
    truth = horizon_truth(collate(windows))
    assert torch.equal(path, truth)  # a season of 7, also where the horizon is longer than the season
    late = seasonal_naive(windows, collate(windows[:2]), 14)
    assert late[0, :4].isnan().all() and torch.equal(
        late[0, 4:], truth[0, 4:]
    )  # 14 steps before step 10 is nothing known
    marked = cut(Record("one", np.arange(40.0), np.arange(40.0)[:, None], [None] * 40), 10, 9)
    path = seasonal_naive(marked, collate(marked), 4)
    assert (path[:, :, 0].amax(1) <= collate(marked).value[:, 9, 0]).all()  # never a value of the horizon
    with pytest.raises(ValueError, match="period of at least 1"):
        seasonal_naive(windows, collate(windows), 0)


def test_seasonal_naive_finds_months_though_their_lengths_differ():
    days = np.cumsum([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] * 5) * 24.0
    record = Record("months", days, (np.arange(60) % 12)[:, None].astype(float), [None] * 60)
    month = [
        Record(record.series, days[i : i + 24], record.value[i : i + 24], [None] * 24, goal_start=11) for i in range(37)
    ]
    path = seasonal_naive(month, collate(month[12:]), 12)
    assert torch.equal(path, horizon_truth(collate(month[12:])))


def test_the_season_of_the_data_is_a_baseline():
    class Seasonal(FakeData):
        season_steps = 2

    rows = evaluate_forecasts(FakeNetwork(), Seasonal(), samples=4).table("forecast").rows
    expected = [np.abs(r.value[4 + h, 0] - r.value[2 + h % 2, 0]) for r in FakeData().windows("test") for h in (0, 1)]
    first = np.mean(expected[::2])
    assert rows[SEASONAL]["step 1"].value == pytest.approx(first, rel=1e-5) and f"network − {SEASONAL}" in rows


def test_few_series_are_drawn_as_stretches_of_a_horizon():
    batch = collate(cut(whole(), 10, 5))
    names = stretches(batch)
    assert [len([n for n in names if n == name]) for name in dict.fromkeys(names)] == [5] * 9 + [1]
    assert stretches(collate(series(1) * 3 + [r for n in range(12) for r in series(n)]))[0] == "Storm 1"


def test_columns_of_long_horizons_are_few_with_both_ends():
    assert horizon_columns(4) == [0, 1, 2, 3]
    assert horizon_columns(48)[0] == 0 and horizon_columns(48)[-1] == 47 and len(horizon_columns(48)) == 6


def test_the_report_is_written_and_refuses_what_it_cannot_score(report, tmp_path):
    text, data = report.write(tmp_path)
    assert text.name == "fakedata_test.md" and json.loads(data.read_text())["settings"]["windows"] == 36
    assert "12 steps" not in report.intro and "4 steps of context and 8 of horizon" in report.intro
    with pytest.raises(ValueError, match="'val' or 'test'"):
        evaluate_forecasts(FakeNetwork(), FakeData(), split="train")
    quick = evaluate_forecasts(FakeNetwork(), FakeData(), quick=True)
    assert "not a result" in quick.to_markdown() and quick.settings["samples"] == 16
