"""Markdown from cells: scores of every forecast, of goals, of texts and of plans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.cells import Cells, numbers
from benchmarks.quality.scores import estimate, of_window, relative
from benchmarks.quality.steered import BORROWED, CAME_TRUE
from gssr.evaluation.intervals import TOO_FEW, Estimate

SIMPLE = ("persistence", "climatology", "seasonal naive", "linear autoregression", "AutoETS", "AutoARIMA")
SEEDED = ("GRU", "GRU of changes", "network")
NETWORK = "network"
HOURS = (6, 24, 48)
POINT_NOTE = "Of the median forecast; a method that forecasts one path is scored by it."
PAIRED_NOTE = "In percent of the other method's CRPS, with a 95 % interval. Negative: the network is better."
TEXT_NOTE = (
    "Nats per token of a step's text behind the prefix of its own belief, behind that of another series, and without a "
    "prefix."
)
PLAN_NOTE = "Status in a plan's texts beside the wind of its steps; then the same texts, shuffled between plans."
Rows = list[dict[str, str]]


class Part:
    """The finished cells of one data set and part, seeds of one method together."""

    def __init__(self, folder: Path) -> None:
        self.cells, self.folder = Cells(folder), folder
        self.about = self.cells.get("origins")
        if self.about is None:
            raise ValueError(f"{folder} has no finished cell; run python -m benchmarks.quality first")
        self.clusters: list[str] = self.about["clusters"]
        found = {name: [cell] for name in SIMPLE if (cell := self.cells.get(name)) is not None}
        found |= {name: cells for name in SEEDED if (cells := self.seeds(name))}
        # Cells of other windows or samples are of an older run.
        now = self.about["settings"]
        self.forecasts = {
            name: kept
            for name, cells in found.items()
            if (kept := [c for c in cells if all(c["settings"].get(key) == now[key] for key in now)])
        }

    def seeds(self, stem: str) -> list[dict[str, Any]]:
        return list(self.cells.named(f"{stem}-seed").values())

    @property
    def columns(self) -> dict[str, int | None]:
        """The steps that a table shows: 6, 24, 48 hours ahead where they exist, else first, middle, last; then all."""
        hours = [round(hour, 2) for hour in self.about["hours"]]
        shown = {f"{hour} h": hours.index(hour) for hour in HOURS if hour in hours}
        if len(shown) < 2:
            last = len(hours) - 1
            shown = {f"step {step + 1}": step for step in dict.fromkeys((0, last // 2, last))}
        return {**shown, "all": None}

    # ------------------------------------------------------------------ tables

    def errors(self, metric: str) -> Rows:
        """A score by method and step."""
        rows = []
        for name, cells in self.forecasts.items():
            row = {"": label(name, cells)}
            for column, step in self.columns.items():
                row[column] = written(estimate(cells, metric, step, self.clusters), 3)
            rows.append(row)
        return rows

    def rmse(self) -> Rows:
        """Root mean square error: the mean over seeds, by step."""
        steps = {column: step for column, step in self.columns.items() if step is not None}
        rows = []
        for name, cells in self.forecasts.items():
            of_steps = np.mean([numbers(cell["by_step"]["rmse"]) for cell in cells], axis=0)
            rows.append({"": label(name, cells)} | {column: figures(of_steps[step]) for column, step in steps.items()})
        return rows

    def coverage(self) -> Rows:
        """Share of the truth in the 50, 80 and 95 % intervals."""
        rows = []
        for name, cells in self.forecasts.items():
            row = {"": label(name, cells)}
            for level in (50, 80, 95):
                of_steps = np.mean([numbers(cell["by_step"][f"covered_{level}"]) for cell in cells], axis=0)
                for column, step in self.columns.items():
                    value = of_steps.mean() if step is None else of_steps[step]
                    row[f"{level} %, {column}"] = f"{100 * value:.0f} %"
            rows.append(row)
        return rows

    def against(self, ours: str = NETWORK, metric: str = "crps") -> Rows:
        """Our score relative to each other method's, in percent, with the paired interval; negative is better."""
        if ours not in self.forecasts:
            return []
        rows = []
        for name, cells in self.forecasts.items():
            if name == ours:
                continue
            row = {"": name}
            for column, step in self.columns.items():
                found = relative(self.forecasts[ours], cells, metric, step, self.clusters)
                row[column] = percent_interval(found)
            rows.append(row)
        return rows

    def seed_spread(self, metric: str = "crps") -> Rows:
        """Every seed of the methods that have some."""
        rows = []
        for name in SEEDED:
            for cell, number in zip(self.forecasts.get(name, ()), range(99), strict=False):
                row = {"": f"{name}, seed {number}"}
                for column, step in self.columns.items():
                    row[column] = figures(float(np.nanmean(of_window([cell], metric, step))))
                rows.append(row)
        return rows

    def goals(self) -> Rows:
        """Hits, distance and large changes by the strength of the goal, mean over seeds with their range."""
        cells = [cell for cell in self.seeds("goals of network") if CAME_TRUE in cell]
        rows = []
        for kind in (CAME_TRUE, BORROWED):
            of_kind = [cell for cell in cells if kind in cell]
            for i, gain in enumerate(of_kind[0]["gains"] if of_kind else ()):
                scores = [cell[kind][i] for cell in of_kind]
                rows.append(
                    {
                        "": f"{kind}, gain × {gain:g}" + (" (no goal)" if gain == 0 else ""),
                        "hits": seeds_of(scores, "hit", 100, " %"),
                        "distance": seeds_of(scores, "distance"),
                        "large changes, times the truth's": seeds_of(scores, "jumps"),
                    }
                )
        return rows

    def opposing(self) -> str:
        found = [cell["opposing"] for cell in self.seeds("goals of network") if "opposing" in cell]
        if not found:
            return ""
        return (
            "From one context, two goals: the values that the lowest and the highest tenth of windows with a similar "
            "start reached. "
            f"The two 80 % intervals do not overlap at the goal's step in {seeds_of(found, 'disjoint', 100, ' %')} of "
            f"{found[0]['contexts']} contexts."
        )

    def texts(self) -> Rows:
        """Nats per token of every seed."""
        rows = []
        for number, cell in enumerate(self.seeds("text")):
            if "own" not in cell:
                continue
            row = {"": f"seed {number}"}
            for key, words in (("own", "own belief"), ("other", "another belief"), ("none", "no prefix")):
                row[words] = written(cell.get(key), 3)
            row["another − own"] = written(cell["other_minus_own"], 3)
            rows.append(row)
        return rows

    def plans(self) -> Rows:
        rows = []
        for number, cell in enumerate(self.seeds("plans")):
            for name in ("own", "shuffled"):
                if name in cell:
                    shares = {key: written(cell[name][key], 1, 100, " %") for key in ("same", "near", "direction")}
                    words = ("status fits the wind", "or a neighbouring class does", "same direction as the wind")
                    rows.append(
                        {"": f"seed {number}, {name} values"} | dict(zip(words, shares.values(), strict=True))
                        | {"texts with a status": f"{100 * cell[name]['judged']:.0f} %"}
                    )  # fmt: skip
        return rows

    def latent(self) -> Rows:
        return [
            {
                "": f"seed {number}",
                "dimensions in use": f"{100 * cell['used']:.0f} %",
                "raw KL, nats": figures(cell["raw_kl"]),
                "value error with x permuted, ratio": figures(cell["permuted"]),
            }
            for number, cell in enumerate(self.seeds("latent"))
            if "used" in cell
        ]

    def runs(self) -> str:
        """The checkpoints behind the network's rows."""
        found = [cell["settings"] for cell in self.forecasts.get(NETWORK, ())]
        if not found:
            return "The network was not run here."
        return "Runs of the network: " + ", ".join(f"{run['run']} (step {run['step']})" for run in found) + "."

    def markdown(self, charts: Sequence[str] = ()) -> str:
        """The report of the part, without a heading. `charts`: lines of Markdown at its end."""
        s, a = self.about["settings"], self.about
        of = f"{a['name']}{' in ' + a['unit'] if a['unit'] else ''}"
        drawn = "series" if a["series"] > 9 else "stretches of time, each as long as the horizon"
        lines = [
            f"{s['origins']} origins of {a['series']} series, {s['context']} steps of context, "
            f"{s['horizon']} steps of horizon, {s['samples']} samples per forecast. "
            f"Scores are of {of}. ± is one standard error over {len(set(self.clusters))} {drawn}; "
            f"{TOO_FEW}. "
            "Rows of several seeds are means. "
            f"{'**Shrunk for a quick look, not a result.**' if s['quick'] else ''}".rstrip(),
            "",
            self.runs(),
            "",
        ]
        tables = [
            (f"Mean absolute error of {of}", POINT_NOTE, self.errors("absolute")),
            ("CRPS", "", self.errors("crps")),
            ("Root mean square error", "", self.rmse()),
            ("Coverage of intervals", "", self.coverage()),
            ("CRPS of the network relative to each method, paired", PAIRED_NOTE, self.against()),
            ("CRPS by seed", "", self.seed_spread()),
            ("Goals by gain", f"Means over seeds, with their range. {self.opposing()}", self.goals()),
            ("Text likelihood", TEXT_NOTE, self.texts()),
            ("Plans in words", PLAN_NOTE, self.plans()),
            ("Latent", "On validation windows.", self.latent()),
        ]
        for title, note, rows in tables:
            if rows:
                lines += [f"**{title}.** {note}".rstrip(), "", *table(rows), ""]
        return "\n".join([*lines, *charts])


