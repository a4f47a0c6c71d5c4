"""A plan as a table on the terminal, and in words."""

import math
import sys
from typing import TYPE_CHECKING

from gssr import shown

if TYPE_CHECKING:
    from rich.table import Table

    from gssr.evaluation.forecasting import Forecast
    from gssr.network import GoalNetwork


def print_plan(found: "Forecast", network: "GoalNetwork", dimension: int = 0) -> None:
    """A line for each step, the values first and then the words."""
    from rich.console import Console
    from rich.text import Text

    from gssr.evaluation.told import told
    from gssr.sequences.clock import iso_time

    batch, plan = found.batch, found.with_goal or found.without_goal
    times = [iso_time(hours) for hours in batch.time[0, int(batch.context[0]) :].tolist()]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    for y in (None, dimension):
        table = _table(found, network, times, dimension, y)
        if console.measure(table).maximum <= console.width:
            break
    console.print(table)
    for what, texts in told(plan, 0):
        console.print(f"in words, {what}:")
        for moment, text in zip(times, texts, strict=False):
            console.print(Text.assemble((moment, "bold"), " ", shown.line(text)), soft_wrap=True)


def _table(found: "Forecast", network: "GoalNetwork", times: list[str], dimension: int, ranges: int | None) -> "Table":
    """Means with the central 80 % of the value ``ranges`` (None: of all), and the ``dimension`` without the goal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    plan = found.with_goal or found.without_goal
    title = shown.line(f"{found.batch.series[0]}: {found.batch.goal[0] or 'no goal'}")
    caption = Text("mean [central 80 %] of rollouts")
    table = Table(title=Text(title), caption=caption, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("time", no_wrap=True)
    # A tenth of a standard deviation is shown.
    digits = [min(6, max(0, 1 - math.floor(math.log10(max(std, 1e-9))))) for std in network.world.scaler.std.tolist()]
    columns = []
    for y, (name, unit) in enumerate(zip(network.value_names, network.value_units, strict=True)):
        head = Text(shown.line(f"{name} ({unit})" if unit else name), no_wrap=False)
        table.add_column(head, justify="right", no_wrap=True)
        columns.append((plan, y))
        if found.with_goal is not None and y == dimension:
            table.add_column("without goal", justify="right", style="dim", no_wrap=True)
            columns.append((found.without_goal, y))
    beside = None if found.likeliest is None else found.likeliest[0]
    if beside is not None:
        table.add_column("likeliest", justify="right", style="dim", no_wrap=True)
    for step, moment in enumerate(times):
        cells = []
        for made, y in columns:
            low, high = made.quantiles[0, step, y, 0], made.quantiles[0, step, y, -1]
            spread = f" \\[{low:.{digits[y]}f}, {high:.{digits[y]}f}]" if ranges in (None, y) else ""
            cells.append(f"{made.mean[0, step, y]:.{digits[y]}f}{spread}")
        if beside is not None:
            cells.append(f"{beside['values'][step][dimension]:.{digits[dimension]}f}")
        table.add_row(moment, *cells)
    return table
