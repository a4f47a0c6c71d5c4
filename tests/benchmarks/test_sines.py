"""The best forecast of sines for one who knows that a condition holds."""

import numpy as np
import pytest

from benchmarks.goals.sines import understood
from datamodules import Sines


@pytest.fixture(scope="module")
def data() -> Sines:
    data = Sines(series=8)
    data.setup("fit")
    return data


def test_a_known_end_tells_the_drift(data: Sines) -> None:
    record = data.windows("val")[0]
    free = data.expected(record)
    end = free[-1] + 8.0
    found = understood(data, record, f"value {end - 1}..{end + 1} at 8", np.random.default_rng(0))
    # The drift is 8 but for what the noise shares of it, which is little beside drifts of up to 20.
    assert found - free == pytest.approx(8.0 * np.arange(1, 9) / 8, abs=0.4)


def test_some_step_tells_less_than_the_last(data: Sines) -> None:
    record = data.windows("val")[0]
    free, generator = data.expected(record), np.random.default_rng(0)
    peak = max(free) + 1.0
    loose = understood(data, record, f"value {peak - 1}..{peak + 1} within 8", generator)
    assert abs(loose[-1] - peak) > 1.0
    for nothing in (None, "value 900..901 at 8", "value > 0 at 80"):
        assert (understood(data, record, nothing, generator) == free).all()
