import math

import numpy as np
import pytest

from datamodules.sines import DRIFT, LEVEL, SWING, TEXTS, Sines
from gssr.evaluation.baselines import horizon_truth, persistence
from gssr.sequences.collate import collate


def error_without_goal(share: float, noise: float) -> float:
    """Mean absolute error, after a share of the horizon, of the best forecast that has read the text and has no goal.

    It predicts no drift, because up and down are equally likely. Its error is E|u + noise · e| for u uniform in
    [-share · DRIFT, share · DRIFT] and e standard normal; the inner mean is that of a folded normal distribution.
    """
    drift = np.linspace(0, share * DRIFT, 1001)
    if noise == 0:
        return float(drift.mean())
    folded = noise * math.sqrt(2 / math.pi) * np.exp(-((drift / noise) ** 2) / 2)
    folded += drift * np.array([math.erf(m / noise / math.sqrt(2)) for m in drift])
    return float(np.trapezoid(folded, dx=1 / 1000))


@pytest.fixture(scope="module")
def sines() -> Sines:
    data = Sines(series=2048)
    data.setup()
    return data


def test_the_least_errors_are_those_of_the_closed_forms(sines):
    windows = sines.train_records.records
    truth = np.stack([w.value[16:, 0] for w in windows])
    told = np.abs(truth - np.stack([sines.expected(w, knows_goal=True) for w in windows]))
    assert told.mean() == pytest.approx(math.sqrt(2 / math.pi), rel=0.02)
    blind = np.abs(truth - np.stack([sines.expected(w) for w in windows])).mean(0)
    for h in range(8):
        assert blind[h] == pytest.approx(error_without_goal((h + 1) / 8, noise=1.0), rel=0.06)
    assert error_without_goal(1.0, noise=0.0) == pytest.approx(DRIFT / 2)
    assert error_without_goal(0.0, noise=3.0) == pytest.approx(3 * math.sqrt(2 / math.pi), rel=1e-6)


def test_no_forecast_without_the_goal_is_better_than_the_expected_path(sines):
    """Shifting it up or down by anything makes the error larger, and persistence is far off."""
    windows = sines.train_records.records
    truth = np.stack([w.value[16:, 0] for w in windows])
    path = np.stack([sines.expected(w) for w in windows])
    least = np.abs(truth - path).mean()
    assert all(np.abs(truth - path - shift).mean() > least for shift in (-4.0, -2.0, 2.0, 4.0))
    batch = collate(windows)
    assert (persistence(batch) - horizon_truth(batch)).abs().mean() > 1.8 * least


def test_the_text_alone_tells_the_swing_of_the_horizon(sines):
    """The context is the same whatever is said, and what is said is what happens."""
    spread: dict[float, list[float]] = {swing: [] for swing in TEXTS}
    context = {swing: [] for swing in TEXTS}
    for window in sines.train_records.records:
        (text,) = [t for t in window.text if t is not None]
        assert any(t is not None for t in window.text[12:16])  # near the end of the context, never in the horizon
        swing = next(swing for swing, words in TEXTS.items() if text in words)
        path = sines.expected(window)
        spread[swing].append(np.ptp(path) / 2)
        context[swing].append(window.value[:16, 0].std())
    for swing, found in spread.items():
        assert 0.9 * swing <= np.mean(found) <= swing
        assert np.mean(context[swing]) == pytest.approx(math.hypot(SWING / math.sqrt(2), 1.0), rel=0.02)


def test_series_are_split_and_always_the_same(sines):
    names = {s: {r.series for r in getattr(sines, f"{s}_records").records} for s in ("train", "val", "test")}
    assert {s: len(n) for s, n in names.items()} == {"train": 2048, "val": 512, "test": 512}
    values = [w.value.tobytes() for s in names for w in getattr(sines, f"{s}_records").records]
    assert len(set(values)) == 3072
    again, other = Sines(series=2048), Sines(series=2048, seed=1)
    again.setup("fit"), other.setup("fit")
    assert np.array_equal(again.val_records.records[5].value, sines.val_records.records[5].value)
    assert not np.array_equal(other.val_records.records[5].value, sines.val_records.records[5].value)
    rows = np.concatenate([w.value for w in sines.train_records.records])
    assert sines.scaler.mean.item() == pytest.approx(rows.mean(), rel=1e-5)
    assert sines.scaler.std.item() == pytest.approx(rows.std(), rel=1e-5)
    assert rows.mean() == pytest.approx(LEVEL, abs=0.5)


def test_goals_tell_where_the_series_ends(sines):
    spoken = [window for window in list(sines.val_records)[:200] if window.goal is not None]
    assert len(spoken) > 150  # of a number held out nothing is said in combinations
    for window in spoken:
        assert window.goal_low[0] == window.goal_high[0] == round(float(window.value[-1, 0]))
        assert str(int(window.goal_low[0])) in window.goal
    numbers = sines.windows_evaluation("val", "numbers")
    assert numbers and all(any(abs(r.goal_low[0] - n) <= 1 for n in (35, 55, 75)) for r in numbers)
    trained = {r.goal_low[0] for r in sines.train_records if r.goal is not None}
    assert not trained & {n + o for n in (35, 55, 75) for o in (-1, 0, 1)}


def test_sizes_that_make_no_data_are_refused():
    with pytest.raises(ValueError, match="noise is -1"):
        Sines(noise=-1)
    with pytest.raises(ValueError, match="series is 4; expected a whole number from 8"):
        Sines(series=4)
