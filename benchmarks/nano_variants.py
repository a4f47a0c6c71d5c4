"""Which shape and which training of nano is best at equal CPU time: each variant trains for the same CPU seconds.

    python -m benchmarks.nano_variants --seconds 1800                  # all variants, one after the other
    python -m benchmarks.nano_variants --only base "state 128"         # some of them
    python -m benchmarks.nano_variants --seconds 20 --quick            # a smoke test: the numbers mean nothing

Seconds are those of this process, so that other work on the machine takes nothing from a variant. The process is niced.
Training multiplies in bfloat16 where the CPU has arithmetic for it, which halves a step; the table says so.
After an interruption the same command goes on: behind the last finished variant, and inside one from its last minute.
Data and options that a variant leaves alone are those of configs/pretrain_nano.yaml. Writes a folder for each variant
and variants.json into --out.
"""

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from transformers import PreTrainedModel

from benchmarks.recall import measures
from benchmarks.recall.decays import LONG
from benchmarks.recall.model import frozen
from benchmarks.recall.text import MEAN, NATURAL, bits_per_byte
from datamodules.text.corpus import TextCorpus
from gssr import checkpoint
from gssr.backbone.cpu import prepare_cpu
from gssr.backbone.precision import is_fast
from gssr.files import atomic_write
from gssr.training.architectures import Nano
from gssr.training.initialisation import half_lives
from gssr.training.language_model import LanguageModelTraining
from gssr.training.objectives import WeightedTokens
from gssr.training.optimizers import MuonAdamWConfig

CONFIG = Path(__file__).parents[1] / "configs" / "pretrain_nano.yaml"
SAVE_EVERY = 60.0  # CPU seconds
AVERAGE = 0.99  # decay a step of the exponential average of weights


@dataclass(frozen=True)
class Variant:
    """What one training does differently; ``attend``: every how many layers attend."""

    name: str
    hidden_size: int = 192
    layers: int = 8
    attend: int = 4
    state_size: int = 64
    vocab_size: int = 4096
    lr: float = 3e-3
    decay_share: float = 0.4
    average: bool = False
    cut_share: float = 0.5


VARIANTS = (
    Variant("base"),
    Variant("wide: 288 x 4", hidden_size=288, layers=4),
    Variant("deep: 96 x 24", hidden_size=96, layers=24),
    Variant("attention in every 2nd layer", attend=2),
    Variant("attention in every 8th layer", attend=8),
    Variant("state 32", state_size=32),
    Variant("state 128", state_size=128),
    Variant("vocabulary 2048", vocab_size=2048),
    Variant("vocabulary 8192", vocab_size=8192),
    Variant("rate 1.5e-3", lr=1.5e-3),
    Variant("rate 6e-3", lr=6e-3),
    Variant("rate falls over the last fifth", decay_share=0.2),
    Variant("rate falls all the time", decay_share=1.0),
    Variant("average of weights, rate falls", average=True),
    Variant("average of weights, constant rate", average=True, decay_share=0.0),
    Variant("attention is never cut", cut_share=0.0),
)


