"""One training step around a random model in the exact shape of a Granite-4.0-H: does it run, and in how much memory?

    python -m benchmarks.shapes --size 350m
    python -m benchmarks.shapes --size 1b --folder models/random-1b      keeps the model for other commands

The configuration gives the shape, so nothing is fetched. The model is saved in bfloat16, and `train.py fit --config
configs/granite-<size>.yaml` trains around it as around a model from the hub, on a few storms. The output is parameters,
seconds and the largest resident memory of the process (on Linux; the mapped weight file counts, too).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM

from datamodules import Storms
from datamodules.text.corpus import train_tokenizer
from gssr.sequences.record import Record

ROOT = Path(__file__).resolve().parents[1]
EVERY_TENTH = (5, 15, 25, 35)
# As published. All sizes share the vocabulary, d_state 128, d_conv 4, one group and the factor of the embeddings.
SHAPES: dict[str, dict[str, Any]] = {
    "350m": {
        "hidden_size": 768, "num_hidden_layers": 32, "attends": (10, 13, 17, 27), "mamba_n_heads": 48,
        "mamba_d_head": 32, "num_attention_heads": 12, "num_key_value_heads": 4, "shared_intermediate_size": 2048,
        "logits_scaling": 3,
        "attention_multiplier": 1 / 64, "residual_multiplier": 0.246,
    },
    "1b": {
        "hidden_size": 1536, "num_hidden_layers": 40, "attends": EVERY_TENTH, "mamba_n_heads": 48, "mamba_d_head": 64,
        "num_attention_heads": 12, "num_key_value_heads": 4, "shared_intermediate_size": 4096, "logits_scaling": 6,
        "attention_multiplier": 1 / 128, "residual_multiplier": 0.22,
    },
    "micro": {
        "hidden_size": 2048, "num_hidden_layers": 40, "attends": EVERY_TENTH, "mamba_n_heads": 64, "mamba_d_head": 64,
        "num_attention_heads": 32, "num_key_value_heads": 8, "shared_intermediate_size": 8192, "logits_scaling": 8,
        "attention_multiplier": 1 / 64, "residual_multiplier": 0.22,
    },
}  # fmt: skip
GIB = 2**30


def shape_config(size: str) -> GraniteMoeHybridConfig:
    """The configuration of Granite-4.0-H ``size``, a key of ``SHAPES``."""
    shape = dict(SHAPES[size])
    attends = shape.pop("attends")
    layers = range(shape["num_hidden_layers"])
    return GraniteMoeHybridConfig(
        **shape,
        layer_types=["full_attention" if i in attends else "linear_attention" for i in layers],
        intermediate_size=shape["shared_intermediate_size"],
        vocab_size=100_352,
        mamba_d_state=128,
        mamba_n_groups=1,
        mamba_d_conv=4,
        mamba_expand=2,
        mamba_chunk_size=256,
        num_local_experts=0,
        num_experts_per_tok=0,
        position_embedding_type=None,
        embedding_multiplier=12,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )


def save_random(config: GraniteMoeHybridConfig, folder: Path) -> int:
    """Write a model with random bfloat16 weights and a small byte-level tokenizer; returns its number of parameters."""
    torch.manual_seed(0)
    model = GraniteMoeHybridForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    train_tokenizer(["Weaken to 35 knots in 48 hours"], 400).save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


class FewStorms(Storms):
    """A handful of short windows of storms, so that few texts have to be read before the first step."""

    def __init__(self, windows: int = 2) -> None:
        super().__init__(batch_size=windows, context=4, horizon=4)
        self.windows = windows

    def read_windows(self) -> dict[str, Sequence[Record]]:
        return {
            split: part[:: len(part) // self.windows][: self.windows] for split, part in super().read_windows().items()
        }


class StepReport(Callback):
    """Write seconds of the first step, its loss and the process's largest memory so far to ``file``."""

    def __init__(self, file: str) -> None:
        self.file, self.started = Path(file), time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.before = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now, device = time.perf_counter(), pl_module.device
        report = {
            "seconds until the step": round(self.before - self.started, 1),
            "seconds of the step": round(now - self.before, 1),
            "loss": round(float(outputs["loss"]), 4),
            "device": str(device),
            "peak resident GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 2),
        }
        if device.type == "cuda":
            report["peak GPU GiB"] = round(torch.cuda.max_memory_allocated(device) / GIB, 2)
        self.file.write_text(json.dumps(report), encoding="utf-8")


def train_one_step(size: str, folder: Path, more: Sequence[str] = ()) -> dict[str, Any]:
    """One step of `train.py fit` around the model in ``folder``, in a process and a working folder of its own.

    Raises:
        RuntimeError: the training failed; the message holds its output.
    """
    with tempfile.TemporaryDirectory() as work:
        report = Path(work) / "report.json"
        command = [sys.executable, str(ROOT / "train.py"), "fit"]
        command += [
            "--config",
            str(ROOT / "configs" / f"granite-{size}.yaml"),
            "--model.backbone.name",
            str(folder.resolve()),
        ]
        command += [
            "--data",
            "benchmarks.shapes.FewStorms",
            "--trainer.max_steps",
            "1",
            "--model.objective.text_steps",
            "2",
        ]
        command += ["--trainer.limit_val_batches", "0", "--trainer.enable_progress_bar", "false"]
        command += ["--weight_average", "null", "--trainer.callbacks", "benchmarks.shapes.StepReport"]
        command += ["--trainer.callbacks.file", str(report), *more]
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": paths, "GSSR_CACHE": work}
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
        if done.returncode or not report.exists():
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
        return json.loads(report.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SHAPES), required=True)
    parser.add_argument(
        "--folder", type=Path, help="where the model is written and stays (default: a temporary folder)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        started = time.perf_counter()
        count = save_random(shape_config(options.size), folder)
        print(
            f"granite-4.0-h-{options.size}, random weights: {count:,} parameters, built in "
            f"{time.perf_counter() - started:.0f} s"
        )
        for name, value in train_one_step(options.size, folder).items():
            print(f"  {name:<24}{value}")


if __name__ == "__main__":
    main()
