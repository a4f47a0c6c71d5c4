"""The cache of transformers as the states need it: an empty one for a model, tokens read into it, and what a layer's state looks like.

Only what is public in the cache is used; it changes between releases of transformers.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionCacheLayerMixin

from gssr.backbone import FrozenBackbone


def empty_cache(model: PreTrainedModel) -> DynamicCache:
    """
    Raises:
        ValueError: the model has no recurrent states, or layers whose states cannot be taken out and put back.
    """
    cache = DynamicCache(config=model.config)
    name = type(model).__name__
    if not any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers):
        raise ValueError(
            f"{name} is a plain transformer without recurrent states; give a hybrid or Mamba-2 model such as nano or "
            "ibm-granite/granite-4.0-h-350m"
        )
    for i, layer in enumerate(cache.layers):
        if isinstance(layer, DynamicSlidingWindowLayer) or getattr(layer, "number_of_states", 1) != 1:
            raise ValueError(
                f"layer {i} of {name} keeps its state as {type(layer).__name__}, which is not supported; expected full "
                "attention and one recurrent state in each recurrent layer"
            )
    return cache


def cache_name(model: PreTrainedModel) -> str:
    """The argument by which the model takes a cache: models without attention call it ``cache_params``."""
    return "cache_params" if "cache_params" in inspect.signature(model.forward).parameters else "past_key_values"


@torch.no_grad()
def read(backbone: FrozenBackbone, cache: DynamicCache, tokens: Tensor, mask: Tensor) -> None:
    """Read ``tokens`` (B, L) into the cache; ``mask`` (B, positions before and now), False at left padding."""
    backbone.decoder(input_ids=tokens, **reading(backbone.model, cache, mask, tokens.shape[1]))


def reading(model: PreTrainedModel, cache: DynamicCache, mask: Tensor, length: int) -> dict[str, Any]:
    """What a call that reads ``length`` tokens into the cache takes beside them; ``mask`` as in ``read``."""
    if cache_name(model) == "cache_params":
        return {"attention_mask": mask[:, -length:].long(), "cache_params": cache, "use_cache": True}
    # As generate counts them, so that rotary keys are the same; padding must not be counted.
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -length:]
    return {"attention_mask": mask.long(), "position_ids": positions, "past_key_values": cache, "use_cache": True}


def attention_layers(cache: DynamicCache) -> list[int]:
    return [i for i, layer in enumerate(cache.layers) if isinstance(layer, DynamicLayer)]


def get_part(cache: Cache, part: str, layer: int) -> Tensor | None:
    """The ``recurrent`` or ``conv`` state of a layer or the ``values`` of its attention; None where it has read nothing yet.

    Raises:
        ValueError: the layer has no such part.
    """
    try:
        if part == "values":
            return cache.layers[layer].values
        return cache.get_recurrent_state(layer) if part == "recurrent" else cache.get_conv_state(layer)
    except (ValueError, IndexError, AttributeError) as error:
        name = {"recurrent": "recurrent state", "conv": "conv state", "values": "attention values"}[part]
        raise ValueError(f"layer {layer} has no {name}; `gssr inspect` lists what each layer has") from error


def put_part(cache: Cache, part: str, layer: int, tensor: Tensor) -> None:
    """The same shape and type as ``get_part`` gave."""
    if part == "values":
        cache.layers[layer].values = tensor
    elif part == "recurrent":
        cache.update_recurrent_state(tensor, layer)
    else:
        cache.update_conv_state(tensor, layer)


def recurrent_layers(cache: DynamicCache) -> list[int]:
    return [i for i, layer in enumerate(cache.layers) if isinstance(layer, LinearAttentionCacheLayerMixin)]
