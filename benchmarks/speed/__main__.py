"""Speed of training, reading, decoding and the CPU scan, each interleaved with what it replaces.

python -m benchmarks.speed                      everything, about fifteen minutes on an idle machine with two cores
python -m benchmarks.speed --quick              smaller, about two minutes; docs/speed.md stays as it is
python -m benchmarks.speed --only scan nano     parts
python -m benchmarks.speed --only gpu           on a machine with a GPU
"""

import argparse
import json
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from tqdm import tqdm

from benchmarks.speed import backbone, gpu, measure, scaling, training
from benchmarks.speed.report import write
from gssr.backbone.cpu import prepare_cpu

PARTS = {
    "scan": backbone.scan,
    "nano": backbone.nano,
    "h350m": backbone.h350m,
    "training": training.training,
    "text_steps": training.text_steps,
    "curve": training.curve,
    "encode": backbone.encode,
    "decode": backbone.decode,
    "scaling": scaling.scaling,
    "memory": scaling.memory,
    "gpu": gpu.gpu,
}
DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to run; the others keep their results")
    parser.add_argument("--quick", action="store_true", help="smaller; written beside, not into docs")
    parser.add_argument("--threads", type=int, help="CPU threads (default: one a core)")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    if options.threads:
        torch.set_num_threads(options.threads)
    prepare_cpu()
    folder = Path("runs") / "speed" if options.quick else DOCS
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "speed.json"
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    results["machine"] = measure.machine() | {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}
    chosen = options.only or list(PARTS)
    for name in (bar := tqdm(chosen, unit="part")):
        bar.set_description(name)
        start = time.perf_counter()
        results[name] = PARTS[name](options.quick)
        results[name]["seconds"] = time.perf_counter() - start
        # After each part, so that an interruption of a later one loses nothing.
        measure.dump(results, file)
        write(results, folder / "speed.md")
    print((folder / "speed.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
