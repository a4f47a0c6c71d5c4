"""The quality benchmark against independent references: baselines, scores, intervals, cells and their report."""

import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.quality import document, gru, training
from benchmarks.quality.cells import Cells
from benchmarks.quality.classical import gaussian
from benchmarks.quality.origins import Origins, find_origins, histories
from benchmarks.quality.report import Part
from benchmarks.quality.scores import Forecast, estimate, relative, score
from benchmarks.quality.sets import DOMAINS, data_set
from benchmarks.quality.simple import climatology, simple
from benchmarks.quality.steered import find_goals, measure
from benchmarks.quality.summary import BEST as BEST_OTHER
from benchmarks.quality.summary import CHOSEN, DIFFERENCE, LARGER, OURS, SEEDS, SHOWN, TEXTS, summary
from benchmarks.quality.work import Sizes, Work
from datamodules.sequence_data import SequenceData
from gssr.network.config import plain
from gssr.network.gaussian import Gaussian
from gssr.network.posterior import MlpPosterior
from gssr.network.schedules import Arrival
from gssr.network.steering import LearnedSteeredPrior
from gssr.runs.folders import BEST, LAST, checkpoint_file
from gssr.sequences.record import Record
from gssr.sequences.windows import cut
from tests.evaluation.fakes import FakeNetwork, FakeStorms
from tests.networks import make_network

C, H = 6, 4
DAY = 24.0


class Made(SequenceData):
    """One series of values (N, Y) in steps of some hours; the first 60 % train, the next 20 % validate."""

    def __init__(
        self, values: np.ndarray, hours: float = 7 * DAY, period: int | None = None, jitter: float = 0.0
    ) -> None:
        super().__init__(8, C, H, 1, None, None, 0, 0, level_jitter=jitter)
        self.values, self.hours = values, hours
        width = values.shape[1]
        self.value_names, self.value_units = tuple("abcd"[:width]), ("u",) * width
        self.value_resolution = (0.0,) * width
        self.season_steps = period

    def read_windows(self) -> dict[str, list[Record]]:
        size = len(self.values)
        edges = {"train": (0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
        time = self.hours * np.arange(size)
        return {
            split: cut(
                Record("one", time[rows], self.values[rows], [None] * len(time[rows])), C, H, step=self.hours
            )
            for split, (a, b) in edges.items()
            for rows in [slice(round(a * size), round(b * size))]
        }  # fmt: skip


def walk(size: int = 400, seed: int = 0) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).normal(0, 1, (size, 1)), axis=0)


def found(values: np.ndarray, part: str = "test", **options) -> Origins:
    return find_origins(Made(values, **options), part, 1000)


# ------------------------------------------------------------------ origins


def test_history_is_all_of_the_series_up_to_the_origin_and_nothing_later() -> None:
    values = np.arange(200.0)[:, None]
    origins = found(values)
    for row, history in enumerate(origins.history):
        origin = origins.batch.value[row, C - 1, 0].item()
        np.testing.assert_array_equal(history, np.arange(origin + 1))
        assert origins.truth[row].tolist() == [origin + h for h in range(1, H + 1)]


def test_missing_values_of_a_history_are_the_last_before_them() -> None:
    value = np.array([np.nan, 1, np.nan, 3, 4, 5, 6, np.nan, 8, 9], dtype=float)[:, None]
    record = Record("s", np.arange(10.0), value, [None] * 10, goal_start=7)
    assert histories([record], [record], 0)[0].tolist() == [1, 1, 3, 4, 5, 6, 6]


def test_origins_are_of_the_part_that_was_asked_for() -> None:
    with pytest.raises(ValueError, match="not of 'train'"):
        find_origins(Made(walk()), "train", 10)
    assert len(find_origins(Made(walk()), "val", 10).batch) == 10


# ------------------------------------------------------------------ baselines


