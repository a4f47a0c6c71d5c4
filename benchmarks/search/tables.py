"""The tables of what `python -m benchmarks.search` measured, each of the pieces that are there."""

from typing import Any

import numpy as np
import torch
from rich.table import Table

from benchmarks.search import aggregation, critics, injections, planner_cost, planning, pulling, refining, selecting


def tables(pieces: dict[str, Any]) -> list[Table]:
    made = []
    cells: dict[tuple[str, str], list[Any]] = {}
    for key, result in pieces.items():
        if key.startswith("selection|"):
            _, steered, way, _ = key.split("|")
            cells.setdefault((steered, way), []).append(result)
    if cells:
        table = Table("steering", "selection", "target domain", "perplexity / real", "repetition", "distinct-2",
            "tokens read a text", "seconds a text", "texts", title="towards another domain, all 20 ordered pairs",
        )  # fmt: skip
        for (steered, way), results in cells.items():
            row = selecting.summary(results, pieces["real"])
            table.add_row(
                steered, way, f"{row['target']:.1%} ± {row['error']:.1%}", f"{row['ratio']:.2f}",
                f"{row['repetition']:.3f}", f"{row['distinct']:.3f}", f"{row['read']:.0f}", f"{row['seconds']:.2f}",
                str(row["texts"]),
            )  # fmt: skip
        made.append(table)
    speeds: dict[str, list[Any]] = {}
    for key, result in pieces.items():
        if key.startswith("speed|"):
            for name, cell in result.items():
                speeds.setdefault(name, []).append(cell)
    if speeds:
        table = Table(
            "draft",
            "width",
            "temperature",
            "kept by place",
            "kept",
            "tokens a call",
            "drafting",
            "speed",
            title="drafts",
        )
        for name, found in speeds.items():
            kept = torch.tensor([cell["kept"] for cell in found]).mean(0)
            means = [
                sum(cell[key] for cell in found) / len(found) for key in ("acceptance", "tokens_a_call", "drafting")
            ]
            speed = sorted(cell["speed"] for cell in found)
            table.add_row(
                *name.split("|"), " ".join(f"{share:.2f}" for share in kept), f"{means[0]:.2f}", f"{means[1]:.2f}",
                f"{means[2]:.0%}", f"{speed[0]:.2f}" if len(speed) == 1 else f"{speed[0]:.2f} to {speed[-1]:.2f}",
            )  # fmt: skip
        made.append(table)
    for key, found in pieces.items():
        if key.startswith("calls|"):
            table = Table("tokens", *(n for n in found if n != "seconds"), title=f"time of a call, {key[6:]}")
            table.add_row("over one token", *(f"{x:.2f}" for n, x in found.items() if n != "seconds"))
            made.append(table)
    if found := [result for key, result in pieces.items() if key.startswith("critic|")]:
        table = Table("critic", *map(str, critics.PLACES), title="pairs in the right order, by tokens written of 48")
        for way in critics.WAYS:
            cells = [critics.summary(found, way, place) for place in critics.PLACES]
            table.add_row(f"{way}, within a kind", *(f"{x:.2f} ± {error:.2f}" for x, error, _ in cells))
            table.add_row("all kinds together", *(f"{x:.2f}" for *_, x in cells))
        made.append(table)
    plans: dict[tuple[str, str], list[Any]] = {}
    for key, result in pieces.items():
        if key.startswith("planner|"):
            plans.setdefault(tuple(key.split("|")[1:3]), []).append(result)
    if plans:
        table = Table("steering", "planner", "target domain", "nats a token", "distinct-2", "plans a text",
            "seconds a text", "texts", title="a planner beside one row",
        )  # fmt: skip
        for names, results in plans.items():
            row = planning.summary(results)
            table.add_row(
                *names, f"{row['target']:.1%} ± {row['error']:.1%}", f"{row['nats']:.2f}", f"{row['distinct']:.3f}",
                f"{row['applied']:.1f}", f"{row['seconds']:.2f}", str(row["texts"]),
            )  # fmt: skip
        made.append(table)
    if {"planner snapshot", "beside a planner"} <= set(pieces):
        heads = ("worker", "CPU time / plain", "time / plain", "the same text", "snapshots", "plans", "applied")
        snapshot = pieces["planner snapshot"]
        share, found = snapshot["snapshot"] / snapshot["token"], pieces["beside a planner"]
        title = f"what a planner without a plan in time costs; a snapshot: {share:.2f} tokens"
        table = Table(*heads, title=f"{title}; a search: {found['search']:.2f} s")
        for name, row in found["beside"].items():
            ratios = [planner_cost.summary(row, key) for key in ("cpu", "wall")]
            table.add_row(
                name, *(f"{ratio:.3f} ({low:.3f} to {high:.3f})" for ratio, low, high in ratios),
                f"{row['same']} of {row['texts']}", *(str(row[key]) for key in ("asked", "received", "applied")),
            )  # fmt: skip
        made.append(table)
    pulls: dict[str, list[Any]] = {}
    for key, result in pieces.items():
        if key.startswith("injections|"):
            pulls.setdefault(key.split("|")[1], []).append(result)
    if len({len(results) for results in pulls.values()}) == 1:
        heads = ("states", "windows on target", "nats a token", "distinct-2 / off", "largest norm / off")
        table = Table(*heads, "injections", "texts", title="an injection before every token of one text")
        for name, results in pulls.items():
            row = injections.summary(results, pulls["off"])
            table.add_row(
                name, f"{row['target']:.1%} ± {row['error']:.1%}", f"{row['nats']:.2f}", f"{row['distinct']:.2f}",
                f"{row['norm']:.2f}", str(row["injections"]), str(row["texts"]),
            )  # fmt: skip
        made.append(table)
    made += _of_pulls(pieces)
    facts = [key.split("|")[1] for key in pieces if key.startswith("aggregation|")]
    if facts:  # of the model that was measured last
        together = [found for key, found in pieces.items() if key.startswith(f"aggregation|{facts[-1]}|")]
        title = f"{aggregation.DOCUMENTS} documents, {sum(len(found['read in order']) for found in together)} states"
        table = Table("documents", "right answers", "minus reading in order", title=title)
        for name in together[0]:
            share, difference, error = aggregation.summary(together, name)
            table.add_row(name, f"{share:.1%}", f"{difference:+.1%} ± {error:.1%}")
        made.append(table)
    if "chi-square" in pieces:
        found = pieces["chi-square"]
        table = Table("texts", "chi-square", "degrees of freedom", "p", title="texts with a draft against enumeration")
        table.add_row(str(found["texts"]), f"{found['statistic']:.1f}", str(found["freedom"]), f"{found['p']:.2f}")
        made.append(table)
    return made


