"""Forecasts, goals, texts and plans of the goal network beside their baselines, on the same origins.

python -m benchmarks.quality --data storms                  train what is missing (three seeds), then measure both parts
python -m benchmarks.quality --data storms --quick          a smoke test in two minutes
python -m benchmarks.quality --data storms --part val       while choosing; the test part is for docs/results.md
python -m benchmarks.quality --data storms --network runs/seed0 runs/seed1      measure runs that exist
python -m benchmarks.quality --data Energy --path FOLDER --forecasts            data that are not bundled
python -m benchmarks.quality --data strikes --forecasts --part refit            methods that learn from validation too
python -m benchmarks.quality --data storms --ablations      the network with one thing changed at a time
python -m benchmarks.quality --report docs/results.md       write the pages of all measurements; nothing is run

`--out` holds every finished piece as a JSON file; the same command continues from there. `pip install -e '.[bench]'`
brings AutoETS and AutoARIMA; without it they are left out.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

from benchmarks.quality import ablations, document
from benchmarks.quality.sets import NAMES, data_set
from benchmarks.quality.training import NUMBERS, NUMBERS_OPTIONS, QUICK_OPTIONS, refitted, trained
from benchmarks.quality.work import REFIT, Piece, Sizes, Work
from gssr.backbone.cpu import prepare_cpu

PARTS = ("val", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=NAMES)
    parser.add_argument("--path", type=Path, help="folder of data that are not bundled")
    parser.add_argument(
        "--part", nargs="+", choices=(*PARTS, REFIT), default=PARTS, help="what is scored (default: val, test)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--network", nargs="*", type=Path, help="runs to measure instead of own ones; none: baselines alone"
    )
    parser.add_argument("--ablations", nargs="*", metavar="NAME", help="train and measure ablations (default: all)")
    parser.add_argument("--quick", action="store_true", help="two minutes, one seed, few windows: not a result")
    parser.add_argument("--without-classical", action="store_true", help="leave AutoETS and AutoARIMA out")
    parser.add_argument(
        "--forecasts", action="store_true", help="leave goals, texts and plans out, and the text loss of own runs"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--out", type=Path, default=Path("runs") / "quality")
    parser.add_argument(
        "--report",
        type=Path,
        help="write the summary of all measurements into this file, and a page for each data set beside it",
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="(lightning|transformers|torch).*")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    prepare_cpu()
    try:
        if options.data is not None:
            run(options)
        elif options.report is None:
            parser.error("say with --data what to measure, or with --report where to write what was measured")
        if options.report is not None:
            document.write(options.out, options.report)
            print(f"wrote {options.report}")
    except ValueError as error:
        sys.exit(f"benchmarks.quality: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")


def run(options: argparse.Namespace) -> None:
    data = data_set(options.data, options.path)
    out = options.out / "quick" if options.quick else options.out
    folder, sizes = out / data.name, Sizes.of(options.quick)
    seeds = options.seeds[:1] if options.quick else options.seeds
    if options.ablations is not None and REFIT in options.part:
        raise ValueError("ablations are measured on validation, where settings are chosen: --part val")
    if not options.without_classical and find_spec("statsforecast") is None:
        print("AutoETS and AutoARIMA are left out: statsforecast is not installed (pip install -e '.[bench]')")
    bar = tqdm(unit="piece", dynamic_ncols=True)
    stem, more = (NUMBERS, NUMBERS_OPTIONS) if options.forecasts else ("seed", ())
    quick = QUICK_OPTIONS if options.quick else ()
    more = (*more, *quick)
    if options.network is not None:
        runs = dict(zip(options.seeds, options.network, strict=False))
    else:
        runs = {}
        for seed in seeds:
            bar.set_description(f"{data.name}: training seed {seed}")
            runs[seed] = trained(data, folder / "runs" / f"{stem}{seed}", seed, options=more, threads=options.threads)
    works = {}
    for part in options.part:
        of_part = runs
        if part == REFIT:
            bar.set_description(f"{data.name}: training on the validation part, too")
            of_part = {
                seed: refitted(run, folder / "runs" / f"{REFIT}-{run.name}", options.threads)
                for seed, run in runs.items()
            }
        works[part] = Work(data, part, folder, seeds, of_part, sizes, lambda: bar.update(0))

    def make(part: str, pieces: Sequence[Piece]) -> None:
        bar.total = (bar.total or 0) + len(pieces)
        for piece in pieces:
            bar.set_description(f"{data.name} {part}: {piece.name}")
            works[part].cells.make(piece.name, piece.settings, piece.work)
            bar.update()

    for part, work in works.items():
        make(part, list(work.pieces(options.without_classical, options.forecasts)))
        if options.ablations is None:
            print(f"\n{document.of_part(folder, part)}", flush=True)
    if options.ablations is not None:
        own = more if data.short is None else quick  # the shorter training says itself which losses it has
        for one in ablations.train(data, folder, options.ablations, seeds, own, stem, options.threads, bar):
            for part, work in works.items():
                make(part, list(work.of_run(one.seed, one.folder, one.stem, True)))
        for part in works:
            print(f"\n{document.of_part(folder, part)}", flush=True)
    bar.close()


if __name__ == "__main__":
    main()
