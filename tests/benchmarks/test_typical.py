"""Densities of paths against the change of variables from noise to paths, and shares of large changes."""

from math import log, pi
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.goals import typical
from gssr.network.forecaster import Rollouts
from gssr.search.beliefs.rolling import Dynamics
from gssr.sequences.collate import collate
from gssr.sequences.record import Record
from tests.networks import make_network

C, H = 3, 4


@pytest.mark.parametrize("options", [{}, {"error_order": 2, "normalisation": "window"}])
def test_the_density_of_a_path_is_that_of_its_noise_over_the_change_of_volume(
    options: dict[str, object], tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typical, "BEGINNINGS", 1)
    sizes = {"latent_dim": 4, "hidden_dim": 8, "text_layers": (2,), "goal_layer": 2, "seed": 0} | options
    network = make_network(tiny_folder, names=["y", "z"], units=["m", ""], **sizes).eval()
    value = np.full((C + H, 2), np.nan, np.float32)
    value[:C] = np.linspace(0, 1, C)[:, None]
    batch = collate([Record("a", 6.0 * np.arange(C + H), value, [None] * len(value), goal_start=C - 1)])
    dynamics, draws = Dynamics(network.forecaster, batch), torch.Generator().manual_seed(1)
    begin = dynamics.begin(1, draws)
    noise = torch.randn(1, H, 6, generator=draws)

    def rolled(noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        state, found = begin, []
        for t in range(H):
            state, x, shown = dynamics.advance(state, noise[:, t], t)
            found.append((x, state.belief.value, shown))
        x, scaled, shown = (torch.stack(parts, 1) for parts in zip(*found, strict=True))
        return x, scaled, shown

    def flat(noise: Tensor) -> Tensor:
        x, scaled, _ = rolled(noise.view(1, H, 6))
        return torch.cat([x, scaled], -1).flatten()

    volume = torch.autograd.functional.jacobian(flat, noise.flatten()).slogdet().logabsdet
    expected = -(noise.square().sum() + noise.numel() * log(2 * pi)) / 2 - volume
    x, _, shown = rolled(noise)
    found = typical.log_densities(network, batch, Rollouts(shown[:, None], shown[:, None], x[:, None]), seed=1)
    assert found.tolist() == pytest.approx([float(expected)], abs=2e-3)


def test_large_changes_begin_at_the_last_value() -> None:
    paths = torch.tensor([[[5.0], [5.5]], [[1.0], [4.5]]])
    assert typical.large(paths, torch.tensor([1.0]), 3.0) == 0.5
    records = [Record("a", np.arange(21.0), np.r_[np.arange(20.0), 40.0][:, None], [None] * 21, goal_start=2)]
    assert (
        typical.threshold(records, 5.0) == typical.threshold(records, 0.0) + 2.5 and typical.threshold(records, 0) > 1
    )