def test_persistence_has_the_spread_of_its_own_errors_and_the_crps_by_hand() -> None:
    """A walk with steps of standard deviation 1: errors of h steps are N(0, h), with a CRPS of sqrt(h / pi)."""
    origins = found(walk(6000, seed=1))
    forecast = simple(origins, 200)["persistence"]()
    assert torch.equal(forecast.point, origins.batch.value[:, C - 1 : C, 0].expand(-1, H))
    by_step = score(forecast, origins.truth)["by_step"]
    for h in range(H):
        assert by_step["mae"][h] == pytest.approx(math.sqrt(2 * (h + 1) / math.pi), rel=0.07)
        assert by_step["crps"][h].item() == pytest.approx(math.sqrt((h + 1) / math.pi), rel=0.07)
        assert by_step["covered_80"][h].item() == pytest.approx(0.8, abs=0.04)


def test_seasonal_naive_is_exact_on_a_periodic_series_and_persistence_is_not() -> None:
    origins = found(np.tile([1.0, 5.0, 2.0, 8.0, 3.0], 60)[:, None], period=5)
    methods = simple(origins, 16)
    assert score(methods["seasonal naive"](), origins.truth)["by_step"]["mae"] == [0.0] * H
    assert min(score(methods["persistence"](), origins.truth)["by_step"]["mae"]) > 1


def test_climatology_knows_the_calendar_of_training_and_nothing_else() -> None:
    """Daily steps over six years of a yearly wave: samples are the wave at that time of year, whatever the context."""
    days = np.arange(6 * 365)
    wave = 10 * np.sin(2 * np.pi * days / 365.25)
    origins = found(wave[:, None], hours=DAY)
    origins.batch.value[:, :C] = 1e6
    error = score(climatology(origins, 200), origins.truth)["by_step"]
    assert max(error["mae"]) < 1.2  # ten days are 1.7 of the wave at its steepest
    by_hour = np.where(np.arange(4000) % 4 == 0, 50.0, 0.0)
    assert (
        score(climatology(found(by_hour[:, None], hours=6.0), 32), found(by_hour[:, None], hours=6.0).truth)["by_step"][
            "mae"
        ]
        == [0.0] * H
    )


def test_linear_autoregression_is_exact_on_a_linear_system() -> None:
    value = np.empty((400, 1))
    value[:2] = [[1.0], [2.0]]
    for t in range(2, 400):
        value[t] = 1.6 * value[t - 1] - value[t - 2]
    origins = found(value)
    origins.training = origins.training.select([i % len(origins.training) for i in range(1200)])  # no penalty
    assert max(score(simple(origins, 8)["linear autoregression"](), origins.truth)["by_step"]["mae"]) < 1e-2


def test_a_history_that_cannot_be_fitted_is_a_walk() -> None:
    def broken(season: int, length: int) -> None:
        raise ZeroDivisionError("singular")

    mean, spread = gaussian(broken, np.array([3.0, 3.0, 3.0, 3.0, 3.0]), None, 3)
    assert mean.tolist() == [3.0] * 3 and spread.tolist() == [0.0] * 3
    with pytest.warns(UserWarning, match="a history of 5 steps could not be fitted: singular"):
        mean, spread = gaussian(broken, np.array([1.0, 2.0, 1.0, 2.0, 1.0]), None, 3)
    assert mean.tolist() == [1.0] * 3
    np.testing.assert_allclose(spread, np.sqrt([1, 2, 3]))


def test_ets_and_arima_follow_a_trend_with_intervals_that_widen() -> None:
    models = pytest.importorskip("statsforecast.models", reason="the extra bench is not installed")
    history = 2.0 * np.arange(60) + np.random.default_rng(0).normal(0, 0.5, 60)
    for model in (models.AutoETS, models.AutoARIMA):
        mean, spread = gaussian(lambda season, length, m=model: m(season_length=season), history, None, 4)
        np.testing.assert_allclose(mean, 2.0 * np.arange(60, 64), atol=2)
        assert (spread > 0.2).all() and (np.diff(spread) >= 0).all()