def _of_pulls(pieces: dict[str, Any]) -> list[Table]:
    made, ways = [], {way: [x for key, x in pieces.items() if key.startswith(f"pulls|{way}|")] for way in pulling.WAYS}
    if counts := {len(found) for found in ways.values()} - {0}:
        heads = ("states", "digits", "minus off", "minus random targets", "nats a token", "distinct-2", "CPU s a text")
        right = np.mean([x for key, x in pieces.items() if key.startswith("order|")])
        table = Table(*heads, "texts", title=f"pulls of one row; the critic orders {right:.2f} of pairs of a kind")
        for way, found in ways.items() if len(counts) == 1 else ():
            row, random = pulling.summary(found, ways[pulling.OFF]), ways.get(f"{way}{pulling.RANDOM}")
            beside = None if random is None else pulling.summary(found, random)
            table.add_row(
                way, f"{row['digits']:.2%}", f"{row['minus']:+.2%} ± {row['half']:.2%}",
                "" if beside is None else f"{beside['minus']:+.2%} ± {beside['half']:.2%}",
                f"{row['nats']:.2f}", f"{row['distinct']:.3f}", f"{row['seconds']:.2f}", str(row["texts"]),
            )  # fmt: skip
        made.append(table)
    if found := [x for key, x in pieces.items() if key.startswith("refinement|")]:
        table = Table("rows and passes", "digits", "minus the first pass", "nats a token", "distinct-2", "texts")
        for name in found[0]:
            row = pulling.summary([x[name] for x in found], [x[refining.FIRST] for x in found])
            table.add_row(
                name, f"{row['digits']:.2%}", f"{row['minus']:+.2%} ± {row['half']:.2%}", f"{row['nats']:.2f}",
                f"{row['distinct']:.3f}", str(row["texts"]),
            )  # fmt: skip
        made.append(table)
    for key, found in pieces.items():
        if key.startswith("forced|"):
            table = Table("draft", "kept", "width", "tokens a call", "speed", title=f"forced drafts, {key[7:]}")
            for name, row in found.items():
                table.add_row(*name.split("|"), f"{row['tokens_a_call']:.2f}", f"{row['speed']:.2f}")
            made.append(table)
    return made
