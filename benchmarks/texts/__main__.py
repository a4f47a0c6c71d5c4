"""What texts are worth where the answer is known: the gain in CRPS beside the possible one.

    python -m benchmarks.texts                      # three runs on tables, one on sines
    python -m benchmarks.texts --seed 1 --options=--trainer.max_steps=600

A table of days has a price and news. Three days in ten have news, which announce that the price jumps two days later,
up or down; nothing else tells of jumps. The best forecasts with and without the news are drawn from its own process.
Another table has the same prices and news that say nothing of them. Each is trained by the recipe of any table, once
with its news and once without. `datamodules.Sines` has a known answer, too; there the same network reads no texts.
A run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import yaml
from torch import Tensor

from benchmarks.quality.cells import Cells
from benchmarks.quality.training import NUMBERS_OPTIONS, load, train
from datamodules import Sines, TableSequences
from datamodules.sines import DRIFT, LEVEL, TEXTS
from gssr.evaluation.baselines import horizon_truth
from gssr.evaluation.imagining import imagine, seed_of
from gssr.files import atomic_write
from gssr.metrics import fair_crps
from gssr.network import GoalNetwork
from gssr.runs.folders import CONFIG
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record

ROWS, CONTEXT, HORIZON = 1500, 8, 4
JUMP, OFTEN, LATER, NOISE = 3.0, 0.3, 2, 0.3  # size, share of days with news, days from news to jump, of each day
SAMPLES, BAR = 200, 0.8
NEWS = {
    1: ("the price will rise in two days", "an increase is coming the day after tomorrow", "they will raise the price"),
    -1: ("the price will fall in two days", "a cut is coming the day after tomorrow", "they will lower the price"),
    0: ("the board has met", "the weather was mild", "a new office was opened"),
}


class Table(NamedTuple):
    """Prices (N), jumps (N) that they hold, and news (N)."""

    price: np.ndarray
    jump: np.ndarray
    news: list[str | None]


def made(seed: int, tells: bool) -> Table:
    """A table; its news say nothing of jumps unless it `tells`. The prices are the same either way."""
    generator = np.random.default_rng(seed)
    sign = np.where(generator.random(ROWS) < OFTEN, generator.choice([-1, 1], ROWS), 0)
    jump = JUMP * np.concatenate([np.zeros(LATER), sign[:-LATER]])
    price = 100 + np.cumsum(jump + NOISE * generator.standard_normal(ROWS))
    said = [None if not way else str(generator.choice(NEWS[int(way) if tells else 0])) for way in sign]
    return Table(price, jump, said)


def best(table: Table, origins: Sequence[int], knows: bool, generator: np.random.Generator) -> Tensor:
    """Draws (S, B, H) of the best forecasts from origins, the last rows that are known, with the news or without."""
    shape = (SAMPLES, len(origins), HORIZON)
    jump = JUMP * np.where(generator.random(shape) < OFTEN, generator.choice([-1, 1], shape), 0)
    if knows:
        for h in range(min(LATER, HORIZON)):
            jump[..., h] = table.jump[np.asarray(origins) + h + 1]
    path = np.cumsum(jump + NOISE * generator.standard_normal(shape), -1)
    return torch.from_numpy(table.price[list(origins)][:, None] + path).float()


def of_table(folder: Path, table: Table, with_news: bool, args: argparse.Namespace) -> tuple[float, float]:
    """The CRPS of a network on the test part, and of the best forecast that knows as much as it reads."""
    folder.mkdir(parents=True, exist_ok=True)
    days = pd.date_range("2020-01-01", periods=ROWS).strftime("%Y-%m-%d")
    with atomic_write(folder / "table.csv") as stream:
        pd.DataFrame({"day": days, "price": table.price.round(3), "news": table.news}).to_csv(stream, index=False)
    options = {"path": str((folder / "table.csv").resolve()), "context": CONTEXT, "horizon": HORIZON}
    options |= {"value_columns": "[price]"} | ({"text_column": "news"} if with_news else {})
    run = fitted(folder, "datamodules.TableSequences", options, args)
    data = TableSequences(**yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))["data"]["init_args"])
    windows = list(data.windows("test"))
    first = float(np.datetime64("2020-01-01", "h").astype(float))
    origins = [round((float(w.time[w.goal_start]) - first) / 24) for w in windows]
    ours, truth = forecasts(load(run), windows, args.seed)
    known = best(table, origins, with_news, np.random.default_rng(args.seed))
    return float(fair_crps(ours, truth).mean()), float(fair_crps(known, truth).mean())


def of_sines(folder: Path, args: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """The CRPS of a network with its texts and without, each beside the best; it was not taught to write any."""
    run = fitted(folder, "datamodules.Sines", {}, args, NUMBERS_OPTIONS)
    data = Sines(**yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))["data"]["init_args"])
    data.setup("test")
    windows, generator, network = list(data.windows("test")), np.random.default_rng(args.seed), load(run)
    found = {}
    for name, knows in (("with texts", True), ("without", False)):
        read = windows if knows else [replace(w, text=[None] * len(w)) for w in windows]
        ours, truth = forecasts(network, read, args.seed)
        known = sine_draws(data, windows, knows, generator)
        found[name] = float(fair_crps(ours, truth).mean()), float(fair_crps(known, truth).mean())
    return found


def sine_draws(data: Sines, windows: Sequence[Record], knows: bool, generator: np.random.Generator) -> Tensor:
    """Draws (S, B, H) of the best forecasts of sines: phase known, drift unknown, the swing known or one of two."""
    path = np.stack([data.expected(window) for window in windows])
    swings = np.array(list(TEXTS))
    own = swings[[next(i for i, s in enumerate(swings) if announces(w, s)) for w in windows]]
    size, horizon = path.shape
    swing = own if knows else generator.choice(swings, (SAMPLES, size))
    clean = LEVEL + (path - LEVEL) * (swing / own)[..., None]
    drift = generator.uniform(-DRIFT, DRIFT, (SAMPLES, size, 1)) * np.arange(1, horizon + 1) / horizon
    return torch.from_numpy(clean + drift + data.noise * generator.standard_normal((SAMPLES, size, horizon))).float()


def announces(window: Record, swing: float) -> bool:
    """Whether a text of a window announces this swing."""
    return any(text in TEXTS[swing] for text in window.text)


def forecasts(network: GoalNetwork, windows: Sequence[Record], seed: int) -> tuple[Tensor, Tensor]:
    """Rollouts (S, B, H) of windows, and what came."""
    batch: Batch = collate(windows)
    rollouts = imagine(network, batch, None, SAMPLES, seed_of(seed, "no goal"))
    return rollouts.sample[..., 0], horizon_truth(batch)[..., 0]


def fitted(
    folder: Path, data: str, options: dict[str, object], args: argparse.Namespace, more: Sequence[str] = ()
) -> Path:
    """The run in a folder by the default config of a data module."""
    seeds = [f"--{key}={args.seed}" for key in ("seed_everything", "model.seed", "data.seed")]
    given = [f"--data.{key}={value}" for key, value in options.items()]
    settings = {"options": args.options, "seed": args.seed}
    return train(
        folder / f"run-seed{args.seed}", ["--data", data, *given, *seeds, *more, *args.options], settings, args.threads
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/texts"), help="folder of tables, runs and scores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of training")
    parser.add_argument("--options", action="append", default=[], help="a further option of train.py fit")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cells, settings = Cells(args.out), {"options": args.options}

    def cell(name: str, work: Callable[[], dict]) -> dict:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cells.make(f"{name}-seed{args.seed}", settings, work)

    tables = {tells: made(args.seed, tells) for tells in (True, False)}
    scores = {}
    for name, tells, reads in (("news", True, True), ("no news", True, False), ("idle news", False, True)):
        folder = args.out / name.replace(" ", "-")
        scores[name] = cell(name, lambda f=folder, t=tables[tells], r=reads: {"crps": of_table(f, t, r, args)})["crps"]
    scores |= cell("sines", lambda: of_sines(args.out / "sines", args) | {})
    print(report(scores))


def report(scores: dict[str, tuple[float, float]]) -> str:
    """The table of gains, from (CRPS of the network, CRPS of the best) by name."""
    lines = [
        "| | CRPS with texts | without | best with texts | best without | share of the possible gain |",
        "|---" * 6 + "|",
    ]
    for name, told, plain in (("a table whose news announce", "news", "no news"), ("sines", "with texts", "without")):
        (ours, known), (other, blind) = scores[told], scores[plain]
        share = (other - ours) / (blind - known)
        lines.append(f"| {name} | {ours:.3f} | {other:.3f} | {known:.3f} | {blind:.3f} | {100 * share:.0f} % |")
    idle, plain = scores["idle news"][0], scores["no news"][0]
    lines += [
        "",
        f"The bar is {100 * BAR:.0f} %. News that say nothing: CRPS {idle:.3f}, without them {plain:.3f} "
        f"({100 * (idle / plain - 1):+.1f} %).",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
