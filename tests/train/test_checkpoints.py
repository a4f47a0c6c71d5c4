"""Checkpoints with code, and those of another network, are refused."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from gssr.network.compatibility import CheckpointMismatch
from gssr.runs.folders import LAST, checkpoint_file, runs
from tests.toy import ToyNetwork
from tests.train.command_line import call, refused

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


class Evil:
    """Creates a file as it is read by a pickle that may do anything."""

    def __reduce__(self) -> Any:
        return os.system, ("touch marker",)


def test_code_in_a_checkpoint_is_refused(here: Path) -> None:
    call("fit")
    run = runs()[0]
    file = checkpoint_file(run, LAST)
    content = torch.load(file, weights_only=True)
    torch.save(content | {"extra": Evil()}, file)
    for stage in ("fit", "test", "predict"):
        message = refused(stage, "--ckpt_path", "last")
        assert "last.ckpt was not loaded: it asks for posix.system, which is no tensor" in message
    torch.save(content | {"hyper_parameters": {"_instantiator": "os.system", "_class_path": "os.system"}}, file)
    with pytest.raises(ValueError, match="instantiator 'os.system' from the checkpoint"):
        ToyNetwork.load_from_checkpoint(file)
    assert not (here / "marker").exists()


def test_a_checkpoint_of_another_network_is_refused_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def mismatch(self: ToyNetwork, checkpoint: dict[str, Any]) -> None:
        raise CheckpointMismatch("this checkpoint is of another network:\n  latent_dim: 16 in the checkpoint, 8 here")

    call("fit")
    monkeypatch.setattr(ToyNetwork, "on_load_checkpoint", mismatch)
    said = refused("test", "--ckpt_path", "best", "--model.lr", "0.5")
    assert (
        "best.ckpt cannot be used: this checkpoint is of another network:\n  latent_dim: 16 in the checkpoint" in said
    )
    assert "Changed since then:\n  model.lr 0.01 -> 0.5" in said
