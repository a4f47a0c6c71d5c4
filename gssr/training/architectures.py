"""The language models that can be trained: nano or Mamba-2 alone from scratch, or any saved model further."""

from typing import Annotated

from transformers import (
    GraniteMoeHybridConfig,
    GraniteMoeHybridForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    PreTrainedModel,
)

from gssr.backbone.loading import load_model
from gssr.domains import Layers, Range, Vocabulary, checked
from gssr.training.initialisation import initialise_mamba


class Architecture:
    """Chooses a model by ``class_path`` in a config. ``build`` makes it in float32, with new or with saved weights."""

    def build(self) -> PreTrainedModel:
        raise NotImplementedError


@checked
class Nano(Architecture):
    """Granite-4.0-H in small, with new weights, whose Mamba-2 layers begin as memories.

    Args:
        vocab_size: V, that of the data's tokenizer.
        hidden_size: E, a multiple of 96.
        layers: eight give six Mamba-2 and two attention layers.
        state_size: N, state dimensions of a Mamba-2 head.
    """

    def __init__(
        self,
        vocab_size: Vocabulary = 4096,
        hidden_size: Annotated[int, Range(96, 8192)] = 192,
        layers: Annotated[int, Range(4, 1000)] = 8,
        state_size: Annotated[int, Range(1, 1024)] = 64,
    ) -> None:
        if hidden_size % 96:
            raise ValueError(f"hidden_size is {hidden_size}; expected a multiple of 96")
        self.config = nano_config(vocab_size, hidden_size, layers, state_size)

    def build(self) -> PreTrainedModel:
        model = GraniteMoeHybridForCausalLM(self.config)
        initialise_mamba(model)
        return model


@checked
class PureMamba2(Architecture):
    """Mamba-2 layers alone, with new weights that begin as memories; tied embeddings.

    Token 0 pads, 1 begins and 3 ends a text, as in `datamodules.lookups`.

    Args:
        vocab_size: V, that of the data's tokenizer.
        hidden_size: E, a multiple of 16; a head has 32 of the 2 E inner dimensions.
        layers: Mamba-2 layers.
        state_size: N, state dimensions of a head.
    """

    def __init__(
        self,
        vocab_size: Annotated[int, Range(2, 2**20)] = 258,
        hidden_size: Annotated[int, Range(16, 8192)] = 96,
        layers: Annotated[int, Range(1, 1000)] = 2,
        state_size: Annotated[int, Range(1, 1024)] = 64,
    ) -> None:
        if hidden_size % 16:
            raise ValueError(f"hidden_size is {hidden_size}; expected a multiple of 16")
        self.config = Mamba2Config(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            state_size=state_size,
            num_heads=hidden_size // 16,
            head_dim=32,
            n_groups=1,
            expand=2,
            conv_kernel=4,
            chunk_size=64,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=3,
        )

    def build(self) -> PreTrainedModel:
        model = Mamba2ForCausalLM(self.config)
        initialise_mamba(model)
        return model


@checked
class Saved(Architecture):
    """A saved model with its weights, to be trained further.

    Args:
        name: nano, a local folder or a hub id.
        new_memory: places of Mamba-2 layers, from 0, that begin anew as memories, see
            ``gssr.training.initialisation``; other weights stay. For a model that forgets at once.
    """

    def __init__(self, name: str, new_memory: Layers | None = None) -> None:
        self.name, self.new_memory = name, new_memory

    def build(self) -> PreTrainedModel:
        model = load_model(self.name, dtype="float32")[0].train()
        if self.new_memory is not None:
            initialise_mamba(model, self.new_memory, std=model.config.initializer_range)
        return model


def nano_config(
    vocab_size: int = 4096, hidden_size: int = 192, layers: int = 8, state_size: int = 64
) -> GraniteMoeHybridConfig:
    """Every fourth layer attends, the others are Mamba-2; no positions, no experts, tied embeddings."""
    head = 48
    return GraniteMoeHybridConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=8 * hidden_size // 3,
        shared_intermediate_size=8 * hidden_size // 3,
        num_hidden_layers=layers,
        layer_types=["full_attention" if i % 4 == 3 else "linear_attention" for i in range(layers)],
        num_attention_heads=hidden_size // head,
        num_key_value_heads=hidden_size // head // 2,
        attention_multiplier=1 / head,
        mamba_n_heads=2 * hidden_size // 32,
        mamba_d_head=32,
        mamba_d_state=state_size,
        mamba_n_groups=1,
        mamba_d_conv=4,
        mamba_expand=2,
        mamba_chunk_size=64,
        num_local_experts=0,
        num_experts_per_tok=0,
        position_embedding_type=None,
        embedding_multiplier=12,
        logits_scaling=3,
        residual_multiplier=0.246,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
