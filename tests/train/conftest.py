"""A folder without runs, and a trainer with callbacks of the test's own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback

from gssr.runs import class_paths
from gssr.runs.command_line import RunCLI
from tests.train.command_line import CONFIG, stand_in


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without runs, where the toy's config stands for configs/default.yaml."""
    stand_in(tmp_path, CONFIG, monkeypatch)
    monkeypatch.setattr(class_paths, "PROJECT", (*class_paths.PROJECT, "tests.toy"))
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> list[Callback]:
    """Callbacks that come first in every trainer from now on."""
    callbacks: list[Callback] = []
    original = RunCLI.instantiate_trainer

    def instantiate(self: RunCLI, **kwargs: Any) -> Any:
        trainer = original(self, **kwargs)
        trainer.callbacks[:0] = callbacks
        return trainer

    monkeypatch.setattr(RunCLI, "instantiate_trainer", instantiate)
    return callbacks
