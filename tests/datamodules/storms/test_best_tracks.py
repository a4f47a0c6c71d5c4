import gzip
import re
from dataclasses import replace

import numpy as np
import pytest

from datamodules.storms.best_tracks import STORMS_FILE, Storm, advisories, motion, read_storms, spoken_name


@pytest.fixture(scope="module")
def storms() -> list[Storm]:
    return read_storms()


def storm(**changes) -> Storm:
    defaults = {
        "name": "Amy",
        "year": 1975,
        "time": np.array([0.0, 6.0, 12.0, 48.0]),
        "latitude": np.array([30.0, 31.0, 31.0, -31.0]),
        "longitude": np.array([-75.0, -75.0, -75.0, 1.0]),
        "status": ["tropical storm", "hurricane", "extratropical", "other low"],
        "wind": np.array([40.0, 65.0, 50.0, 30.0]),
        "pressure": np.array([1000.0, 985.0, np.nan, 1004.0]),
    }
    return Storm(**(defaults | changes))


def test_the_file_is_what_its_card_says(storms):
    assert len(storms) == 654 and sum(map(len, storms)) == 19_054 and len({s.series for s in storms}) == 654
    assert min(s.year for s in storms) == 1975 and max(s.year for s in storms) == 2022
    with gzip.open(STORMS_FILE, "rt") as file:
        assert next(file) == "name,year,time,lat,long,status,category,wind,pressure\n"
        for row in file:
            _, _, time, _, _, status, category, wind, _ = row.strip().split(",")
            assert time[11:] in ("00:00Z", "06:00Z", "12:00Z", "18:00Z")
            above = sum(int(wind) >= low for low in (64, 83, 96, 113, 137))
            assert category == (str(above) if status == "hurricane" else "")


def test_tracks_are_six_hourly_ascending_and_continuous(storms):
    for s in storms:
        assert np.all(np.diff(s.time) > 0) and np.all(s.time % 6 == 0) and np.all(np.diff(s.time) <= 30 * 24)
        assert np.isfinite([s.wind, s.pressure, s.latitude, s.longitude]).all()
        first = 1970 + s.time[0] / 24 / 365.25
        assert s.year <= first + 0.01 < s.year + 1.01
        assert np.all(np.abs(s.longitude) < 180) and np.abs(np.diff(s.longitude)).max(initial=0) < 30
    zeta = next(s for s in storms if s.series == "Zeta 2005")
    assert zeta.time[-1] / 24 / 365.25 + 1970 > 2006  # one storm across the new year


def test_years_select_storms(storms):
    assert [s.series for s in read_storms(years=range(2010, 2016))] == [
        s.series for s in storms if 2010 <= s.year < 2016
    ]


def test_motion_against_angles_between_vectors():
    generator = np.random.default_rng(0)
    latitude, longitude = 30 + np.cumsum(generator.normal(size=50)), -60 + np.cumsum(generator.normal(size=50))
    speed, direction = motion(latitude, longitude, np.arange(50) * 6.0)
    phi, lam = np.radians(latitude), np.radians(longitude)
    unit = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)
    angle = np.arctan2(np.linalg.norm(np.cross(unit[:-1], unit[1:]), axis=1), (unit[:-1] * unit[1:]).sum(axis=1))
    np.testing.assert_allclose(speed, angle * 3440.065 / 6, rtol=2e-3)  # earth's radius in nautical miles
    for t, words in enumerate(direction):
        assert ("north" in words.split("-")[-1]) <= (latitude[t + 1] > latitude[t])
        assert ("west" in words) <= (longitude[t + 1] < longitude[t])


@pytest.mark.parametrize(
    ("north", "east", "word"),
    [
        (1, 0, "north"),
        (0, 1, "east"),
        (-1, 0, "south"),
        (0, -1, "west"),
        (1, 1, "northeast"),
        (-1, 2, "east-southeast"),
        (2, -1, "north-northwest"),
    ],
)
def test_compass(north, east, word):
    assert motion(np.array([0.0, north / 10]), np.array([0.0, east / 10]), np.array([0.0, 6.0]))[1] == [word]


def test_the_advisory_reads_as_meant():
    assert advisories(storm()) == [
        "Tropical storm Amy near 30.0 north 75.0 west. Central pressure 1000 hPa.",
        "Hurricane Amy near 31.0 north 75.0 west, moving north at 10 knots. Minimum central pressure 985 hPa.",
        "Extratropical cyclone Amy centered near 31.0 north 75.0 west, stationary.",
        "Low Amy near 31.0 south 1.0 east. Lowest pressure 1004 hPa.",
    ]
    assert (
        spoken_name("AL031987") == "Three"
        and spoken_name("Al202011") == "Twenty"
        and spoken_name("Alberto") == "Alberto"
    )


def test_longitudes_stay_continuous_over_the_date_line():
    s = storm(longitude=np.array([179.0, 180.0, 181.0, 182.0]))
    assert " 179.0 east" in advisories(s)[0] and " 179.0 west" in advisories(s)[2]
    assert "moving northeast" in advisories(s)[1]


def test_the_advisory_does_not_know_the_wind(storms):
    shape = re.compile(
        r"[A-Z][a-z ]+ [A-Z][A-Za-z]+ (?:centered )?near \d+\.\d north \d+\.\d (?:west|east)"
        r"(?:, moving [a-z-]+ at \d+ knots|, stationary)?\.(?: (?:Central|Minimum central|Lowest) pressure \d+ hPa\.)?"
    )
    generator = np.random.default_rng(0)
    for s in storms:
        texts = advisories(s)
        assert all(
            shape.fullmatch(text) for text in texts
        )  # the only numbers are position, speed of motion and pressure
        assert advisories(replace(s, wind=generator.integers(10, 165, len(s)).astype(float))) == texts


def test_the_advisory_knows_no_later_step(storms):
    for s in storms[::50]:
        for cut in (1, len(s) // 2):
            past = {
                name: getattr(s, name)[:cut] for name in ("time", "latitude", "longitude", "status", "wind", "pressure")
            }
            assert advisories(replace(s, **past)) == advisories(s)[:cut]


def test_a_track_over_the_date_line_is_read_without_a_jump(tmp_path):
    rows = [
        "Far,2000,2000-01-01T00:00Z,10.0,-179.5,hurricane,1,65,",
        "Far,2000,2000-01-01T06:00Z,10.0,179.5,hurricane,1,65,980",
    ]
    with gzip.open(tmp_path / "s.csv.gz", "wt") as file:
        file.write("\n".join(["name,year,time,lat,long,status,category,wind,pressure", *rows]))
    (far,) = read_storms(tmp_path / "s.csv.gz")
    assert far.longitude.tolist() == [-179.5, -180.5] and np.isnan(far.pressure[0])
    texts = advisories(far)
    assert texts[0].endswith("179.5 west.") and "179.5 east, moving west at 10 knots." in texts[1]
