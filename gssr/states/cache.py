"""The cache of transformers as the states need it: an empty one for a model, tokens read into it, and what a layer's state looks like.

Only public methods of the cache are used; it changes between releases of transformers.
"""

import inspect

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
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
    length, name = tokens.shape[1], cache_name(backbone.model)
    if name == "cache_params":
        about = {"attention_mask": mask[:, -length:].long()}
    else:
        # As generate counts them, so that rotary keys are the same; padding must not be counted.
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -length:]
        about = {"attention_mask": mask.long(), "position_ids": positions}
    backbone.decoder(input_ids=tokens, use_cache=True, **about, **{name: cache})


def attention_layers(cache: DynamicCache) -> list[int]:
    return [i for i, layer in enumerate(cache.layers) if isinstance(layer, DynamicLayer)]


def recurrent_layers(cache: DynamicCache) -> list[int]:
    return [i for i, layer in enumerate(cache.layers) if isinstance(layer, LinearAttentionCacheLayerMixin)]