def label(name: str, cells: Sequence[dict[str, Any]]) -> str:
    return f"{name}, {len(cells)} seeds" if len(cells) > 1 else name


def table(rows: Rows) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    return lines + ["| " + " | ".join(row.get(name, "") for name in names) + " |" for row in rows]


def figures(value: float | None, digits: int = 3) -> str:
    """A number with three significant figures; a dash where it is missing."""
    if value is None or not np.isfinite(value):
        return "–"
    places = int(np.clip(digits - 1 - np.floor(np.log10(abs(value))), 0, 6)) if value else 0
    return f"{value:.{places}f}"


def written(found: Estimate | dict[str, Any] | None, digits: int = 3, scale: float = 1, unit: str = "") -> str:
    """A score with its error: `digits` significant figures, or decimal places where there is a scale."""
    if found is None:
        return "–"
    score = found.to_dict() if isinstance(found, Estimate) else found
    if score["value"] is None:
        return "–"
    value = score["value"] * scale
    size = max(abs(value), 1e-9)
    places = digits if scale != 1 else int(np.clip(digits - 1 - np.floor(np.log10(size)), 0, 6))
    error = "" if score["error"] is None else f" ± {score['error'] * scale:.{places}f}"
    return f"{value:.{places}f}{error}{unit}"


def percent_interval(found: Estimate) -> str:
    if not np.isfinite(found.value):
        return "–"
    span = f" ({100 * found.low:+.1f} to {100 * found.high:+.1f})" if np.isfinite(found.low) else " (too few to tell)"
    return f"{100 * found.value:+.1f} %{span}"


def seeds_of(scores: Sequence[dict[str, Any]], key: str, scale: float = 1, unit: str = "") -> str:
    """Mean over seeds, with the smallest and the largest."""
    values = [score[key]["value"] for score in scores if score[key]["value"] is not None]
    if not values:
        return "–"
    places = 1 if scale != 1 else 2
    low, high = (f"{edge * scale:.{places}f}" for edge in (min(values), max(values)))
    return f"{np.mean(values) * scale:.{places}f}{unit}" + (f" ({low} to {high})" if len(values) > 1 else "")