def test_the_closed_form_crps_is_the_integral() -> None:
    forecast = Gaussian(torch.tensor([0.4]), torch.tensor([1.3]))
    grid = torch.linspace(-15, 15, 300_001, dtype=torch.float64)
    cdf = torch.distributions.Normal(0.4, 1.3).cdf(grid)
    expected = torch.trapezoid((cdf - (grid >= 2.0).double()) ** 2, grid)
    assert gru.gaussian_crps(forecast, torch.tensor([2.0])).item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("changes", [False, True])
def test_the_gru_learns_a_sine_and_its_own_noise(changes: bool) -> None:
    wave = np.sin(2 * np.pi * np.arange(500) / 12) + np.random.default_rng(0).normal(0, 0.1, 500)
    origins = found(wave[:, None])
    model, _ = gru.train_gru(origins, 24, changes, 0, 30, lambda: None)
    by_step = score(gru.gru_forecast(model, origins, 64, 0), origins.truth)["by_step"]
    assert max(by_step["rmse"]) < 0.2  # the noise alone is 0.1; persistence errs by 0.5 and more
    assert 0.6 < float(by_step["covered_80"].mean()) < 0.97


def test_the_gru_learns_at_the_levels_at_which_the_network_learns() -> None:
    """A seasonal series that doubles when training is over: what was learned at one level alone does not hold there."""
    wave = 10 + 5 * np.sin(2 * np.pi * np.arange(500) / 12)
    wave[300:] *= 2
    errors = []
    for jitter in (0.0, 0.5):
        origins = found(wave[:, None], jitter=jitter)
        model, _ = gru.train_gru(origins, 24, False, 0, 20, lambda: None)
        errors.append(max(score(gru.gru_forecast(model, origins, 64, 0), origins.truth)["by_step"]["rmse"]))
    assert errors[1] < 0.6 * errors[0]
    assert origins.training_at(3).value.std() > 1.2 * origins.training.value.std()
    assert torch.equal(origins.training_at(3).value, origins.training_at(3).value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"posterior": MlpPosterior, "reads_changes": True, "error_order": 3, "latent_dim": 5},
        {"prior": LearnedSteeredPrior, "schedule": partial(Arrival, learned_exponent=True), "latent_dim": 5},
    ],
)
def test_the_numeric_part_is_counted_as_the_network_builds_it(tiny_folder: Path, options: dict[str, Any]) -> None:
    network = make_network(tiny_folder, ["a", "b"], hidden_dim=16, text_layers=(2,), goal_layer=2, **options)
    world = network.world
    parts = world.rssm, world.steering, world.value_head, world.forecast_error
    assert gru.numeric_parameters(network.options, 2) == sum(map(gru.parameters_of, parts))


def test_the_gru_reads_no_value_that_is_missing_and_has_the_size_it_should() -> None:
    origins = found(np.where(np.random.default_rng(0).random((300, 2)) < 0.2, np.nan, walk(300)))
    model, _ = gru.train_gru(origins, 8, True, 0, 1, lambda: None)
    before = gru.gru_forecast(model, origins, 4, 0)
    origins.batch.value[~origins.batch.value_mask] = 1e6
    assert torch.equal(gru.gru_forecast(model, origins, 4, 0).samples, before.samples)
    wanted = gru.numeric_parameters(data_set("storms", None).model_options(), 4)
    width = gru.equal_width(4, 8, wanted)
    assert gru.parameters_of(gru.GRUForecaster(4, 8, width, False)) == pytest.approx(wanted, rel=0.05)


# ------------------------------------------------------------------ scores


def cell(crps: np.ndarray) -> dict:
    return {"windows": {"crps": crps.tolist()}}


