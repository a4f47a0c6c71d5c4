"""A tiny random-weight hybrid model in a local folder, shared by all tests that need a frozen model."""

from pathlib import Path

import pytest
import torch

from datamodules.text.corpus import train_tokenizer
from gssr.backbone import FrozenBackbone, precision
from gssr.training.architectures import nano_config

SENTENCES = [
    "Weaken to 35 knots in 48 hours",
    "Hurricane Ian near 20.1 north 83.5 west, moving north at 9 knots. Central pressure 955 hPa.",
    "Tropical storm Alex near 30.0 north 60.0 west.",
    "Be a category 3 hurricane two days from now.",
]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GraniteMoeHybrid model with 3 Mamba-2 layers and 1 attention layer, E = 96, in float32."""
    from transformers import GraniteMoeHybridForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GraniteMoeHybridForCausalLM(nano_config(vocab_size=400, hidden_size=96, layers=4))
    model.save_pretrained(folder)
    train_tokenizer(SENTENCES * 4, 400).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain transformer of another family, with the same tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        num_key_value_heads=1, intermediate_size=48, bos_token_id=0, eos_token_id=0, pad_token_id=1)
        )  # fmt: skip
    model.save_pretrained(folder)
    train_tokenizer(SENTENCES * 4, 400).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> FrozenBackbone:
    return FrozenBackbone(str(tiny_folder))


def enliven(backbone: FrozenBackbone) -> FrozenBackbone:
    """Make the layers of a random model matter: as initialized, every text repeats its last token for ever."""
    with torch.no_grad():
        for name, weight in backbone.model.named_parameters():
            if "proj" in name or "linear" in name:
                weight *= 6
        backbone.table.weight *= 0.05
        backbone.decoder.norm.weight *= 400
    return backbone


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """On every machine the precision that the tests' tolerances are for, unless a test asks for another one."""
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: False)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSSR_CACHE", str(tmp_path / "cache"))


_COUNTED = pytest.StashKey[dict[str, int]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[_COUNTED] = {
        kind: sum(item.get_closest_marker(kind) is not None for item in session.items) for kind in ("attack", "trial")
    }


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for kind, count in config.stash.get(_COUNTED, {}).items():
        if count:
            terminalreporter.write_line(f"{count} {kind}s")
