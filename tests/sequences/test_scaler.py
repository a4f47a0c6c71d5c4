import numpy as np
import pytest
import torch

from gssr.sequences.scaler import Scaler


@pytest.fixture
def values() -> np.ndarray:
    generator = np.random.default_rng(0)
    values = generator.normal([50, 1000, -60], [20, 1, 0.1], size=(7, 30, 3))
    values[generator.random(values.shape) < 0.3] = np.nan
    return values


def test_fit_equals_numpy_on_observed_values(values):
    scaler = Scaler(3).fit(torch.from_numpy(values))
    flat = values.reshape(-1, 3)
    for buffer, reference in (("mean", np.nanmean), ("std", np.nanstd), ("low", np.nanmin), ("high", np.nanmax)):
        np.testing.assert_allclose(getattr(scaler, buffer).numpy(), reference(flat, axis=0), rtol=1e-6)


def test_a_mask_hides_values(values):
    filled = np.where(np.isnan(values), 1e9, values)
    masked = Scaler(3).fit(filled, ~np.isnan(values)).state_dict()
    assert all(torch.equal(masked[name], buffer) for name, buffer in Scaler(3).fit(values).state_dict().items())


def test_transform_and_inverse_undo_each_other_and_keep_nan(values):
    scaler = Scaler(3).fit(values)
    value = torch.from_numpy(values).float()
    scaled = scaler.transform(value)
    assert torch.equal(scaled.isnan(), value.isnan())
    torch.testing.assert_close(scaler.inverse(scaled), value, equal_nan=True, rtol=1e-5, atol=1e-4)
    rows = scaled.reshape(-1, 3).numpy().astype(np.float64)
    np.testing.assert_allclose(np.nanstd(rows, axis=0), 1, rtol=1e-4)


def test_masked_values_become_the_mean_and_give_no_nan_gradient(values):
    scaler = Scaler(3).fit(values)
    value = torch.zeros(2, 3, requires_grad=True)
    mask = torch.tensor([[True, False, True], [False, False, True]])
    scaled = scaler.transform(value, mask)
    assert (scaled[~mask] == 0).all() and (scaled[mask] != 0).all()
    assert torch.equal(scaler.transform(value.detach().masked_fill(~mask, torch.nan), mask), scaled.detach())
    scaled.sum().backward()
    assert torch.equal(value.grad != 0, mask)


def test_the_state_carries_everything_through_a_safe_load(values, tmp_path):
    scaler = Scaler(3).fit(values)
    torch.save(scaler.state_dict(), tmp_path / "s.pt")
    other = Scaler(3)
    other.load_state_dict(torch.load(tmp_path / "s.pt", weights_only=True))
    assert torch.equal(other.transform(torch.ones(3)), scaler.transform(torch.ones(3)))
    assert torch.equal(other.low, scaler.low) and not list(scaler.parameters())


def test_columns_that_say_nothing_are_refused(values):
    values[..., 1] = np.where(np.isnan(values[..., 1]), np.nan, 5.0)
    with pytest.raises(ValueError, match="dimension 1 is always 5"):
        Scaler(3).fit(values)
    values[..., 1] = np.nan
    with pytest.raises(ValueError, match="dimension 1 is never observed"):
        Scaler(3).fit(values)
    with pytest.raises(ValueError, match="4 value dimensions"):
        Scaler(4).fit(values)
    with pytest.raises(ValueError, match="at least 1"):
        Scaler(0)
