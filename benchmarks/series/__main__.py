"""Train the default recipe on public series and compare it with simple methods from the same origins.

    python -m benchmarks.series --untrained                # the network before its first step: its linear part
    python -m benchmarks.series --quick                    # trained, the first ten series
    python -m benchmarks.series --out runs/other --options=--data.goals=null --options=--model.world.linear_lags=0

A run goes on where it stopped. Every series is trained by `python train.py fit --data datamodules.TableSequences
--data.path FILE --data.horizon H`, where H is a rule of the step between its rows, and nothing is chosen for a series.
Scores are of the test part. The tables are printed, and written to FOLDER/series.md: the fans of the network follow the
values that arrive, and are beside those that validation left.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from benchmarks.quality.cells import Cells
from benchmarks.quality.classical import classical
from benchmarks.quality.origins import Origins, find_origins
from benchmarks.quality.scores import Forecast, score
from benchmarks.quality.simple import simple
from benchmarks.quality.training import load, train
from benchmarks.series.fans import FIXED, NETWORK
from benchmarks.series.report import report
from benchmarks.series.sets import SERIES, Series
from datamodules import TableSequences
from gssr.evaluation.baselines import filled_context
from gssr.evaluation.imagining import imagine, pick_evenly, recent_spread, seed_of
from gssr.files import atomic_write
from gssr.network import GoalNetwork
from gssr.network.fitting import adopt
from gssr.runs.folders import CONFIG
from gssr.sequences.record import Batch

QUICK, ORIGINS, SAMPLES = 10, 100, 100
CLASSICAL_ORIGINS = 12  # of those: a seasonal model takes seconds at each
# What configs/any_table.yaml says, for a network that is not trained.
UNTRAINED = {"goals": None, "time_column": "auto", "context": "auto", "lead_in": True}
WORLD = {
    "linear_lags": 64,
    "series_prior": True,
    "normalisation": "auto",
    "calendar": "auto",
    "latent_dim": 8,
    "hidden_dim": 64,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/series"), help="folder of tables, runs and scores")
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK} series")
    parser.add_argument("--names", nargs="+", choices=list(SERIES), metavar="NAME", help="only these series")
    parser.add_argument("--untrained", action="store_true", help="score the linear part alone, without training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of training")
    parser.add_argument("--options", action="append", default=[], help="a further option of train.py fit")
    parser.add_argument("--classical", action="store_true", help="AutoETS, AutoARIMA and AutoTheta, too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    kept = {"options": args.options, "untrained": args.untrained}
    if Cells(args.out).make("options", {}, lambda: kept) | kept != Cells(args.out).get("options"):
        raise SystemExit(f"{args.out} holds runs with other options; give another folder by --out")
    names = args.names or list(SERIES)[: QUICK if args.quick else None]
    folders = {name: args.out / name.replace(", ", "-").replace(" ", "-") for name in names}
    for name in tqdm(names, unit="series"):
        measure(SERIES[name], folders[name], args)
    text = report({name: Cells(folder) for name, folder in folders.items()})
    with atomic_write(args.out / "series.md") as stream:
        stream.write(text)
    print(text)


def measure(series: Series, folder: Path, args: argparse.Namespace) -> None:
    """Make the cells of one series: the scores of each method, and of the network, which is trained if it is not."""
    cells, network = Cells(folder), f"{NETWORK}-seed{args.seed}"
    if cells.get(network) and (not args.classical or cells.get("AutoTheta")):
        return
    table = folder / "table.csv"
    series.write(table)
    options = {"path": str(table.resolve()), "horizon": series.horizon}
    begun = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not args.untrained:
            run = trained(folder, options, args)
            options = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))["data"]["init_args"]
        data = TableSequences(**options | (UNTRAINED if args.untrained else {}))
        origins = find_origins(data, "test", ORIGINS)
        model = linear(data, args.seed) if args.untrained else load(run)
        about = {"windows": len(origins.training), "context": origins.context, "seconds": time.monotonic() - begun}

        def ours() -> dict:
            return fans(recent_spread(model, origins.batch, data)) | {"about": about}

        def fans(recent: Tensor | None) -> dict:
            seed = seed_of(args.seed, "no goal")
            rollouts = imagine(model, origins.batch, None, SAMPLES, seed, recent=recent)
            return score(Forecast(rollouts.sample[..., 0]), origins.truth)

        for method, work in simple(origins, SAMPLES).items():
            cells.make(method, {}, lambda work=work: score(work(), origins.truth))
        if args.classical:
            fit_classical(origins, cells)
        cells.make(network, {}, ours)
        cells.make(f"{FIXED}-seed{args.seed}", {}, lambda: fans(None) | {"changes": changes(origins.batch)})


def fit_classical(origins: Origins, cells: Cells) -> None:
    """The cells of the classical methods, from some of the origins: `rows` are their numbers."""
    rows = pick_evenly(len(origins.history), CLASSICAL_ORIGINS)
    few = replace(origins, history=[origins.history[row] for row in rows], truth=origins.truth[rows])
    for method, work in classical(few, SAMPLES, theta=True).items():
        cells.make(method, {}, lambda work=work: score(work(lambda: None), few.truth) | {"rows": rows})


def trained(folder: Path, options: dict[str, Any], args: argparse.Namespace) -> Path:
    """The run of one series."""
    run, seeds = folder / f"run-seed{args.seed}", ("seed_everything", "model.seed", "data.seed")
    given = [f"--data.{key}={value}" for key, value in options.items()] + [f"--{key}={args.seed}" for key in seeds]
    return train(run, ["--data", "datamodules.TableSequences", *given, *args.options], {}, args.threads)


def changes(batch: Batch) -> Tensor:
    """How large the changes of each context are (B): their root mean square."""
    change = filled_context(batch)[..., 0].diff(dim=1)
    return change.square().nanmean(1).sqrt()


def linear(data: TableSequences, seed: int, **world: Any) -> GoalNetwork:
    """A network before its first step, which forecasts by its linear autoregression and the pretrained forecaster."""
    network = GoalNetwork(world=WORLD | world, seed=seed)
    adopt(network, data, "fit")
    return network.eval()


if __name__ == "__main__":
    main()
