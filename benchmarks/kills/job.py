"""The small job that is killed: a table, a tiny random backbone and a config, for one process or for two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from gssr.runs.options import DEFAULT_CONFIG

CONFIGS = {1: "one.yaml", 2: "two.yaml"}  # by the number of processes


def make(folder: Path) -> None:
    """Write backbone, table and configs; in a child process, so that the parent stays safe to fork."""
    from transformers import GraniteMoeHybridForCausalLM

    from datamodules.tables import example
    from datamodules.text.corpus import train_tokenizer
    from gssr.training.architectures import nano_config

    torch.manual_seed(0)
    texts = [text for news in example.NEWS.values() for text in news]
    GraniteMoeHybridForCausalLM(nano_config(vocab_size=400, hidden_size=96, layers=4)).save_pretrained(folder / "tiny")
    train_tokenizer([*texts, "Reach 35 in 8 days"] * 4, 400).save_pretrained(folder / "tiny")
    example.write(folder, days=400)
    for processes, name in CONFIGS.items():
        config = yaml.safe_dump(_config(folder, processes))
        (folder / name).write_text(config, encoding="utf-8")


def _config(folder: Path, processes: int) -> dict[str, Any]:
    """24 optimizer steps, 3 validations, 2 plan pictures, a checkpoint every 3 steps."""
    config = yaml.safe_load((DEFAULT_CONFIG.parent / "debug.yaml").read_text(encoding="utf-8"))
    config |= {"threads": 1, "checkpoint": {"every_n_steps": 3, "keep": 2}}
    config["trainer"] |= {"max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False}
    config["trainer"] |= {"devices": processes, "strategy": "ddp"} if processes > 1 else {}
    config["plan_rollouts"]["texts"] = False
    model = config["model"]["init_args"]
    model["backbone"] = {"name": str(folder / "tiny")}
    model["world"] |= {"text_layers": [1], "goal_layer": 1}
    table = {"path": str(folder / "my.csv"), "time_column": "date", "text_column": "news"}
    config["data"] = {
        "class_path": "datamodules.TableSequences",
        "init_args": {**table, "batch_size": 8, "context": 8, "horizon": 8},
    }
    return config