def test_the_relative_difference_is_paired_by_cluster() -> None:
    """Twice the score everywhere is 100 % worse with no doubt at all, however much the windows differ."""
    other = np.random.default_rng(0).gamma(1.0, 5.0, (40, H))
    names = [f"s{i // 4}" for i in range(40)]
    worse = relative([cell(2 * other)], [cell(other)], "crps", None, names)
    assert worse.value == pytest.approx(1) and worse.low == pytest.approx(1) and worse.high == pytest.approx(1)
    assert estimate([cell(other)], "crps", 0, names).error > 0.1
    seeds = relative([cell(0.8 * other), cell(1.0 * other)], [cell(other)], "crps", 2, names)
    assert seeds.value == pytest.approx(-0.1) and seeds.high < -0.09
    noisy = relative([cell(np.random.default_rng(1).permutation(other))], [cell(other)], "crps", None, names)
    assert noisy.low < noisy.value < noisy.high


def test_what_was_not_observed_is_not_scored() -> None:
    truth = torch.tensor([[1.0, torch.nan], [3.0, 5.0]])
    found = score(Forecast(torch.zeros(8, 2, 2), torch.tensor([[2.0, 2.0], [2.0, 2.0]])), truth)
    assert found["by_step"]["mae"] == [1.0, 3.0] and found["by_step"]["rmse"] == [1.0, 3.0]
    assert found["by_step"]["crps"].tolist() == [2.0, 5.0]
    assert torch.isnan(found["windows"]["crps"]).tolist() == [[False, True], [False, False]]


# ------------------------------------------------------------------ cells and reports


