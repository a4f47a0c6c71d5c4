"""The tables of a report."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from benchmarks.recall.measures import BETWEEN
from benchmarks.recall.questions import CHOICES


def tables(report: dict[str, Any]) -> Iterator[Table]:
    """A table for each part that was measured."""
    for part, make in (
        ("half-lives", _half_lives),
        ("facts", _facts),
        ("repeats", _repeats),
        ("transplants", _transplants),
        ("bytes", _bytes),
    ):
        if part in report:
            yield make(report[part])


def _half_lives(found: dict[str, Any]) -> Table:
    table = _table("half-lives of heads, tokens", "layer", "at the bias: lowest, median, highest", "on held-out text")
    ways = "at the bias", "on text"
    for layer in found[ways[0]]["layers"]:
        lives = [found[way]["layers"][layer] for way in ways]
        table.add_row(layer, *(f"{x[0]:.1f}  {x[len(x) // 2]:.1f}  {x[-1]:.1f}" for x in lives))
    table.add_row("share above 100", *(f"{found[way]['share above 100 tokens']:.1%}" for way in ways))
    return table


def _facts(found: dict[str, Any]) -> Table:
    table = _table(
        f"facts with held-out names: likeliest of {CHOICES} (chance {1 / CHOICES:.0%}) / written exactly",
        "tokens between",
        *next(iter(found.values())),
    )
    for name, by_distance in found.items():
        table.add_row(name, *(f"{x['choice']:.0%} / {x['written']:.0%}" for x in by_distance.values()))
    return table


def _repeats(found: dict[str, Any]) -> Table:
    table = _table("random tokens said again, share predicted", "distance", *found)
    for name in next(iter(found.values())):
        table.add_row(name, *(f"{x[name]:.1%}" for x in found.values()))
    return table


def _transplants(found: dict[str, Any]) -> Table:
    heads = [f"{name}: {what}" for name in found for what in ("of 4 / written", "survives", "against another")]
    table = _table(f"states from the context of the fact, {BETWEEN} tokens back", "states", *heads)
    for way in next(iter(found.values())):
        cells = []
        for by_way in found.values():
            x = by_way[way]
            cells += [
                f"{x['choice']:.0%} / {x['written']:.0%}",
                " / ".join("–" if share is None else f"{share:.0%}" for share in x["survives"]),
            ]
            other = x["against another answer"]
            cells.append("" if other is None else f"{other:.0%}")
        table.add_row(way, *cells)
    return table


def _bytes(found: dict[str, Any]) -> Table:
    columns = [name for name in ("model", "xz -9") if name in found]
    table = _table("bits per byte of held-out text", "source", *columns)
    for source in found[columns[0]]:
        table.add_row(source, *(f"{found[column][source]:.3f}" for column in columns))
    return table


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left")
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left")
    return table
