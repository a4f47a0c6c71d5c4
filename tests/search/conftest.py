"""A small model whose states say something, with its folder and a prompt."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from tests.conftest import enliven

PROMPT = "Hurricane Ian near 20.1 north"


@pytest.fixture(scope="package")
def lively_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    backbone, folder = enliven(FrozenBackbone(str(tiny_folder))), tmp_path_factory.mktemp("lively")
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="package")
def lively(lively_folder: Path) -> FrozenBackbone:
    return FrozenBackbone(str(lively_folder))


@pytest.fixture(scope="package")
def prompt(lively: FrozenBackbone) -> Tensor:
    return torch.tensor([[lively.start_id, *lively.tokenize([PROMPT])[0]]])
