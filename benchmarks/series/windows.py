"""With and without the pretrained forecaster, where few windows train: 100, 300 and 1,000 of each series.

    python -m benchmarks.series.windows
    python -m benchmarks.series.windows --draw docs/images/prior.png

The network is scored before its first step, so that nothing depends on a seed but the draws of its fans. Each series is
cut to the rows of so many training windows, validation rows in the proportion of the default split, and up to 100 of
the first test rows behind, which are the same for all sizes. A run goes on where it stopped. The table is printed, and
written to FOLDER/windows.md.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks.quality.cells import Cells, numbers
from benchmarks.quality.origins import Origins, find_origins
from benchmarks.quality.scores import Forecast, score
from benchmarks.quality.simple import simple
from benchmarks.series.__main__ import ORIGINS, SAMPLES, UNTRAINED, linear
from benchmarks.series.report import UNIT, interval
from benchmarks.series.sets import SERIES, Series
from datamodules import TableSequences
from gssr.evaluation.fan_chart import GRID, WITH, WITHOUT
from gssr.evaluation.imagining import imagine, recent_spread, seed_of
from gssr.files import atomic_write
from gssr.network import GoalNetwork

SIZES = (100, 300, 1000)
SHARES = (0.7, 0.15, 0.15)  # of the default split
PRIOR = {"without": False, "with": True}
Scores = Mapping[str, Mapping[int, Mapping[str, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/series-windows"), help="folder of tables and scores")
    parser.add_argument("--names", nargs="+", choices=list(SERIES), metavar="NAME", help="only these series")
    parser.add_argument("--draw", type=Path, help="file of the picture")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cells = Cells(args.out)
    for name in tqdm(args.names or list(SERIES), unit="series"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measure(name, SERIES[name], cells)
    scores = collect(cells)
    with atomic_write(args.out / "windows.md") as stream:
        stream.write(text := report(scores))
    if args.draw is not None:
        picture(scores).savefig(args.draw, dpi=100)
    print(text)


def measure(name: str, series: Series, cells: Cells) -> None:
    """The cells of one series, one for each size that it is long enough for."""
    plain = name.replace(", ", "-").replace(" ", "-")
    if cells.get(f"{plain}-{SIZES[0]}") is not None and cells.get(f"{plain}-done") is not None:
        return
    table = series.read()
    whole = cells.folder / f"{plain}.csv"
    write(table, whole)
    full = find_origins(TableSequences(path=str(whole), horizon=series.horizon, **UNTRAINED), "test", 1)
    context, length = full.context, full.context + series.horizon
    tested = int(SHARES[2] * len(table))
    for size in SIZES:
        train = size + length - 1
        val = max(int(train * SHARES[1] / SHARES[0]), 2 * series.horizon)
        if train + val + tested > len(table):
            break
        begin = len(table) - tested - val - train
        rows = table.iloc[begin : begin + train + val + min(tested, ORIGINS + series.horizon)]
        file = cells.folder / f"{plain}-{size}.csv"
        made = partial(scored, rows, train, val, context, series.horizon, file)
        cells.make(f"{plain}-{size}", {}, lambda made=made, size=size: {"series": name, "size": size} | made())
    cells.make(f"{plain}-done", {}, dict)


def scored(table: pd.DataFrame, train: int, val: int, context: int, horizon: int, file: Path) -> dict[str, float]:
    """Mean CRPS of the network with and without the pretrained forecaster, and of persistence."""
    write(table, file)
    # Half a row more, so that rounding leaves each part its rows.
    shares = (train + 0.5) / len(table), val / len(table)
    split = (*shares, 1 - sum(shares))
    found, chosen = {}, {}  # units and calendar, which do not depend on the pretrained forecaster
    for kind, prior in PRIOR.items():
        options = UNTRAINED | {"context": context, "split_shares": split}
        data = TableSequences(path=str(file), horizon=horizon, **options)
        origins = find_origins(data, "test", ORIGINS)
        model = linear(data, 0, series_prior=prior, **chosen)
        chosen = {key: getattr(model.options.world, key) for key in ("normalisation", "calendar")}
        found[kind] = crps(forecast(model, data, origins), origins)
        found["windows"] = len(origins.training)
        found[UNIT] = crps(simple(origins, SAMPLES)[UNIT](), origins)
    return found


def forecast(model: GoalNetwork, data: TableSequences, origins: Origins) -> Forecast:
    recent = recent_spread(model, origins.batch, data)
    return Forecast(imagine(model, origins.batch, None, SAMPLES, seed_of(0, "no goal"), recent=recent).sample[..., 0])


def crps(forecast: Forecast, origins: Origins) -> float:
    return float(np.nanmean(numbers(score(forecast, origins.truth)["windows"]["crps"])))


def write(table: pd.DataFrame, file: Path) -> None:
    with atomic_write(file) as stream:
        table.to_csv(stream, index=False)


def collect(cells: Cells) -> Scores:
    """CRPS relative to persistence, by series, size, and with or without."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for cell in cells.named("").values():
        if "size" in cell:
            each = {kind: cell[kind] / cell[UNIT] for kind in PRIOR}
            found.setdefault(cell["series"], {})[cell["size"]] = each
    return found