def test_a_finished_cell_is_not_made_again_unless_its_settings_change(tmp_path: Path) -> None:
    calls = []

    def work() -> dict:
        calls.append(1)
        return {"value": torch.tensor([1.0, torch.nan]), "many": 1 / 3}

    cells = Cells(tmp_path / "a")
    first = cells.make("x", {"samples": 3}, work)
    assert cells.make("x", {"samples": 3}, work) == first == json.loads((tmp_path / "a" / "x.json").read_text())
    assert first["value"] == [1.0, None] and len(calls) == 1
    cells.make("x", {"samples": 4}, work)
    assert len(calls) == 2
    with pytest.raises(KeyboardInterrupt):
        cells.make("y", {}, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["x.json"]


def test_the_report_shows_who_is_better_on_the_same_origins(tmp_path: Path) -> None:
    origins = found(walk())
    cells = Cells(tmp_path / "val")
    settings = {"data": "made", "part": "val", "origins": len(origins.batch), "context": C, "horizon": H}
    settings |= {"samples": 16, "quick": False}
    about = {"clusters": [f"s{i // 5}" for i in range(len(origins.batch))], "series": 20, "name": "a", "unit": "kt"}
    cells.make("origins", settings, lambda: about | {"hours": [6.0, 12.0, 18.0, 24.0], "std": 1.0})
    cells.make("persistence", settings, lambda: score(simple(origins, 16)["persistence"](), origins.truth))
    perfect = Forecast(origins.truth + 0.01 * torch.randn(16, *origins.truth.shape))
    for seed in (0, 1):
        cells.make(
            f"network-seed{seed}", settings | {"run": f"seed{seed}", "step": 7}, lambda: score(perfect, origins.truth)
        )
    row = {"hit": {"value": 0.5}, "distance": {"value": 3.0}, "jumps": {"value": None}}
    fan = {"goal": "Be at 5", "quantiles": [[1.0] * H, [2.0] * H, [3.0] * H]}
    example = {"series": "s", "context": [1.0] * C, "truth": [1.0] * H, "none": fan, "weak": fan, "strong": fan}
    opposing = {"disjoint": {"value": 0.75}, "contexts": 8, "examples": [example]}
    goals = {"gains": [0.0, 1.0], "came true": [row, row], "opposing": opposing}
    cells.make("goals of network-seed0", settings, lambda: goals)
    worse = Forecast(perfect.samples + 1)
    for name, forecast in (("as_shipped", perfect), ("no_text", worse)):
        run = {"run": f"{name}-seed0"}
        cells.make(f"ablation {name}-seed0", settings | run, lambda f=forecast: score(f, origins.truth))
        cells.make(f"goals of ablation {name}-seed0", settings | run, lambda: goals)
    text = document.of_part(tmp_path, "val")
    shipped, changed = (line for line in text.splitlines() if line.startswith(("| as_shipped", "| no_text")))
    assert "+" not in shipped and "| +" in changed and "50.0 %, without 50.0 %" in changed
    assert "came true, gain × 0 (no goal) | 50.0 % | 3.00 | –" in text and "in 75.0 % of 8 contexts" in text
    assert len(list((tmp_path / "images").glob("val_*.png"))) == 4 == text.count("](images/val_")
    against = next(line for line in text.splitlines() if line.startswith("| persistence |") and "(-" in line)
    assert "Runs of the network: seed0 (step 7), seed1 (step 7)." in text
    assert against.count("-9") >= 3 and "| network, 2 seeds |" in text and "| 6 h | 24 h | all |" in text
    part = Part(tmp_path / "val")
    (row,) = summary({"made": part}, {"made": part})
    assert row[BEST_OTHER].startswith("persistence, ") and row[LARGER] == "1 of 1"
    assert row[DIFFERENCE].startswith("-9") and row[TEXTS].startswith("+")
    assert row[CHOSEN] == "persistence, " + row[DIFFERENCE]
    assert row[SHOWN] == "network (1 of 1)"
    assert row[SEEDS] == "up to +0.0 %"  # both seeds forecast the same
    (alone,) = summary({"made": part}, {})
    assert alone[TEXTS] == "not run" and alone[CHOSEN] == ""
    off = Forecast(simple(origins, 16)["persistence"]().samples + 2)  # worse than persistence, by less than ten times
    cells.make("climatology", settings, lambda: score(off, origins.truth))
    with_worse = Part(tmp_path / "val")
    (row,) = summary({"made": with_worse}, {"made": with_worse})
    assert row[SHOWN] == "network (1 of 2)"
    cells.make("persistence", settings | {"samples": 8}, dict)  # of an older run with other samples: left out
    assert "persistence |" not in Part(tmp_path / "val").markdown()


def test_data_sets_are_named_and_found(tmp_path: Path) -> None:
    for name, path, message in (
        ("snow", None, "no data set 'snow'; expected one of storms, strikes"),
        ("Energy", None, "name its folder with --path"),
        ("weather", tmp_path, "weather_jena_6h.csv is not there"),
    ):
        with pytest.raises(ValueError, match=message):
            data_set(name, path)
    storms = data_set("storms", None)
    assert storms.arguments() == [] and storms.module(3).seed == 3
    strikes = data_set("strikes", None)
    assert strikes.arguments()[0] == "--config" and strikes.model_options().world.hidden_dim == 64
    assert strikes.module().window["context"] == 16
    (tmp_path / "numerical" / "Energy").mkdir(parents=True)
    energy = data_set("Energy", tmp_path)
    assert f"--data.path={tmp_path.resolve()}" in energy.arguments() and energy.options["domain"] == "Energy"


class Steerable(FakeNetwork):
    """Goes the share `gain` of the way to its goal."""

    def __init__(self) -> None:
        super().__init__(noise=0.5, value_noise=0.5)

    def rollout(self, batch, goals, samples, generator=None, gain=1.0):
        free = super().rollout(batch, [None] * len(batch), samples, torch.Generator().manual_seed(0))
        steered = super().rollout(batch, goals, samples, torch.Generator().manual_seed(0))
        pairs = ((free.mean, steered.mean), (free.sample, steered.sample))
        mean, sample = (torch.lerp(*pair, gain) for pair in pairs)
        return SimpleNamespace(mean=mean, sample=sample)


class GoalStorms(FakeStorms):
    value_resolution = (5.0, 1.0)
    scaler = SimpleNamespace(std=torch.tensor([20.0, 10.0]), mean=torch.zeros(2))


def test_hits_grow_with_the_gain_and_opposing_goals_part() -> None:
    origins = find_origins(GoalStorms(storms=24), "test", 100)
    goals = find_goals(origins, 100)
    assert goals.tolerance == 10.0 and goals.own is not None and goals.weak is not None
    found = measure(Steerable(), origins, goals, 16, 0, lambda: None)
    for kind in ("came true", "borrowed"):
        hits = [row["hit"]["value"] for row in found[kind]]
        distances = [row["distance"]["value"] for row in found[kind]]
        assert hits == sorted(hits) and hits[-1] == 1.0 and distances == sorted(distances, reverse=True)
    assert found["borrowed"][0]["hit"]["value"] < 1
    assert found["opposing"]["disjoint"]["value"] == 1.0 and len(found["opposing"]["examples"]) == 3
    weak, strong = (batch.goal_high[:, 0] for batch in (goals.weak, goals.strong))
    assert (strong - weak > 20).all()


def test_all_domains_are_read_with_one_config(tmp_path: Path) -> None:
    for name in DOMAINS:
        (tmp_path / "numerical" / name).mkdir(parents=True)
    first, *others = (plain(data_set(name, tmp_path).model_options().world) for name in DOMAINS)
    assert first["normalisation"] == "auto" and first["linear_lags"] and others == [first] * len(others)


def test_all_baselines_of_a_bundled_data_set_end_in_a_table_and_are_not_made_twice(tmp_path: Path) -> None:
    folder, ticks = tmp_path / "strikes", []
    work = Work(data_set("strikes", None), "val", folder, [0], {}, Sizes.of(True), lambda: ticks.append(1))
    made = [piece.name for piece in work.pieces(without_classical=True)]
    expected = [
        "persistence",
        "climatology",
        "seasonal naive",
        "linear autoregression",
        "GRU-seed0",
        "GRU of changes-seed0",
    ]
    assert made == ["origins", *expected]
    for piece in work.pieces(without_classical=True):
        work.cells.make(piece.name, piece.settings, piece.work)
    assert len(ticks) == 2 * 3 and len(list((folder / "gru").iterdir())) == 2
    text = document.of_part(folder, "val")
    assert all(f"| {name} |" in text for name in ("persistence", "seasonal naive", "GRU", "GRU of changes"))
    again = Work(data_set("strikes", None), "val", folder, [0], {}, Sizes.of(True), lambda: ticks.append(1))
    for piece in again.pieces(without_classical=True):
        again.cells.make(piece.name, piece.settings, lambda: pytest.fail("was made before"))
    document.write(tmp_path, tmp_path / "docs" / "results.md")
    page = (tmp_path / "docs" / "results" / "strikes.md").read_text(encoding="utf-8")
    assert "python -m benchmarks.quality --data strikes\n" in page and "Shrunk for a quick" in " ".join(page.split())
    assert "](images/strikes_val_horizon.png)" in page
    assert (tmp_path / "docs" / "results" / "images" / "strikes_val_horizon.png").exists()
    assert max(len(line) for line in page.splitlines() if line[:1] not in ("|", "!")) <= document.WIDTH
    assert "[strikes](results/strikes.md)" in (tmp_path / "docs" / "results.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="nothing was measured"):
        document.write(tmp_path / "other", tmp_path / "x.md")


# ------------------------------------------------------------------ learning from the validation part, too


def test_what_is_refitted_learns_from_validation_and_is_asked_the_same(tmp_path: Path) -> None:
    data, folder = data_set("strikes", None), tmp_path / "strikes"
    works = {part: Work(data, part, folder, [0], {}, Sizes.of(True), lambda: None) for part in ("test", "refit")}
    test, refit = works["test"].origins, works["refit"].origins
    assert torch.equal(test.truth, refit.truth) and test.clusters == refit.clusters
    weeks = [{t for row in o.training.time.tolist() for t in row} for o in (test, refit)]
    assert weeks[0] < weeks[1] and max(weeks[1]) < refit.batch.time.min()
    assert {t for row in test.validation.time.tolist() for t in row} < weeks[1]
    for work in works.values():
        for piece in work.pieces(without_classical=True):
            work.cells.make(piece.name, piece.settings, piece.work)
    chosen, last = (work.cells.get("GRU-seed0") for work in works.values())
    assert chosen["epoch"] == last["epoch"] and chosen["by_step"]["crps"] != last["by_step"]["crps"]
    document.write(tmp_path, tmp_path / "docs" / "results.md")
    page = (tmp_path / "docs" / "results" / "strikes.md").read_text(encoding="utf-8")
    assert page.index("--part refit\n") < page.index("## Test part\n") < page.index("## Test part, refitted")


def test_the_summary_page_has_few_columns_and_links_to_a_page_that_has_all() -> None:
    keys = (OURS, BEST_OTHER, DIFFERENCE, CHOSEN, SHOWN, LARGER, SEEDS, TEXTS)
    row = {"": "strikes"} | {key: f"value of {i}" for i, key in enumerate(keys)}
    index = document.index({"test": [row], "refit": []}, ["strikes"], "results")
    line = "| [strikes](results/strikes.md) | value of 0 | value of 1 | value of 2 | value of 7 |"
    assert line in index and "## Refitted" not in index
    page = document.page("strikes", "python -m benchmarks.quality --data strikes", {"test": row}, {"test": "Text."})
    assert all(f"| {key} | value of {i} |" in page for i, key in enumerate(keys))
    assert page.startswith("# Results: strikes") and page.endswith("## Test part\n\nText.\n")


def test_the_gru_that_does_not_choose_is_that_of_the_last_epoch() -> None:
    origins = found(np.random.default_rng(0).normal(size=(200, 1)))  # nothing to learn but the windows by heart
    best, epoch = gru.train_gru(origins, 32, False, 0, 40, lambda: None)
    assert epoch < 30
    again, _ = gru.train_gru(origins, 32, False, 0, epoch + 1, lambda: None, choose=False)
    later, last = gru.train_gru(origins, 32, False, 0, epoch + 3, lambda: None, choose=False)
    assert all(torch.equal(a, b) for a, b in zip(best.parameters(), again.parameters(), strict=True))
    assert last == epoch + 2 and not torch.equal(next(best.parameters()), next(later.parameters()))


def test_a_run_is_refitted_with_its_own_config_for_the_passes_that_were_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder, commands = tmp_path / "seed0", tmp_path / "refit-seed0", []
    with pytest.raises(ValueError, match="no best checkpoint"):
        training.refitted(run, folder)

    def saved(to: Path, epoch: int) -> None:
        to.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"epoch": epoch, "global_step": 9 * (epoch + 1)}, to)

    def train(command: list[str], **_: Any) -> SimpleNamespace:
        commands.append(command)
        saved(checkpoint_file(folder, LAST), 20)
        return SimpleNamespace(returncode=0)

    saved(checkpoint_file(run, BEST), 20)
    saved(checkpoint_file(run, LAST), 40)
    monkeypatch.setattr(training.subprocess, "run", train)
    for _ in range(2):  # the second time it is there
        assert training.refitted(run, folder) == folder
    (command,) = commands
    assert command[command.index("--config") + 1] == str(run / "config.yaml")
    for option in ("--data.train_through=val", "--checkpoint.monitor=null", "--trainer.max_epochs=21"):
        assert option in command
    assert training.kept(folder).name == "last.ckpt" and training.kept(run).name == "best.ckpt"
