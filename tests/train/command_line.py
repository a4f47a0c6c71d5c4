"""Calls of train.py in this process, with the toy network."""

import csv
from pathlib import Path

import pytest

import train
from gssr.runs import command_line, options
from gssr.runs.command_line import RunCLI

CONFIG = """
threads: 1
trainer:
  max_epochs: 2
  accelerator: cpu
  log_every_n_steps: 1
  num_sanity_val_steps: 0
  enable_progress_bar: false
  enable_model_summary: false
model:
  class_path: tests.toy.ToyNetwork
data:
  class_path: tests.toy.ToyData
  init_args:
    batch_size: 5
checkpoint:
  every_n_steps: 3
"""


def call(*args: str) -> RunCLI:
    return train.main([*args])


def refused(*args: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        call(*args)
    return str(stopped.value)


def losses(run: Path) -> dict[int, float]:
    with open(run / "metrics.csv", newline="") as file:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file)}


def stand_in(folder: Path, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder without runs, where a toy's config stands for configs/default.yaml."""
    monkeypatch.chdir(folder)
    (folder / "toy.yaml").write_text(config)
    monkeypatch.setattr(options, "DEFAULT_CONFIG", folder / "toy.yaml")
    monkeypatch.setattr(command_line, "prepare_cpu", lambda: None)
