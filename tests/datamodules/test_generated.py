"""Generated series, and the training of a forecaster on them."""

from pathlib import Path

import pytest
import torch
from lightning import Trainer

from datamodules import GeneratedSeries
from datamodules.generated.data import Cut
from datamodules.generated.series import LONGEST, generate
from gssr.network.prior import SeriesPrior
from gssr.network.prior_training import SeriesPriorTraining


@pytest.fixture(scope="module")
def series() -> tuple[torch.Tensor, torch.Tensor]:
    return generate(1000, 120, torch.Generator().manual_seed(0))


def test_series_are_finite_and_their_seasons_possible(series: tuple[torch.Tensor, torch.Tensor]) -> None:
    y, season = series
    assert y.shape == (1000, 120) and y.isfinite().all() and y.std(1).median() > 0.1
    assert season.min() == 0 and season[season > 0].min() >= 2 and season.max() <= LONGEST


def test_a_season_that_is_told_mostly_shows(series: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Many series are nearer to the season before than to a value at another step of it; without one, few are."""
    y, season = series
    rows = (season >= 4) & (season <= 24)
    y, season = y[rows], season[rows]
    step = torch.arange(60, 120).expand(len(y), -1)
    change = y - y.roll(1, 1)

    def alike(lag: torch.Tensor) -> torch.Tensor:
        return (change.gather(1, step) * change.gather(1, step - lag[:, None])).sum(1)

    assert (alike(season) > alike(season // 2)).float().mean() > 0.7


def test_growing_seasons_unit_roots_and_returning_levels_are_among_them(
    series: tuple[torch.Tensor, torch.Tensor],
) -> None:
    y, _ = series
    first, last = y[:, :40], y[:, -40:]
    moves = [part.diff(dim=1).abs().mean(1) for part in (first, last)]
    grows = moves[1] / moves[0].clamp(min=1e-6)
    away = (last.mean(1) - first.mean(1)).abs() / moves[0].clamp(min=1e-6)
    assert (grows > 1.5).float().mean() > 0.1 and (grows < 0.67).float().mean() > 0.1
    assert (away < 0.5).float().mean() > 0.1 and (away > 5).float().mean() > 0.1


def test_a_batch_depends_on_seed_part_and_number_alone() -> None:
    cut = Cut("train", 50, 256, 3, 7)
    one, other = cut[3], Cut("train", 50, 256, 3, 7)[0, 3]
    cut[30]  # of another pool
    assert all(torch.equal(one[key], other[key]) and torch.equal(one[key], cut[3][key]) for key in one)
    assert one["ahead"].min() >= 1 and one["value"].shape == (256, 3)
    for different in (Cut("val", 50, 256, 3, 7)[3], Cut("train", 50, 256, 3, 8)[3], cut[4]):
        assert not torch.equal(one["value"], different["value"])


def test_too_large_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="series are made 2048 at once"):
        GeneratedSeries(batch_size=4096)


def test_training_learns_and_writes_weights_that_load(tmp_path: Path) -> None:
    file, scores = tmp_path / "prior.safetensors", []
    torch.manual_seed(0)
    for steps in (1, 30):
        network = SeriesPriorTraining(warmup_steps=5, export=str(file))
        data = GeneratedSeries(batches=steps, batch_size=64, steps=2, heldout_batches=2)
        trainer = Trainer(
            max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(network, datamodule=data)
        scores.append(trainer.validate(network, datamodule=data, verbose=False)[0]["val/nats_per_value"])
    assert scores[1] < scores[0] - 0.1
    y = torch.randn(3, 20)
    written = SeriesPrior.load(file)
    assert torch.equal(written(y, torch.zeros(3).long(), 5)[0], network.prior(y, torch.zeros(3).long(), 5)[0])
