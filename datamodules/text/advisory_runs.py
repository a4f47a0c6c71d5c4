"""Runs of consecutive storm advisories, some with the row of values in words in front of the advisory it belongs to."""

from collections.abc import Iterator

import numpy as np

from datamodules.storms.best_tracks import Storm, advisories, read_storms

MOST = 12  # advisories in a run
ROWS = 0.6  # share of runs that have rows


def row_in_words(storm: Storm, step: int, named: bool) -> str:
    """ "wind 85 kt, pressure 970 hPa, 17.4 north 78.3 west:"; ``named`` gives latitude and longitude by name and sign.

    What was not observed is left out.
    """
    parts = [
        f"{name} {value:.0f} {unit}"
        for name, value, unit in (("wind", storm.wind[step], "kt"), ("pressure", storm.pressure[step], "hPa"))
        if np.isfinite(value)
    ]
    latitude, longitude = storm.latitude[step], (storm.longitude[step] + 180) % 360 - 180
    if named:
        parts.append(f"latitude {latitude:.1f} deg, longitude {longitude:.1f} deg")
    else:
        sides = "south" if latitude < 0 else "north", "east" if longitude > 0 else "west"
        parts.append(f"{abs(latitude):.1f} {sides[0]} {abs(longitude):.1f} {sides[1]}")
    return ", ".join(parts) + ":"


def advisory_runs(years: range, passes: int, seed: int) -> Iterator[str]:
    """Every advisory of these years in ``passes`` runs of up to ``MOST``, one advisory a line."""
    generator = np.random.default_rng(seed)
    storms = read_storms(years=years)
    for _ in range(passes):
        for storm in storms:
            texts, start = advisories(storm), 0
            while start < len(texts):
                stop = min(len(texts), start + int(generator.integers(1, MOST + 1)))
                # Rows in front of every advisory of the run, of its last ones, or of some.
                share = generator.choice([1.0, 0.5]) if generator.random() < ROWS else 0.0
                first = start if generator.random() < 0.5 else int(generator.integers(start, stop))
                named = generator.random() < 0.25
                lines = []
                for step in range(start, stop):
                    row = step >= first and generator.random() < share
                    lines.append(f"{row_in_words(storm, step, named)} {texts[step]}" if row else texts[step])
                yield "\n".join(lines)
                start = stop
