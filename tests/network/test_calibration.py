"""Calibrated intervals hold what they claim, on values they were not fitted to, and nothing else changes."""

import pytest
import torch

from gssr.metrics import interval_covers
from gssr.network.calibration import Calibration, stretch

S, H, Y = 32, 3, 2
MANY = 20_000  # windows


def windows(count: int, spread: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Skewed truths (N, H, Y) whose deviation grows with the step, and rollouts that are `spread` times as wide."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).exp() * torch.arange(1, H + 1)[:, None]

    return spread * draw(S, count, H, Y), spread * 1.65 * (1 - 1 / spread) + draw(count, H, Y)


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_intervals_hold_their_share_on_other_windows(spread: float) -> None:
    samples, values = windows(2000, spread, 0)
    calibration = Calibration(Y)
    seen = torch.ones_like(values, dtype=torch.bool)
    calibration.fit(False, [stretch(samples, values, seen)])
    samples, values = windows(2000, spread, 1)
    before = interval_covers(samples, values).float().mean((0, 2))
    after = interval_covers(calibration(samples, torch.zeros(2000, dtype=torch.bool)), values).float().mean((0, 2))
    assert (before - 0.8).abs().min() > 0.08
    torch.testing.assert_close(after, torch.full((H,), 0.8), atol=0.02, rtol=0)


def test_each_kind_and_step_has_its_own_factor() -> None:
    calibration = Calibration(Y, reach=4)
    needed = torch.full((MANY, H, Y), 2.0)
    needed[:, 1] = 0.5
    calibration.fit(True, [needed])
    sample = torch.randn(5, 2, 6, Y)
    out = calibration(sample, torch.tensor([False, True]))
    assert torch.equal(out[:, 0], sample[:, 0])
    middle = sample.median(0).values
    for step, factor in enumerate((2.0, 0.5, 2.0, 2.0, 2.0, 2.0)):
        away = out[:, 1, step] - middle[1, step]
        torch.testing.assert_close(away, factor * (sample - middle)[:, 1, step], rtol=0.01, atol=1e-3)


def test_too_few_windows_and_unobserved_values_change_nothing() -> None:
    calibration = Calibration(Y)
    needed = torch.full((50, H, Y), torch.nan)
    needed[:19, :, 0] = 3.0
    calibration.fit(False, [needed])
    assert torch.equal(calibration.factor, torch.ones_like(calibration.factor))


def test_extreme_factors_are_bounded() -> None:
    calibration = Calibration(Y)
    calibration.fit(False, [torch.full((MANY, H, Y), 1e9)])
    calibration.fit(True, [torch.zeros(MANY, H, Y)])
    assert 3.9 < calibration.factor[0].max() <= 4.0
    assert 0.25 <= calibration.factor[1].min() < 0.26


def test_batches_of_different_horizons_and_very_many_numbers_are_taken() -> None:
    calibration = Calibration(1)
    short, long = torch.full((MANY, 1, 1), 2.0), torch.full((MANY, 2, 1), 2.0)
    long[:, 1] = 3.0
    calibration.fit(False, [short, long])
    assert calibration.factor[0, :3, 0].tolist() == pytest.approx([2.0, 3.0, 3.0], rel=0.01)
    wide = Calibration(600)
    wide.fit(False, [torch.full((500, 60, 600), 2.0)])  # 18 million
    assert (wide.factor[0] == wide.factor[0, 0, 0]).all() and wide.factor[0, 0, 0] == pytest.approx(2)


def test_few_stretches_draw_the_factors_together_and_those_that_narrow_to_1() -> None:
    """Thirty windows of ten steps are three stretches, however alike they are."""
    calibration, needed = Calibration(1), torch.full((30, 10, 1), 2.0)
    needed[:, :5] = 0.5
    calibration.fit(False, [needed])
    first, last = calibration.factor[0, [0, 9], 0].tolist()
    assert last == pytest.approx(2 ** (3 / 13), rel=0.01) and first == pytest.approx(last ** (-3 / 13), rel=0.01)
    for factor, kept in ((2.0, 2.0), (0.5, 0.5 ** (3 / 13))):
        calibration.fit(False, [torch.full((30, 10, 1), factor)])
        assert calibration.factor[0, 0, 0].item() == pytest.approx(kept, rel=0.01)


def test_beliefs_that_tell_nothing_of_texts_are_said_to() -> None:
    calibration = Calibration(Y)
    assert calibration.tells()
    calibration.text_gain.fill_(-0.02)
    with pytest.warns(UserWarning, match=r"plans have no texts: .* behind another one \(-0.020 nats a token\)"):
        assert not calibration.tells()
    other = Calibration(Y)
    other.load_state_dict(calibration.state_dict())
    assert other.text_gain == calibration.text_gain
