"""Fan charts show what they are given; predictions survive the way through their file."""

import json

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.image import imread

from gssr.evaluation.fan_chart import WITH, WITHOUT, fan_chart_of, save
from gssr.evaluation.predictions import Forecast
from gssr.sequences.clock import iso_time
from gssr.sequences.collate import collate
from tests.evaluation.fakes import NAMES, UNITS, FakeNetwork, series, with_goal
from tests.full_disk import FullDisk


@pytest.fixture
def planned():
    batch = collate([with_goal(record, 96.0, 112.0, "Become 104, a “category 3” hurricane") for record in series(2)])
    batch.value_mask[0, 2, 1] = False
    network = FakeNetwork(noise=2.0)
    return batch, network.plan(batch, batch.goal, samples=8), network.plan(batch, [None] * len(batch), samples=8)


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def words(figure) -> str:
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    return " | ".join(text.get_text() for text in texts)


def test_a_chart_holds_context_truth_fans_goal_and_texts(planned, tmp_path):
    batch, with_plan, without_plan = planned
    figure = fan_chart_of(batch, 1, with_plan, without_plan, 0, NAMES, UNITS, guides=((64.0, "cat 1"), (500.0, "no")))
    (axes,) = figure.axes
    lines = {line.get_color(): line for line in axes.lines if line.get_linewidth() > 2}
    np.testing.assert_allclose(lines[WITH].get_ydata()[0], batch.value[1, 3, 0])
    expected = np.quantile(with_plan.rollouts.sample[:, 1, :, 0].numpy(), 0.5, axis=0)
    np.testing.assert_allclose(lines[WITH].get_ydata()[1:], expected, rtol=1e-5)
    np.testing.assert_allclose(lines[WITH].get_xdata(), 6.0 * np.arange(9))
    assert WITHOUT in lines
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]
    assert any(np.allclose(y, batch.value[1, :4, 0]) for y in drawn if len(y) == 4)
    assert any(np.allclose(y, batch.value[1, 3:, 0]) for y in drawn if len(y) == 9)
    (bracket,) = (line for line in axes.lines if list(line.get_ydata()) == [96.0, 112.0])
    assert list(bracket.get_xdata()) == [48.0, 48.0]
    shown = words(figure)
    for word in ("Storm 2", "“Become 104", "wind (kt)", "with the goal", "without the goal", "what happened", "cat 1"):
        assert word in shown
    assert "step 7" in shown and "+48 h" in shown and "no" not in shown.split(" | ")
    save(figure, tmp_path / "a.png")
    assert imread(tmp_path / "a.png").std() > 0.05


def test_charts_leave_no_global_state_and_the_same_bytes(planned, tmp_path):
    batch, with_plan, without_plan = planned
    for name in ("a", "b"):
        save(fan_chart_of(batch, 0, with_plan, without_plan, 1, NAMES, UNITS), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert pyplot.get_fignums() == []


def test_a_chart_without_goal_truth_or_bounds_is_drawn(planned):
    batch, with_plan, without_plan = planned
    batch.value_mask[:, [1, 3]] = False
    plain = words(fan_chart_of(batch, 0, None, without_plan, 0, NAMES, UNITS))
    assert "forecast" in plain and "with the goal" not in plain and "Become" not in plain
    batch.value_mask[:, 4:] = False
    batch.goal_low[:], batch.goal_high[:] = np.nan, np.nan
    typed = fan_chart_of(batch, 0, with_plan, without_plan, 0, NAMES, UNITS)
    assert "“Become 104" in words(typed) and "what happened" not in words(typed)


def test_predictions_round_trip(planned, tmp_path):
    batch, with_plan, without_plan = planned
    path = Forecast(batch, with_plan, without_plan, NAMES, UNITS).write(tmp_path, charts=2, rollouts=3)
    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    lines = read(path)
    assert [line["series"] for line in lines] == batch.series
    first = lines[0]
    assert first["goal"] == batch.goal[0] and first["goal_low"] == [96.0, None]
    assert first["value_names"] == ["wind", "pressure"] and first["value_units"] == ["kt", "hPa"]
    assert first["time"][:2] == [iso_time(2000.0), iso_time(2006.0)] and first["goal_time"] == first["time"][11]
    assert first["context"][2][1] is None
    np.testing.assert_allclose(np.array(first["context"])[:, 0].astype(float), batch.value[0, :4, 0], rtol=1e-6)
    np.testing.assert_allclose(first["truth"], batch.value[0, 4:], rtol=1e-6)
    for name, plan in (("with_goal", with_plan), ("without_goal", without_plan)):
        np.testing.assert_allclose(first[name]["mean"], plan.mean[0], rtol=1e-6)
        np.testing.assert_allclose(first[name]["quantiles"], plan.quantiles[0], rtol=1e-6)
        np.testing.assert_allclose(first[name]["rollouts"], plan.rollouts.mean[:3, 0], rtol=1e-6)
        assert first[name]["text"] == plan.text[0]
    assert first["quantile_levels"] == [0.1, 0.25, 0.5, 0.75, 0.9]
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["fan_0000_Storm_2.png", "fan_0001_Storm_2.png"]


def test_plans_without_texts_have_none_to_show(planned, tmp_path):
    batch, with_plan, without_plan = planned
    with_plan.text = without_plan.text = [[] for _ in range(len(batch))]
    assert "The plan in words" not in words(fan_chart_of(batch, 0, with_plan, without_plan, 0, NAMES, UNITS))
    (line, *_) = read(Forecast(batch, with_plan, without_plan, NAMES, UNITS).write(tmp_path))
    assert line["with_goal"]["text"] is None and line["without_goal"]["text"] is None


def test_a_file_is_written_anew_or_stays_as_it_was(planned, tmp_path, monkeypatch):
    batch, with_plan, without_plan = planned
    free, steered = (Forecast(batch, plan, without_plan, NAMES, UNITS) for plan in (None, with_plan))
    free.write(tmp_path)
    assert [line["with_goal"] is None for line in read(steered.write(tmp_path))] == [False] * 3
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        FullDisk(patch)
        free.write(tmp_path, charts=1)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]
    assert read(tmp_path / "predictions.jsonl")[0]["with_goal"] is not None
    with pytest.raises(ValueError, match="3 windows"):
        Forecast(batch.select([0]), with_plan, without_plan, NAMES, UNITS)


def test_times_are_written_in_utc():
    assert iso_time(0.0) == "1970-01-01T00:00Z"
    assert iso_time(418278.0) == "2017-09-19T06:00Z"
    assert iso_time(-0.5) == "1969-12-31T23:30Z"