def ratios(scores: Scores, size: int) -> np.ndarray:
    """Logarithms of the CRPS with over that without (N), of the series that have so many windows."""
    return np.log([of[size]["with"] / of[size]["without"] for of in scores.values() if size in of])


def sizes_of(scores: Scores) -> list[int]:
    """The sizes that any series is long enough for."""
    return [size for size in SIZES if any(size in of for of in scores.values())]


def report(scores: Scores) -> str:
    """The table of all series, and means over those with as many windows."""
    shown = sizes_of(scores)
    lines = ["CRPS relative to persistence, without → with the pretrained forecaster, by windows that train:\n"]
    lines += [f"| series | {' | '.join(f'{size:,}' for size in shown)} |", "|---" * (len(shown) + 1) + "|"]
    for name in SERIES:
        if name in scores:
            of = scores[name]
            each = [f"{of[s]['without']:.2f} → {of[s]['with']:.2f}" if s in of else "–" for s in shown]
            lines.append(f"| {name} | {' | '.join(each)} |")
    lines += [
        "",
        "| windows | series | geometric mean of CRPS with / without | 95 % interval over series | better on |",
    ]
    lines += ["|---" * 5 + "|"]
    for size in shown:
        logs = ratios(scores, size)
        low, high = interval(logs)
        better = f"{(logs < 0).sum()} of {len(logs)}"
        mean = f"{np.exp(logs.mean()):.3f} | {low:.3f} to {high:.3f}"
        lines.append(f"| {size:,} | {len(logs)} | {mean} | {better} |")
    return "\n".join(lines) + "\n"


def picture(scores: Scores) -> Figure:
    """Geometric means of the CRPS relative to persistence by size, of the series that are long enough for all sizes up
    to the last one of a panel, and how each series changes."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    shown = sizes_of(scores)
    for last in shown:
        of = [each for each in scores.values() if last in each]
        sizes = [size for size in shown if size <= last]
        for kind, colour in (("without", WITHOUT), ("with", WITH)):
            means = [np.exp(np.mean([np.log(each[size][kind]) for each in of])) for size in sizes]
            label = f"{kind} the pretrained forecaster" if last == shown[-1] else None
            left.plot(sizes, means, "o-", color=colour, label=label)
        left.annotate(f"{len(of)} series", (sizes[-1], means[-1]), textcoords="offset points", xytext=(6, -10))
    for size in shown:
        logs = ratios(scores, size)
        right.plot(size * np.linspace(0.9, 1.1, len(logs)), np.exp(np.sort(logs)), ".", color=WITH)
        right.plot([0.85 * size, 1.15 * size], [np.exp(logs.mean())] * 2, color=WITHOUT, lw=2)
    right.axhline(1, color=GRID, zorder=0)
    for axes, title in ((left, "CRPS relative to persistence"), (right, "CRPS with / without; line: geometric mean")):
        axes.set_xscale("log")
        axes.set_xticks(shown, [f"{size:,}" for size in shown])
        axes.minorticks_off()
        axes.set_xlabel("windows that train")
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_xlim(80, 1700)
    left.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
