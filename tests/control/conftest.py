"""A small Mamba-2 model of random weights that knows the words of the facts."""

from pathlib import Path

import pytest
import torch

from datamodules.facts.language import Language, make_tokenizer
from gssr.backbone import FrozenBackbone
from gssr.training.architectures import PureMamba2


@pytest.fixture(scope="session")
def language() -> Language:
    return Language()


def folder_of(language: Language, folder: Path, layers: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PureMamba2(len(language.words()), 32, layers, 16).build()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight *= 8 if "out_proj" in name else 1  # states decide what is said
    model.save_pretrained(folder)
    make_tokenizer(language).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def facts_folder(language: Language, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(language, tmp_path_factory.mktemp("facts"), 2)


@pytest.fixture(scope="session")
def facts(facts_folder: Path) -> FrozenBackbone:
    return FrozenBackbone(str(facts_folder))


@pytest.fixture(scope="session")
def one_layer(language: Language, tmp_path_factory: pytest.TempPathFactory) -> FrozenBackbone:
    return FrozenBackbone(str(folder_of(language, tmp_path_factory.mktemp("one"), 1)))
