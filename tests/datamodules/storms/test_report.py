"""The report on storms with a network whose hits and errors are known."""

import json

import numpy as np
import pytest

from datamodules.storms.report import change_quantile, evaluate_storms
from datamodules.storms.tables import LINEAR, NETWORK
from gssr.evaluation.baselines import LinearAutoregression, horizon_truth
from gssr.evaluation.intervals import Estimate
from gssr.evaluation.report import Check, Report, Table
from gssr.sequences.collate import collate
from tests.evaluation.fakes import FakeSpeaker, FakeStorms, series

OWN, LENT = "came true, combinations not trained on", "borrowed, combinations not trained on"


@pytest.fixture(scope="module")
def report():
    return evaluate_storms(FakeSpeaker(), FakeStorms(), samples=8)


def test_forecast_errors_are_those_of_a_loop(report):
    data = FakeStorms()
    errors, linear = [], []
    fitted = LinearAutoregression().fit(data.windows("train"))
    for record in data.windows("test"):
        errors.append(abs(record.value[3, 0] - record.value[11, 0]))  # the unsteered fake persists
        batch = collate([record])
        linear.append(float((fitted.predict(batch) - horizon_truth(batch))[0, 7, 0].abs()))
    rows = report.table("forecast").rows
    assert list(rows[NETWORK]) == ["24 h", "48 h"]
    assert rows[NETWORK]["48 h"].value == pytest.approx(np.mean(errors), rel=1e-5)
    assert rows["persistence"]["48 h"].value == pytest.approx(np.mean(errors), rel=1e-5)
    assert rows[LINEAR]["48 h"].value == pytest.approx(np.mean(linear), rel=1e-5)
    difference = rows["network (mean) − linear autoregression"]["48 h"]
    assert difference.value == pytest.approx(np.mean(errors) - np.mean(linear), rel=1e-4)
    assert (difference.windows, difference.series) == (24, 8)


def test_hits_are_counted_for_own_and_borrowed_goals_and_all_baselines(report):
    goals, records = report.table("goals").rows, FakeStorms().windows("test")
    near = [abs(r.value[3, 0] - round(float(r.value[-1, 0]))) <= 10 for r in records]
    assert 0.2 < np.mean(near) < 0.9  # or this test shows nothing
    assert goals[OWN]["unsteered"].value == pytest.approx(np.mean(near))
    assert goals[OWN]["persistence"].value == pytest.approx(np.mean(near))
    for name in (OWN, LENT):
        assert goals[name]["steered"].value == goals[name]["straight line"].value == 1.0
        assert report.table("single_goals").rows[name]["steered"].value == 1.0
    assert goals[LENT]["steered"].series <= 8 and 0 < goals[LENT]["steered"].windows <= 24
    assert goals["came true, numbers not trained on"]["steered"].windows == 12


def test_a_network_deaf_to_goals_hits_no_more_than_unsteered():
    class Deaf(FakeSpeaker):
        def rollout(self, batch, goals, samples, generator=None, gain=1.0):
            return super().rollout(batch, [None] * len(goals), samples, generator)

    goals = evaluate_storms(Deaf(), FakeStorms(), samples=4).table("goals").rows
    assert goals[LENT]["steered"] == goals[LENT]["unsteered"]
    assert goals[LENT]["steered"].value < 1


def test_hits_are_looked_for_at_the_goal_step_alone():
    class Leaping(FakeSpeaker):
        def rollout(self, batch, goals, samples, generator=None, gain=1.0):
            rollouts = super().rollout(batch, [None] * len(goals), samples, generator)
            for row, goal in enumerate(goals):
                if goal is not None:
                    rollouts.mean[:, row] = -500.0
                    rollouts.mean[:, row, batch.goal_step[row] - batch.context[row]] = float(goal.split()[2])
            return rollouts

    data = FakeStorms()
    for record in data.windows("test"):
        record.goal_step = 7
    goals = evaluate_storms(Leaping(), data, samples=2).table("goals").rows
    assert goals[OWN]["steered"].value == goals[LENT]["steered"].value == goals[OWN]["straight line"].value == 1.0


