"""Frozen models whose states are kept: the bundled nano, and random weights in the layer shapes of Granite-4.0-H-350m;
a tiny model whose recurrent states decide what it writes."""

from pathlib import Path

import pytest
import torch
from transformers import (
    BambaConfig,
    BambaForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    GraniteMoeHybridConfig,
    GraniteMoeHybridForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
)

from gssr.backbone import FrozenBackbone
from tests.conftest import enliven

PROMPTS = [
    "Hurricane Ian near 20.1 north 83.5 west, moving north at 9 knots.",
    "Weaken to 35 knots",
    "Be a category 3 hurricane two days from now",
]


@pytest.fixture(scope="session")
def nano() -> FrozenBackbone:
    return FrozenBackbone("nano")


@pytest.fixture(scope="session")
def wide(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FrozenBackbone:
    """Every layer as in the 350m, four of its 32 layers and a small vocabulary; `benchmarks.states` has all of it."""
    config = GraniteMoeHybridConfig(
        vocab_size=400, hidden_size=768, num_hidden_layers=4,
        layer_types=["linear_attention", "linear_attention", "full_attention", "linear_attention"],
        intermediate_size=2048, shared_intermediate_size=2048, num_attention_heads=12, num_key_value_heads=4,
        mamba_n_heads=48, mamba_d_head=32, mamba_d_state=128, mamba_n_groups=1, mamba_d_conv=4, mamba_expand=2,
        mamba_chunk_size=256, num_local_experts=0, num_experts_per_tok=0, position_embedding_type=None,
        embedding_multiplier=12, attention_multiplier=1 / 64, logits_scaling=3, residual_multiplier=0.246,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    return folder_with(config, GraniteMoeHybridForCausalLM, tiny_folder, tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="module")
def lively(tiny_folder: Path) -> FrozenBackbone:
    """The tiny model with layers that matter; as initialized, it repeats the last token without end."""
    return enliven(FrozenBackbone(str(tiny_folder)))


def folder_with(config, architecture: type, tiny_folder: Path, folder: Path) -> FrozenBackbone:
    """A backbone of random weights with the tokenizer of the tiny one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        architecture(config).save_pretrained(folder)
    for file in tiny_folder.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return FrozenBackbone(str(folder))


def other_hybrid(architecture: str, tiny_folder: Path, folder: Path) -> FrozenBackbone:
    """Random weights; rotary positions (bamba, falcon_h1), both kinds in a layer (falcon_h1), no attention (mamba2)."""
    common = {
        "vocab_size": 400,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    attention = {"intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    mamba = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 16}
    config, model = {
        "bamba": (lambda: BambaConfig(**common, **attention, **mamba, attn_layer_indices=[1]), BambaForCausalLM),
        "falcon_h1": (
            lambda: FalconH1Config(**common, **attention, **mamba, head_dim=16, mamba_d_ssm=128),
            FalconH1ForCausalLM,
        ),
        "mamba2": (
            lambda: Mamba2Config(**common, num_heads=8, head_dim=16, state_size=16, n_groups=1, chunk_size=16),
            Mamba2ForCausalLM,
        ),
    }[architecture]  # fmt: skip
    return folder_with(config(), model, tiny_folder, folder)
