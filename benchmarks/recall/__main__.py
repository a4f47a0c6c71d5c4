"""What a language model remembers of its own context, for how long, and in which of its states.

    python -m benchmarks.recall                                  # the bundled nano, some ten minutes on one core
    python -m benchmarks.recall --model runs/nano/checkpoints/last.ckpt --tokenizer corpus/tokenizer
    python -m benchmarks.recall --parts half-lives facts repeats transplants     # without bits per byte
    python -m benchmarks.recall --picture before/recall.json after/recall.json   # half-lives side by side

half-lives   tokens in which a head of Mamba-2 forgets half, on held-out text and at its bias alone
facts        questions about invented facts with names that training leaves out, behind held-out text
repeats      random tokens, said twice
transplants  what is recalled when some states alone come from the context of the fact
bytes        bits per byte of held-out text
xz           bits per byte that `xz -9` needs after the training text

Writes recall.json and half-lives.png into --out.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from tqdm import tqdm

from benchmarks.compression import xz_bits_per_byte
from benchmarks.recall import measures
from benchmarks.recall.decays import decays, picture
from benchmarks.recall.model import load
from benchmarks.recall.report import tables
from benchmarks.recall.text import NATURAL, bits_per_byte, with_mean
from datamodules.text.rows import Packing
from gssr.backbone import FrozenBackbone
from gssr.files import atomic_write
from gssr.states.plots import save

PARTS = ("half-lives", "facts", "repeats", "transplants", "bytes", "xz")
ROWS_OF_TEXT = 8  # of each natural source, on which half-lives are measured


def measure(backbone: FrozenBackbone, options: argparse.Namespace, documents: dict[Any, list[str]]) -> dict[str, Any]:
    """The report of the parts that were asked for."""
    heldout = {source: texts for (source, split), texts in documents.items() if split == "heldout"}
    natural = [text for source in NATURAL for text in heldout.get(source, ())]
    texts = [ids for ids in backbone.tokenize(natural) if len(ids) >= measures.DISTANCES[-1]]
    parts, report = options.parts, {}
    total = measures.steps(parts, options.questions, options.repeated)
    with tqdm(total=total, unit="batch", disable=not total) as bar:
        if "half-lives" in parts:
            bar.set_description("half-lives")
            packing = Packing(backbone.tokenizer, 512, seed=0)
            rows = [packing.heldout(heldout[name])[:ROWS_OF_TEXT] for name in NATURAL if name in heldout]
            report["half-lives"] = decays(backbone, torch.cat(rows).long())
        for part, work in (("facts", measures.facts), ("transplants", measures.transplants)):
            if part in parts:
                bar.set_description(part)
                report[part] = work(backbone, texts, options.questions, options.seed, bar.update)
        if "repeats" in parts:
            bar.set_description("repeats")
            report["repeats"] = measures.repeats(backbone, options.repeated, options.seed, bar.update)
    if "bytes" in parts:
        with tqdm(desc="bits per byte", unit="batch") as bar:
            report["bytes"] = {"model": bits_per_byte(backbone, heldout, options.row_length, bar.update)}
    if "xz" in parts:
        sources = tqdm([source for source in heldout if (source, "train") in documents], desc="xz -9", unit="source")
        found = {source: xz_bits_per_byte(documents[source, "train"], heldout[source]) for source in sources}
        report.setdefault("bytes", {})["xz -9"] = with_mean(found)
    return report


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="nano", help="nano, a folder, a hub id, or a checkpoint of a training of nano"
    )
    parser.add_argument("--tokenizer", help="folder of a checkpoint's tokenizer; default: the one that it names")
    parser.add_argument(
        "--corpus", type=Path, default=Path("corpus/corpus.parquet"), help="made by datamodules.text.build"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--questions", type=int, default=100, help="of each kind at each distance; default 100")
    parser.add_argument("--repeated", type=int, default=20, help="rows of random tokens; default 20")
    parser.add_argument("--row-length", type=int, default=512, help="tokens read at once for bits per byte")
    parser.add_argument("--seed", type=int, default=0, help="of questions, other text and random tokens")
    parser.add_argument("--out", type=Path, default=Path("recall"), help="folder of the results; default recall")
    parser.add_argument("--picture", nargs="+", type=Path, help="draw the half-lives of these reports and end")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.picture:
        reports = {
            file.parent.name or file.stem: json.loads(file.read_text())["half-lives"] for file in options.picture
        }
        save(picture(reports), options.out / "half-lives.png")
        return
    if not options.corpus.exists():
        parser.error(f"no corpus at {options.corpus}; build it with: python -m datamodules.text.build --out corpus")
    if min(options.questions, options.repeated, options.row_length) < 1:
        parser.error("--questions, --repeated and --row-length are counts of at least 1")
    try:
        backbone, steps = load(options.model, options.tokenizer)
    except ValueError as error:
        parser.error(str(error))
    frame = pd.read_parquet(options.corpus)
    documents = {key: group["text"].tolist() for key, group in frame.groupby(["source", "split"])}
    about = {"model": options.model, "steps": steps, "fingerprint": backbone.fingerprint}
    about |= {name: getattr(options, name) for name in ("questions", "repeated", "row_length", "seed")}
    report = {"about": about} | measure(backbone, options, documents)
    with atomic_write(options.out / "recall.json") as file:
        json.dump(report, file, indent=1)
    if "half-lives" in report:
        save(picture({Path(options.model).name: report["half-lives"]}), options.out / "half-lives.png")
    console = Console(width=160)
    for table in tables(report):
        console.print(table)
    print(f"wrote {options.out / 'recall.json'}", file=sys.stderr)


if __name__ == "__main__":
    main()