def test_plausibility_is_a_ratio_to_the_truth_on_the_same_windows(report):
    data = FakeStorms()
    threshold = report.settings["change_threshold"]
    once = {
        (r.series, t): abs(r.value[t, 0] - r.value[t - 1, 0]) for r in data.windows("train")[::3] for t in range(1, 12)
    }
    once |= {
        (r.series, r.time[-1]): abs(r.value[-1, 0] - r.value[-2, 0]) for r in data.windows("train") if r.time[0] % 1000
    }
    assert threshold == pytest.approx(np.quantile(list(once.values()), 0.99), rel=1e-5)
    changes = np.concatenate([np.abs(np.diff(record.value[3:, 0])) for record in data.windows("test")])
    row = report.table("plausibility").rows[OWN]
    assert row["truth"].value == pytest.approx((changes > threshold).mean())
    lines = [abs(round(float(r.value[-1, 0])) - r.value[3, 0]) / 8 > threshold for r in data.windows("test")]
    assert row["straight line"].value == pytest.approx(np.mean(lines))
    assert row["steered"].value == pytest.approx(row["straight line"].value)  # the fake takes the straight line
    leaping = evaluate_storms(FakeSpeaker(noise=20.0), data, samples=8).table("plausibility").rows[OWN]
    assert leaping["steered / truth"].value == pytest.approx(leaping["steered"].value / leaping["truth"].value)
    assert leaping["steered / truth"].value > 10


def test_change_quantile_takes_each_step_of_a_series_once():
    windows = series(3, steps=6, windows=5)
    whole = np.concatenate([[windows[0].value[:, 0]], [[w.value[-1, 0]] for w in windows[1:]]], axis=None)
    assert change_quantile(collate(windows), 0, 0.9) == pytest.approx(np.quantile(np.abs(np.diff(whole)), 0.9))


def test_the_same_seed_gives_the_same_report(report):
    again = evaluate_storms(FakeSpeaker(), FakeStorms(), samples=8)
    assert again.to_dict() == report.to_dict()


def test_windows_are_limited_and_said(report):
    few = evaluate_storms(FakeSpeaker(), FakeStorms(), samples=4, max_windows=10)
    assert few.table("forecast").rows[NETWORK]["48 h"].windows == 10
    assert few.settings["windows"] == 10
    assert "At most 10 windows" in few.to_markdown()
    assert "not a result" in evaluate_storms(FakeSpeaker(), FakeStorms(), split="val", quick=True).to_markdown()


def test_health_is_measured_on_validation_windows():
    network = FakeSpeaker()
    evaluate_storms(network, FakeStorms(), samples=2)
    assert all(100 <= int(name.split()[1]) < 108 for name in network.health_batch.series)


def test_checks_compare_with_the_bars(report):
    checks = {check.name: check for check in report.checks}
    assert checks[f"hits, {OWN}"].passed and checks[f"hits, {LENT}"].passed
    assert checks["share of latent dimensions in use"].value == 0.5
    assert checks["text, nats a token gained by belief, values and row, lower end of the 95 % interval"].passed
    linear = report.table("forecast").rows[LINEAR]["48 h"]
    first = report.checks[0]
    assert first.bar == pytest.approx(linear.value + linear.error)
    assert first.passed == (first.value <= first.bar)
    silent = FakeStorms()
    for record in silent.windows("test"):
        record.text = [None] * len(record)
    unmeasured = evaluate_storms(FakeSpeaker(), silent, samples=2).checks[-1]
    assert unmeasured.passed is None


def test_wrong_splits_are_refused():
    with pytest.raises(ValueError, match="'val' or 'test'"):
        evaluate_storms(FakeSpeaker(), FakeStorms(), split="train")


def test_a_report_round_trips_through_its_files(report, tmp_path):
    text, data = report.write(tmp_path / "run")
    assert text.read_text(encoding="utf-8") == report.to_markdown()
    loaded = json.loads(data.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert loaded == report.to_dict()
    assert loaded["tables"]["goals"][OWN]["steered"]["value"] == 1.0


def test_markdown_is_a_table_of_estimates():
    nan = float("nan")
    rows = {"a": {"x": Estimate(0.5, 0.025, 0.4, 0.6, 10, 3), "y": 2.0}, "b": {"x": Estimate(nan, nan, nan, nan, 0, 0)}}
    table = Table("key", "Title", "", rows, unit="%", units={"y": ""})
    made = Report("r", "R", "", {}, [table], [Check("c", nan, 1.0), Check("d", 1.0, 2.0, at_most=True)])
    lines = made.to_markdown().splitlines()
    assert "| a | 50.0 ± 2.5 % | 2.00 | 10 | 3 |" in lines
    assert "| b | – |  | 0 | 0 |" in lines
    assert "| c | – | ≥ 1.00 | not measured |" in lines and "| d | 1.00 | ≤ 2.00 | yes |" in lines


def test_plan_texts_agree_with_their_own_winds_and_less_with_others(report):
    rows = report.table("plan_texts").rows
    own, shuffled = rows["plan texts"], rows["the same texts, shuffled between plans"]
    assert own["status of the wind's class"].value == 1.0 and own["texts with a status"] == 1.0
    assert shuffled["status of the wind's class"].value < 1.0
