"""The benchmark of chances: events get the chance that is asked for, and rows say what their estimates are like."""

import numpy as np
import pytest
import torch

from benchmarks import chances
from gssr.search.beliefs import smc
from gssr.sequences.conditions import Condition, ConditionEvent

NAMES = ["wind speed", "pressure"]


class Walk:
    value_names, value_units = NAMES, ["", ""]


@pytest.mark.parametrize("chance", [1 / 30, 1 / 1000])
def test_events_of_each_kind_have_the_chance(chance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def event_of(text: str, *rest: object) -> ConditionEvent:
        return Condition(text, NAMES).over(np.arange(9.0))

    monkeypatch.setattr(chances, "event_of", event_of)
    paths = torch.randn(40_000, 8, 2, generator=torch.Generator().manual_seed(0)).cumsum(1)
    last, shares = torch.zeros(2), {}
    for kind, write in chances.kinds(NAMES, paths, last):
        event = chances.chosen(write, chance, paths, last, Walk(), None)  # type: ignore[arg-type]
        shares[kind] = float(event(paths, last).double().mean())
    assert len(shares) == 5 and all(share == pytest.approx(chance, rel=0.3) for share in shares.values())


def test_a_row_tells_errors_and_bias() -> None:
    estimates = np.array([0.0, 0.2, 0.1, 0.1] * 2)
    row = chances.Row(
        [chances.Measured(window, 0.1, estimates, 0.8, 40.0, 20.0, (1.2, 1.5)) for window in range(3)], 6.0, 3
    )
    cells = row.cells(plain=0.5)
    assert cells["relative error, 64"] == f"{0.5**0.5:.2f}" and cells["256"] == "0.00"
    assert cells["bias"] == "1.00 ± 0.00" and cells["estimates of 0"] == "25 %" and cells["time"] == "4.0"
    assert cells["for 0.05"] == f"{0.5 / 0.05**2 * 64 * 4 / 1000:.0f}"
    assert cells["large changes"] == "0.80"


def test_large_changes_of_particles_are_weighted_as_their_paths_are() -> None:
    weights = torch.tensor([0.25, 0.75, 0.0]).double().log().repeat_interleave(64)
    paths, large = torch.zeros(192, 2, 1), torch.tensor([4.0, 0.0, 100.0]).repeat_interleave(64)
    found = smc.Particles(paths, paths, weights, torch.arange(192), torch.ones(3, dtype=torch.float64))
    assert chances.of_particles(found, 0, 0.1, large, 2.0).large == (pytest.approx(1.0), 2.0)
    assert chances.changes(torch.tensor([[[3.0], [1.0]]]), torch.tensor([2.0])).tolist() == [[1.0, 2.0]]
