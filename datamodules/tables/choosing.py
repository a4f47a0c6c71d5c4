"""What a table decides itself where an option is auto: the column of times, and how long contexts and horizons are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from datamodules.tables.build import USES
from datamodules.tables.source import Source
from datamodules.tables.splits import Segments
from datamodules.tables.times import Times
from datamodules.tables.windows import Cutter
from gssr.sequences.season import find_season
from gssr.shown import quoted

AUTO: Literal["auto"] = "auto"
HEAD = 1000  # rows that show whether a column holds times
LOOKED_AT = 20_000  # steps of the longest series, the last ones, in which a season is looked for
PLAIN, SHORTEST, LONGEST = 24, 16, 72  # steps of a context without a season, and of any
BESIDE = 16  # steps beside a season where two do not fit
HORIZON, MOST_HORIZON = 8, 48
SHARE = 3  # contexts and horizons that the training rows must hold


class Sizes(NamedTuple):
    """Steps of a context and a horizon, those of the season, if there is one, and a sentence about each choice."""

    context: int
    horizon: int
    season: int | None
    sentences: list[str]


def column_of_times(source: Source, options: Any) -> str | None:
    """The first column without another use whose cells are times; None without one."""
    used = {getattr(options, f"{use}_column") for use in USES if use != "time"} | set(options.value_columns or ())
    names = [name for name in source.columns if name not in used]
    head = next(iter(source.chunks(names)), {}) if names else {}
    for name, cells in head.items():
        try:
            found = Times(name, options.time_unit, options.time_format, options.time_zone).parse(cells[:HEAD], 1)
        except ValueError:
            continue
        if len(np.unique(found)) > 1:
            return name
    return None


def sizes(
    cutter: Cutter,
    parts: Mapping[str, Segments],
    dimension: int,
    named: int | None,
    context: int | str,
    horizon: int | str,
    leads: bool,
) -> Sizes:
    """Context and horizon, each as given or, where it is auto, by the season of the longest training segment.

    Args:
        parts: segments of "train", "val" and "test".
        dimension: of the values in which a season is looked for. named: the season that the calendar names.
        leads: contexts may lie before their part; otherwise each part must hold some windows.
    """
    series, first, end = max(parts["train"], key=lambda segment: segment[2] - segment[1])
    room = [max(b - a for _, a, b in parts[name]) for name in ("val", "test") if parts[name] and not leads]
    first = max(first, end - LOOKED_AT)
    at, value = cutter.positions(series, first, end), cutter.store.read("value", first, end)[:, dimension]
    on_grid = np.full(int(at[-1] - at[0]) + 1, np.nan)
    on_grid[at - at[0]] = value
    season = find_season(on_grid, named)
    by = "the calendar and by autocorrelation" if season == named else "autocorrelation"
    why = f"season {season} by {by}" if season else "no season by autocorrelation"
    sentences = []
    if horizon == AUTO:
        horizon = horizon_of(season, len(on_grid))
        sentences.append(f"{why}: horizon {horizon}")
    if context == AUTO:
        most = min([len(on_grid), *(SHARE * ((rows + int(horizon)) // 2) for rows in room)])
        context = context_of(season, int(horizon), most)
        sentences.append(f"{why}: context {context}")
    return Sizes(int(context), int(horizon), season, sentences)


def horizon_of(season: int | None, rows: int) -> int:
    """The shortest number of whole seasons that is 8 or more, 8 without one."""
    steps = HORIZON if season is None else season * -(-HORIZON // season)
    steps = steps if steps <= MOST_HORIZON else HORIZON
    return min(steps, max(1, rows // (4 * SHARE)))


def context_of(season: int | None, horizon: int, rows: int) -> int:
    """Three or two whole seasons, or one and some steps beside it, as long contexts may be."""
    if season is None:
        steps = PLAIN
    else:
        steps = next((k * season for k in (3, 2) if k * season <= LONGEST), season + BESIDE)
        steps = PLAIN if steps > LONGEST else max(SHORTEST, steps)
    return max(1, min(steps, rows // SHARE - horizon))


def led_in(cutter: Cutter, segments: Segments) -> Segments:
    """Segments that begin a context earlier, so that a horizon begins at their first row, where rows lie before it."""
    longer = []
    for series, first, end in segments:
        begin = max(int(cutter.store.offsets[series]), first - cutter.context)
        at = cutter.positions(series, begin, first + 1)
        longer.append((series, begin + int(np.argmax(at >= at[-1] - cutter.context)), end))
    return longer


def said_of_times(name: str | None) -> str:
    """The sentence about a column of times that was looked for."""
    return f"time_column {quoted(name)}, the first column of dates" if name else "no column of dates: rows are counted"