class Trial:
    """One variant in its folder: trains for ``seconds`` of this process's CPU time, then measures."""

    def __init__(self, variant: Variant, options: argparse.Namespace) -> None:
        self.variant, self.options = variant, options
        self.folder = options.out / "".join(c if c.isalnum() else "-" for c in variant.name)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.about = json.loads(json.dumps(asdict(variant))) | {
            "seconds": options.seconds, "seed": options.seed, "quick": options.quick, "corpus": str(options.corpus),
            "bfloat16": is_fast(torch.bfloat16, "cpu"),
        }  # fmt: skip

    def result(self) -> dict[str, Any]:
        """The measurements; made now unless a file holds those of the same options."""
        file = self.folder / "result.json"
        if file.exists() and (kept := json.loads(file.read_text()))["about"] == self.about:
            return kept
        data, module = self._data(), self._module()
        optimizer = module.optimizer.build(module.named_parameters())
        averaged = AveragedModel(module.model, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE), use_buffers=True)
        steps = self._train(data, module, optimizer, averaged)
        model = averaged.module if self.variant.average else module.model
        found = {"about": self.about, "steps": steps} | self._measure(model, data)
        with atomic_write(file) as out:
            json.dump(found, out, indent=1)
        (self.folder / "state.ckpt").unlink(missing_ok=True)
        return found

    def _data(self) -> TextCorpus:
        given = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["data"]["init_args"]
        given |= {"path": str(self.options.corpus), "vocab_size": self.variant.vocab_size, "seed": self.options.seed}
        given["tokenizer"] = str(self.options.out / f"tokenizer-{self.variant.vocab_size}")
        # So short a training would end inside the opening.
        given |= {"cut_share": self.variant.cut_share, "opening": (), "windows": tuple(given["windows"])}
        if self.options.quick:
            given |= {"row_length": 64, "batch_size": 2, "weights": None, "repeats": 0.1}
        data = TextCorpus(**given)
        data.prepare_data()
        data.setup("fit")
        return data

    def _module(self) -> LanguageModelTraining:
        v = self.variant
        torch.manual_seed(self.options.seed)
        nano = Nano(v.vocab_size, v.hidden_size, v.layers, v.state_size)
        nano.config.layer_types = [
            "full_attention" if i % v.attend == v.attend - 1 else "linear_attention" for i in range(v.layers)
        ]
        schedule = MuonAdamWConfig(lr=v.lr, decay_share=v.decay_share)
        return LanguageModelTraining(lambda: nano, WeightedTokens, schedule, compile_layers=False)

    def _train(
        self,
        data: TextCorpus,
        module: LanguageModelTraining,
        optimizer: torch.optim.Optimizer,
        averaged: AveragedModel,
    ) -> int:
        """Train until the CPU time is used; returns the optimizer steps."""
        file, budget, batches = self.folder / "state.ckpt", self.options.seconds, data.train_dataloader()
        step, used = 0, 0.0
        if file.exists() and (saved := checkpoint.read(file))["about"] == json.dumps(self.about):
            module.model.load_state_dict(saved["model"])
            averaged.load_state_dict(saved["averaged"])
            optimizer.load_state_dict(saved["optimizer"])
            batches.load_state_dict(saved["batches"])
            step, used = saved["step"], saved["used"]
        kept, clock = used, time.process_time()
        with tqdm(total=budget, initial=used, unit="CPU s", desc=self.variant.name, bar_format=BAR) as bar:
            iterator = iter(batches)
            while used < budget:
                batch = next(iterator)
                rate = self._rate(module.optimizer, step, used)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                with torch.autocast("cpu", torch.bfloat16, enabled=self.about["bfloat16"]):
                    total, weight = module.objective(module.model, batch)
                optimizer.zero_grad()
                (total / weight).backward()
                torch.nn.utils.clip_grad_norm_(module.model.parameters(), 1.0)
                optimizer.step()
                averaged.update_parameters(module.model)
                step, now = step + 1, time.process_time()
                used, clock = used + now - clock, now
                bar.n = min(used, budget)
                bar.set_postfix(step=step, nats=f"{(total / weight).item():.2f}")
                if used - kept > SAVE_EVERY:
                    self._save(file, module, optimizer, averaged, batches, step, used)
                    kept, clock = used, time.process_time()
        return step

    def _rate(self, schedule: MuonAdamWConfig, step: int, used: float) -> float:
        """The learning rate at this share of the CPU time; how many steps there will be is not known."""
        return schedule.lr * schedule.rate(step, step * self.options.seconds / used if used else 1e9)

    def _save(
        self,
        file: Path,
        module: LanguageModelTraining,
        optimizer: torch.optim.Optimizer,
        averaged: AveragedModel,
        batches: Any,
        step: int,
        used: float,
    ) -> None:
        state = {
            "about": json.dumps(self.about), "step": step, "used": used, "model": module.model.state_dict(),
            "averaged": averaged.state_dict(), "optimizer": optimizer.state_dict(), "batches": batches.state_dict(),
        }  # fmt: skip
        checkpoint.write(state, file)

    def _measure(self, model: PreTrainedModel, data: TextCorpus) -> dict[str, Any]:
        backbone = frozen(model, data.tokenizer)
        quick, nothing = self.options.quick, lambda: None
        frame = pd.read_parquet(self.options.corpus)
        frame = frame[(frame["split"] == "heldout") & frame["source"].isin(NATURAL)]
        heldout = {name: part["text"].tolist()[: 1 if quick else None] for name, part in frame.groupby("source")}
        lives = torch.cat(list(half_lives(model).values()))
        report = bits_per_byte(backbone, heldout, 512, nothing)
        return {
            "parameters": sum(p.numel() for p in model.parameters()),
            "bits per byte": report,
            "repeats": measures.repeats(backbone, 2 if quick else 20, self.options.seed, nothing),
            "long heads": (lives > LONG).double().mean().item(),
        }


BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit} {postfix}"


def table(results: dict[str, dict[str, Any]]) -> Table:
    about = [x["about"] for x in results.values()]
    precision = "bfloat16" if about[0]["bfloat16"] else "float32"
    title = f"variants at {about[0]['seconds']:g} CPU seconds each, trained in {precision}"
    made = Table(title=title, title_justify="left")
    heads = ("parameters", "steps", "bits per byte", *(f"repeats at {d}" for d in (30, 200)), "heads above 100 tokens")
    made.add_column("variant")
    for head in heads:
        made.add_column(head, justify="right")
    for name, x in results.items():
        repeats = [x["repeats"][d]["whole"] for d in ("30", "200")]
        made.add_row(
            name, f"{x['parameters']:,}", str(x["steps"]), f"{x['bits per byte'][MEAN]:.3f}",
            *(f"{share:.1%}" for share in repeats), f"{x['long heads']:.0%}",
        )  # fmt: skip
    return made


def main(arguments: list[str] | None = None, variants: tuple[Variant, ...] = VARIANTS) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--corpus", type=Path, default=Path("corpus/corpus.parquet"), help="made by datamodules.text.build"
    )
    parser.add_argument("--seconds", type=float, default=1800.0, help="CPU seconds of each training; default 1800")
    parser.add_argument("--only", nargs="+", choices=[v.name for v in variants], help="some variants; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of weights and rows")
    parser.add_argument("--quick", action="store_true", help="short rows and little to measure: a smoke test")
    parser.add_argument("--out", type=Path, default=Path("variants"), help="folder of the results; default variants")
    options = parser.parse_args(arguments)
    if not options.corpus.exists():
        parser.error(f"no corpus at {options.corpus}; build it with: python -m datamodules.text.build --out corpus")
    if not options.seconds > 0:
        parser.error(f"--seconds is {options.seconds:g}; expected more than 0")
    results: dict[str, dict[str, Any]] = {}
    for variant in variants:
        if options.only is None or variant.name in options.only:
            results[variant.name] = Trial(variant, options).result()
            with atomic_write(options.out / "variants.json") as file:
                json.dump(results, file, indent=1)
            Console(width=140).print(table(results))


if __name__ == "__main__":
    os.nice(10)
    torch.set_num_threads(1)
    prepare_cpu()
    main()
