"""Dropout by rows: a source with little text is read many times, and a model learns it by heart.

Activations are zeroed in the rows of such a source only, since large sources lose by it. Dropout: Srivastava et al.
2014. That it keeps language models from learning repeated text by heart: Xue et al. 2023 (arXiv:2305.13230).

Shapes: B rows, L tokens, E width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gssr.backbone.loading import decoder_layers

MIXERS_AND_MLPS = "mamba", "mixer", "self_attn", "shared_mlp", "mlp", "feed_forward"


@contextmanager
def row_dropout(model: PreTrainedModel, rates: Tensor | None) -> Iterator[None]:
    """Drop activations behind the embedding table and behind each mixer and MLP of ``model``, while this is open.

    Args:
        rates: (B), share of the activations to zero in each row; the others are divided by 1 - rate. None or zeros
            change nothing.
    """
    if rates is None or not rates.any():
        yield
        return
    keep = 1 - rates[:, None, None]

    def drop(module: nn.Module, inputs: Any, output: Any) -> Any:
        x = output[0] if isinstance(output, tuple) else output  # (B, L, E)
        x = x * ((torch.rand_like(x, dtype=torch.float32) < keep) / keep).to(x.dtype)
        return (x, *output[1:]) if isinstance(output, tuple) else x

    parts = [getattr(layer, name, None) for layer in decoder_layers(model) for name in MIXERS_AND_MLPS]
    hooks = [
        part.register_forward_hook(drop)
        for part in (model.get_input_embeddings(), *parts)
        if isinstance(part, nn.Module)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
