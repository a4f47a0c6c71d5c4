"""Effect and damage of each method that steers the nano backbone towards a domain of its training text.

    python -m benchmarks.steering                    # an hour on a busy core
    python -m benchmarks.steering --quick            # everything shrunk, one to two minutes; the numbers mean nothing
    python -m benchmarks.steering --tables-only      # tables and plot again, from what was measured

After an interruption, the same command goes on behind the last finished piece. Prompts are 24 tokens of held-out text
of one domain; the generated text should belong to another domain. Writes steering.json, steering.md and steering.png.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from benchmarks.steering import domains, tables
from benchmarks.steering.long_and_speed import cost, long_texts
from benchmarks.steering.measures import distinct, nats, repetition
from benchmarks.steering.methods import LEARNED, METHODS, Material, Sources, write
from gssr.backbone import FrozenBackbone
from gssr.states.examples import Examples, Learning

FULL = {
    "tokens": 48,
    "rows": 10,
    "steps": 150,
    "texts": 1500,
    "prompts": 200,
    "long": 500,
    "repeats": 5,
}
QUICK = {"tokens": 16, "rows": 1, "steps": 3, "texts": 16, "prompts": 2, "long": 40, "repeats": 1}
ROWS_PER_CALL = 200
PAIRS = [(source, target) for target in domains.DOMAINS for source in domains.DOMAINS if source != target]


class Benchmark:
    """Pieces of work, each done once and kept in ``folder``."""

    def __init__(self, corpus: Path, folder: Path, quick: bool, backbone: str) -> None:
        self.size = QUICK if quick else FULL
        self.folder, self.file = folder, folder / "steering.json"
        self.backbone = FrozenBackbone(backbone)
        self.corpus = domains.read_corpus(corpus, self.backbone.tokenizer, 100_000 if quick else 500_000)
        about = {"backbone": self.backbone.name, "fingerprint": self.backbone.fingerprint, **self.size}
        about["strengths"] = {name: [m.strengths, m.layers] for name, m in METHODS.items()}
        about = json.loads(json.dumps(about))
        self.results: dict[str, Any] = {"about": about, "conditions": {}, "seconds": {}}
        if self.file.exists() and (kept := json.loads(self.file.read_text()))["about"] == about:
            self.results = kept
        else:
            # Results of another or an unknown model or plan must not mix with this one's.
            for old in folder.glob("material-*.safetensors"):
                print(f"{old} belongs to another model or plan and is replaced", file=sys.stderr)
                old.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        self.classifier, accuracy = domains.train_classifier(
            self.corpus, self.backbone.tokenizer, self.size["tokens"], 100 if quick else 600
        )
        self.results["classifier_accuracy"] = accuracy
        self.prompts, self.real = self._pairs(self.size["rows"])
        self._save()

    def run(self) -> None:
        grids = {name: _grid(m.strengths, m.layers) for name, m in METHODS.items()}
        total = len(METHODS) * len(domains.DOMAINS) + sum(map(len, grids.values())) + 3
        with tqdm(total=total, unit="piece") as bar:
            bar.set_description("real text")
            self._once("real", self._measure_real)
            bar.update()
            for name, grid in grids.items():
                for target in domains.DOMAINS:
                    bar.set_description(f"{name} -> {target}")
                    self.material(name, target)
                    bar.update()
                for strength, layers in grid:
                    bar.set_description(f"{name}, strength {strength:g}, layers {layers}")
                    self._condition(name, strength, layers)
                    bar.update()
            directions = {target: self.material(LEARNED, target) for target in domains.DOMAINS}
            bar.set_description("long texts")
            self._once("long", lambda: long_texts(self.backbone, directions, self.prompts, PAIRS, self.size["long"]))
            bar.update()
            bar.set_description("cost of steering")
            self._once("cost", lambda: cost(self.backbone, directions["storms"], self.size["repeats"]))
            bar.update()

    def material(self, name: str, target: str) -> Material:
        path = self.folder / f"material-{name.replace(' ', '-').replace(',', '')}-{target}.safetensors"
        if not path.exists():
            before = time.perf_counter()
            made = {LEARNED: self.material(LEARNED, target)} if name != LEARNED else {}
            settings = Learning(steps=self.size["steps"])
            material = METHODS[name].make(self.backbone, self._sources(target), settings, made)
            save_file({key: x.contiguous() for key, x in material.items()}, path)
            self.results["seconds"][f"make {name} {target}"] = round(time.perf_counter() - before, 1)
        return load_file(path)

    def _sources(self, target: str) -> Sources:
        rng, count = np.random.default_rng(1), self.size["texts"]
        decode = self.backbone.tokenizer.batch_decode
        others = [
            text
            for name in domains.DOMAINS
            if name != target
            for text in decode(self.corpus[name, "train"].prompts(self.size["prompts"], domains.PROMPT_TOKENS + 8, rng))
        ]
        follow = self.corpus[target, "train"].continuations(count, 400, rng)
        return Sources(Examples(self.backbone, others, follow), [text.strip() for text in follow], others)

    def _pairs(self, rows: int) -> tuple[Tensor, Tensor]:
        """Prompts (pairs, rows, P), and real text of the target (pairs, rows, L), from held-out documents."""
        rng, tokens = np.random.default_rng(2), self.size["tokens"]
        prompts, real = [], []
        for source, target in PAIRS:
            prompts.append(self.corpus[source, "heldout"].prompts(rows, domains.PROMPT_TOKENS, rng))
            texts = self.corpus[target, "heldout"].continuations(rows, 20 * tokens, rng)
            ids = self.backbone.tokenizer(texts, add_special_tokens=False)["input_ids"]
            real.append([row[:tokens] for row in ids])
        return torch.tensor(np.array(prompts)), torch.tensor(real)

    def _condition(self, name: str, strength: float, layers: str) -> None:
        key = f"{name}|{strength:g}|{layers}"
        if key in self.results["conditions"]:
            return
        before = time.perf_counter()
        rows = self.size["rows"]
        materials = {target: self.material(name, target) for target in domains.DOMAINS}
        prompts = self.prompts[:, :rows].flatten(0, 1)
        of_rows = [materials[target] for _, target in PAIRS for _ in range(rows)]
        texts = []
        for start in range(0, len(prompts), ROWS_PER_CALL):
            part = slice(start, start + ROWS_PER_CALL)
            texts.append(
                write(
                    self.backbone,
                    METHODS[name],
                    of_rows[part],
                    prompts[part],
                    self.size["tokens"],
                    strength,
                    layers,
                    seed=start,
                )
            )
        measured = self._measure(prompts, torch.cat(texts), rows)
        measured |= {"method": name, "strength": strength, "layers": layers}
        self.results["conditions"][key] = measured
        self.results["seconds"][key] = round(time.perf_counter() - before, 1)
        self._save()

    def _measure_real(self) -> dict[str, Any]:
        rows = self.real.shape[1]
        return self._measure(self.prompts.flatten(0, 1), self.real.flatten(0, 1), rows)

    def _measure(self, prompts: Tensor, texts: Tensor, rows: int) -> dict[str, Any]:
        """By ordered pair: share of the target domain, nats a token, repetition, and a sample; over all: distinct-2."""
        decoded = self.backbone.tokenizer.batch_decode(texts)
        domains_found = self.classifier.predict(decoded)
        surprise = nats(self.backbone, prompts, texts)
        pairs = {}
        for i, (source, target) in enumerate(PAIRS):
            part = slice(i * rows, (i + 1) * rows)
            pairs[f"{source}>{target}"] = {
                "target": float((domains_found[part] == target).mean()),
                "nats": surprise[part].mean().item(),
                "repetition": repetition(texts[part]),
                "distinct": distinct(texts[part]),
                "sample": [self.backbone.tokenizer.decode(prompts[i * rows]), decoded[i * rows]],
            }
        return {"rows": rows, "pairs": pairs}

    def _once(self, key: str, measure: Any) -> None:
        if key not in self.results:
            self.results[key] = measure()
            self._save()

    def _save(self) -> None:
        """In one step, so that an interruption leaves the old file or the new one."""
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.results, indent=1))
        part.replace(self.file)


def _grid(strengths: tuple[float, ...], layers: tuple[str, ...]) -> list[tuple[float, str]]:
    """Every strength on all layers, and strength 1 on parts of them."""
    return [(s, "all") for s in strengths] + [(1.0, part) for part in layers if part != "all"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--corpus", type=Path, default=Path("corpus/corpus.parquet"), help="made by datamodules.text.build"
    )
    parser.add_argument("--backbone", default="nano", help="nano or a local folder of a model trained on the corpus")
    parser.add_argument("--out", type=Path, help="folder of the results; default runs/steering, or -quick behind it")
    parser.add_argument("--quick", action="store_true", help="a trial of the machinery")
    parser.add_argument("--tables-only", action="store_true", help="from the results that are there")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    folder = options.out or Path("runs/steering-quick" if options.quick else "runs/steering")
    if not options.tables_only:
        try:
            benchmark = Benchmark(options.corpus, folder, options.quick, options.backbone)
            benchmark.run()
        except ValueError as error:
            parser.error(str(error))
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here", file=sys.stderr)
            sys.exit(130)
    if not (folder / "steering.json").exists():
        parser.error(f"no results in {folder}; run the benchmark first")
    print(tables.write_all(folder))


if __name__ == "__main__":
    main()
