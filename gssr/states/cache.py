"""Caches of transformers, layer by layer: build an empty one, fill one with states, and get the states back.

Only the public part of the cache is used, since the rest changes between releases of transformers.

Shapes: B rows; K positions in the cache, padding included; M heads of dimension R and N state dimensions in a Mamba-2
layer. Other recurrent layers of transformers have shapes of their own.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionCacheLayerMixin

ATTENTION = ("keys", "values")
PARTS = ("recurrent", "conv", *ATTENTION)  # the fields of LayerState, in their order


@dataclass(frozen=True, eq=False)
class LayerState:
    """The states of one layer; None where the layer has no such state or has read nothing yet."""

    recurrent: Tensor | None = None  # (B, M, R, N), float32
    conv: Tensor | None = None  # (B, channels, width), the last inputs of the causal convolution
    keys: Tensor | None = None  # (B, KV heads, K, head dimension)
    values: Tensor | None = None  # as keys

    @property
    def kind(self) -> str:
        """``mamba``, ``attention``, ``mamba+attention`` (Falcon-H1), or ``none`` for a layer without a state."""
        kinds = [name for name, part in (("mamba", self.conv), ("attention", self.keys)) if part is not None]
        return "+".join(kinds) or "none"

    def parts(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of each state that the layer has."""
        for name in PARTS:
            if (tensor := getattr(self, name)) is not None:
                yield name, tensor

    def map(self, change: Callable[[Tensor], Tensor], only: tuple[str, ...] = ()) -> "LayerState":
        """Apply ``change`` to every state, or to the states named in ``only``."""
        return replace(self, **{name: change(part) for name, part in self.parts() if not only or name in only})

    @staticmethod
    def concatenate(states: Sequence["LayerState"]) -> "LayerState":
        """The rows of several states of one layer, one state behind the other."""
        names = [name for name, _ in states[0].parts()]
        return LayerState(**{name: torch.cat([getattr(state, name) for state in states]) for name in names})


def empty_cache(model: PreTrainedModel) -> DynamicCache:
    """A cache that has read nothing.

    Raises ValueError for a model without recurrent states, or with states that cannot be moved between caches.
    """
    cache = any_cache(model)
    if not recurrent_layers(cache):
        raise ValueError(
            f"{type(model).__name__} is a plain transformer without recurrent states; give a hybrid or Mamba-2 model "
            "such as nano or ibm-granite/granite-4.0-h-350m"
        )
    return cache


def any_cache(model: PreTrainedModel) -> DynamicCache:
    """A cache that has read nothing, of a plain transformer, too.

    Raises ValueError for a model with states that cannot be moved between caches.
    """
    cache = DynamicCache(config=model.config)
    name = type(model).__name__
    for i, layer in enumerate(cache.layers):
        if isinstance(layer, DynamicSlidingWindowLayer) or getattr(layer, "number_of_states", 1) != 1:
            raise ValueError(
                f"layer {i} of {name} keeps its state as {type(layer).__name__}, which is not supported; expected full "
                "attention and one recurrent state in each recurrent layer"
            )
    return cache


def fill_cache(model: PreTrainedModel, layers: Sequence[LayerState]) -> DynamicCache:
    """A new cache on the model's device with copies of the layers' states; gradients pass through the copies.

    Raises ValueError for a model with another number of layers, and as ``any_cache``.
    """
    cache, device, dtype = any_cache(model), model.device, model.dtype
    if len(cache.layers) != len(layers):
        raise ValueError(f"these are states of {len(layers)} layers, the model has {len(cache.layers)}")
    for i, layer in enumerate(layers):
        # The model's own order: the conv state marks the layer as begun. Both updates copy what they get.
        if layer.conv is not None:
            cache.update_conv_state(layer.conv.to(device, dtype), i)
        if layer.recurrent is not None:
            cache.update_recurrent_state(layer.recurrent.to(device), i)
        if layer.keys is not None and layer.values is not None:
            cache.update(*(part.to(device, dtype) for part in (layer.keys, layer.values)), i)
    return cache


def layer_states(cache: Cache) -> tuple[LayerState, ...]:
    """The states of every layer, not copied."""
    layers: list[dict[str, Tensor | None]] = [{} for _ in cache.layers]
    for i in recurrent_layers(cache):
        layers[i] |= {"recurrent": cache.get_recurrent_state(i), "conv": cache.get_conv_state(i)}
    for i, layer in enumerate(cache.layers):
        if isinstance(layer, DynamicLayer):
            layers[i] |= {"keys": layer.keys, "values": layer.values}
    return tuple(LayerState(**parts) for parts in layers)


def cache_name(model: PreTrainedModel) -> str:
    """The argument by which the model takes a cache: models without attention call it ``cache_params``."""
    return _cache_name(type(model))


@lru_cache
def _cache_name(kind: type[PreTrainedModel]) -> str:
    return "cache_params" if "cache_params" in inspect.signature(kind.forward).parameters else "past_key_values"


def inputs(model: PreTrainedModel, cache: Cache, tokens: Tensor, mask: Tensor) -> dict[str, Any]:
    """Arguments with which ``model.generate`` writes behind tokens (B, L+1) of which a cache has read all but the last.

    Args: mask: (B, L+1), False at left padding.
    """
    tokens, mask = tokens.to(model.device), mask.long().to(model.device)
    if cache_name(model) == "cache_params":
        return {"input_ids": tokens[:, -1:], "attention_mask": mask[:, -1:], "cache_params": cache}
    return {"input_ids": tokens, "attention_mask": mask, "past_key_values": cache}


def recurrent_layers(cache: Cache) -> list[int]:
    return [i for i, layer in enumerate(cache.layers) if isinstance(layer, LinearAttentionCacheLayerMixin)]


def get_part(cache: Cache, part: str, layer: int) -> Tensor | None:
    """The ``recurrent`` or ``conv`` state of a layer or its attention ``values``; None where it has read nothing yet.

    Raises ValueError for a layer without such a part.
    """
    try:
        if part == "values":
            return cache.layers[layer].values
        return cache.get_recurrent_state(layer) if part == "recurrent" else cache.get_conv_state(layer)
    except (ValueError, IndexError, AttributeError) as error:
        name = {"recurrent": "recurrent state", "conv": "conv state", "values": "attention values"}[part]
        raise ValueError(f"layer {layer} has no {name}; `gssr inspect` lists what each layer has") from error


def put_part(cache: Cache, part: str, layer: int, tensor: Tensor) -> None:
    """Replace what ``get_part`` gives by a tensor of the same shape and type."""
    if part == "values":
        cache.layers[layer].values = tensor
    elif part == "recurrent":
        cache.update_recurrent_state(tensor, layer)
    else:
        cache.update_conv_state(tensor, layer)
