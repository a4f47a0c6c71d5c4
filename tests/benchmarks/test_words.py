"""The parser of advisories: every advisory of the data is read, agrees with its own row, and with no other."""

import numpy as np
import pytest

from benchmarks.words.advisory import agreement, bearing, read
from datamodules.storms.best_tracks import advisories, read_storms, spoken_name

STORMS = [storm for storm in read_storms(years=range(2018, 2021)) if len(storm) > 8]


def rows(storm) -> np.ndarray:
    return np.stack([storm.wind, storm.pressure, storm.latitude, storm.longitude], 1)


def test_what_an_advisory_says_is_read() -> None:
    said = read(
        "Extratropical cyclone Ida centered near 34.0 south 7.5 east, moving west-southwest at 9 knots. Central "
        "pressure 1002 hPa."
    )
    assert (said.name, said.level, said.place, said.pressure) == ("Ida", None, (-34.0, 7.5), 1002.0)
    assert (said.wind, said.direction) == (None, 247.5)
    said = read("Hurricane Ian near 20.1 north 83.5 west, stationary. Winds of 85 knots.")
    assert (said.name, said.place, said.wind, said.direction) == ("Ian", (20.1, -83.5), 85.0, None)


@pytest.mark.parametrize("text", ["", "near", "The hurricane Ian is near", "moving fast", "20 north", "12 hPa"])
def test_a_text_that_says_nothing_says_nothing(text: str) -> None:
    said = read(text)
    assert (said.name, said.place, said.pressure, said.wind, said.direction) == (None,) * 5


def test_real_advisories_agree_with_their_own_rows_and_not_with_those_of_others() -> None:
    own: dict[str, list[float]] = {}
    other: dict[str, list[float]] = {}
    for storm, lender in zip(STORMS, STORMS[1:] + STORMS[:1], strict=True):
        size = min(len(storm), len(lender)) - 1
        texts, value = [advisories(storm)[1 : size + 1]], rows(storm)
        lent = rows(lender)[None, 1 : size + 1]
        parts = (value[None, 1 : size + 1], value[:1]), (lent, lent[:, 0])
        for kept, (shown, before), name in zip((own, other), parts, (storm.name, lender.name), strict=True):
            for part, right in agreement(texts, shown, before, [spoken_name(name)]).items():
                kept.setdefault(part, []).extend(right[np.isfinite(right)])
    means = {part: np.mean(right) for part, right in own.items() if right}
    assert set(means) == {"name", "place", "pressure", "status", "motion", "new"}
    assert min(means[part] for part in ("name", "place", "pressure", "motion")) == 1.0
    assert means["status"] > 0.97 and means["new"] > 0.97
    assert all(np.mean(other[part]) < 0.6 for part in ("name", "place", "pressure", "motion"))


def test_a_repeated_text_counts_only_where_the_values_differ() -> None:
    value = np.array([[[50.0, 990, 20, -60], [50, 990, 20, -60], [55, 985, 21, -61]]])
    found = agreement([["a", "a", "a"]], value, value[:, 0], ["Ian"])["new"]
    assert np.isnan(found[0, :2]).all() and found[0, 2] == 0


def test_directions_are_those_of_the_move() -> None:
    assert bearing(np.array([20.0, -60.0]), np.array([21.0, -60.0])) == pytest.approx(0)
    assert bearing(np.array([20.0, -60.0]), np.array([20.0, -61.0])) == pytest.approx(270)
    assert bearing(np.array([20.0, -60.0]), np.array([20.0, -60.0])) is None
    assert bearing(np.array([np.nan, -60.0]), np.array([20.0, -60.0])) is None
