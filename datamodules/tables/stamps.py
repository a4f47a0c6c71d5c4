"""The grid of the stamps of a table: which step, calendar and clock they follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from datamodules.tables.grid import BUSINESS, EXAMPLES, SHORTEST, Grid, length
from datamodules.tables.zones import changes, shown

MONTH = 365.25 / 12  # days
NEAREST = 84.0  # hours that rows of months lie from their day at most, unless the step is given
BETTER = 0.05  # by which a calendar must fit better than a simpler one
LOOK = 1000  # rows of a series that tell its origin


def grid_of_stamps(parts: Sequence[np.ndarray], step: str | None = None, zone: str = "") -> Grid:
    """The grid on which the stamps of some series lie, each (n) in hours, ascending.

    Stamps may be absent, and lie beside their step: within three days of months, otherwise within half a step.

    Args:
        step: What the user says that it is.
        zone: Whose clock counts days and months; "" is UTC.

    Raises ValueError where no grid fits, or no series has two stamps.
    """
    parts, zone = [part for part in parts if len(part) > 1], "" if zone == "UTC" else zone
    if step is not None:
        grids = list(_variants(Grid.of(step), parts, zone))
        if not parts:
            return grids[0]
    elif not parts:
        raise ValueError("no series of the table has two rows; a step needs two, and a window at least as many")
    else:
        grids = [*_months(parts, zone), *_lengths(parts, zone)]
    fits = {grid: _fit(grid, parts) for grid in grids}
    rows, best = sum(map(len, parts)), None
    for grid, fit in fits.items():
        # A few rows lie by chance where a richer calendar has its steps.
        if fit > 0 and (best is None or fit > fits[best] + (BETTER + 1 / rows if fit < 1 else 0.0)):
            best = grid
    if best is None:  # then the reader of the rows says which of them are in one step
        best = max((grid for grid in grids if step is not None or fits[grid] > -1), key=fits.__getitem__, default=None)
    if best is None:
        gaps = np.concatenate([np.diff(part) for part in parts])
        raise ValueError(
            f"times are irregular: gaps between rows go from {length(gaps.min())} to {length(gaps.max())}, with a "
            f"median of {length(_whole(float(np.median(gaps))))}, and are no multiples of it; give the grid with step, "
            f"{EXAMPLES}; each step holds at most one row"
        )
    return best


def _fit(grid: Grid, parts: Sequence[np.ndarray]) -> float:
    """The share of steps that have a row which lies on its step, above 0 up to 1.

    It is one less where two rows are in one step, and -1 where rows of months are far from their day.
    """
    rows = steps = exact = far = 0
    collide = False
    for part in parts:
        origin = grid.origin(part[:LOOK])
        at = grid.position(part, origin)
        collide |= bool((np.diff(at) < 1).any())
        beside = np.abs(part - grid.time(at, origin))
        rows, steps = rows + len(part), steps + int(at[-1] - at[0]) + 1
        exact, far = exact + int((beside <= grid.tolerance).sum()), far + int((beside > NEAREST).sum())
    if grid.months and not grid.loose and far > 0.05 * rows:
        return -1.0
    # A step without any row on it is a step.
    return min(max(exact, 0.01) / max(steps, 1), 1.0) - collide


def _variants(grid: Grid, parts: Sequence[np.ndarray], zone: str) -> Iterator[Grid]:
    """The calendars and clocks that words such as "1M" may mean, the likeliest first."""
    if grid.months:
        yield (own := replace(grid, zone=zone))
        if not grid.week:
            yield replace(own, week=BUSINESS)
            yield replace(own, loose=True)
    elif grid.week:
        yield replace(grid, week=_week(parts, zone), zone=zone)
    elif changes(zone) and grid.hours > 1:
        clocks = ("", zone) if grid.hours % 24 else (zone, "")
        yield from (replace(grid, zone=clock) for clock in clocks)
    else:
        yield grid


def _months(parts: Sequence[np.ndarray], zone: str) -> Iterator[Grid]:
    """Months where the median gap is about some of them: 28 days may be four weeks."""
    days = float(np.median(np.concatenate([np.diff(part) for part in parts]))) / 24
    months = round(days / MONTH)
    if months and abs(days - months * MONTH) <= 3.5:
        own = Grid(0.0, months, zone=zone)
        yield from (own, replace(own, week=BUSINESS))


def _lengths(parts: Sequence[np.ndarray], zone: str) -> Iterator[Grid]:
    """Steps of the most frequent gap, or of the median of gaps that are nearly all multiples of it."""
    gaps = np.concatenate([np.diff(part) for part in parts])
    median = float(np.median(gaps))
    sizes, counts = np.unique(np.rint(gaps * 3.6e6), return_counts=True)
    found = [float(sizes[counts.argmax()]) / 3.6e6] if counts.max() >= 0.5 * len(gaps) else []
    # Clocks that run unevenly: nearly all gaps are whole multiples of the median, give or take a quarter, or a day at
    # each end.
    steps = gaps / median
    allowed = max(0.25, 49 / median) if median >= 5 * 24 else 0.25
    if np.mean((np.abs(steps - np.rint(steps)) <= allowed) & (steps > 0.5)) >= 0.9:
        mean = float(gaps.sum() / np.rint(steps).sum())
        rate = [1 / 3600 / round(1 / 3600 / mean)] if mean < 0.5 / 3600 else []  # some steps a second
        found += [*rate, _whole(median), _whole(mean)]
    for size in dict.fromkeys(size for size in found if size >= SHORTEST):
        yield from _variants(Grid(size), parts, zone)
        if size == 24:
            yield from _variants(Grid(24.0, week=BUSINESS), parts, zone)


def _week(parts: Sequence[np.ndarray], zone: str) -> str:
    """The days of a week, from Monday, that have rows; five or six of them, else those from Monday to Friday."""
    days = np.concatenate([shown(part, zone) for part in parts]) // 24 if parts else np.zeros(0)
    counts = np.bincount(((days + 3) % 7).astype(int), minlength=7)  # 1970 began on a Thursday
    week = "".join("1" if count > 0.25 * counts.max() else "0" for count in counts)
    enough = len(days) and np.ptp(days) > 21 and 5 <= week.count("1") <= 6
    return week if enough else BUSINESS


def _whole(hours: float) -> float:
    """A length of time rounded to whole days, hours, minutes or seconds, the longest of these that is within 5 %."""
    for size in (24.0, 1.0, 1 / 60, 1 / 3600):
        near = round(hours / size) * size
        if near and abs(near - hours) <= 0.05 * hours:
            return near
    return hours
