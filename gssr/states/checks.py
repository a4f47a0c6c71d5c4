"""Whether states from a file fit themselves and a model; a file may claim anything."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gssr.states.cache import ATTENTION, LayerState


def check_consistent(layers: Sequence[LayerState], tokens: Tensor, mask: Tensor) -> None:
    """Compare shapes and types of states with those of ``tokens`` and ``mask``, both (B, L+1).

    Raises:
        ValueError: they do not fit, or no layer has a recurrent state.
    """
    if tokens.ndim != 2 or tokens.dtype != torch.int64 or mask.shape != tokens.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"tokens {tokens.dtype} {tuple(tokens.shape)} and mask {mask.dtype} {tuple(mask.shape)} do not fit; "
            "expected torch.int64 and torch.bool, both (B, L+1)"
        )
    rows, length = len(tokens), tokens.shape[1] - 1
    if all(layer.recurrent is None for layer in layers):
        raise ValueError("no layer has a recurrent state")
    for i, layer in enumerate(layers):
        for name, part in layer.parts():
            expected = (rows, length) if name in ATTENTION else (rows,)
            found = tuple(part.shape[d] for d in ((0, 2) if name in ATTENTION else (0,)) if d < part.ndim)
            if found != expected or not part.is_floating_point():
                raise ValueError(
                    f"{name} of layer {i} is {part.dtype} {tuple(part.shape)}, which does not fit {rows} rows of "
                    f"{length} tokens read"
                )


def check_layout(layers: Sequence[LayerState], model: Sequence[LayerState]) -> None:
    """Compare each layer's states with those of the model's layer, rows and tokens left out.

    Raises:
        ValueError: another number of layers, or a layer with other states or shapes.
    """
    if len(model) != len(layers):
        raise ValueError(f"it has {len(layers)} layers, the model {len(model)}")
    for i, (layer, expected) in enumerate(zip(layers, model, strict=True)):
        shapes, wanted = ({name: _inner(name, part) for name, part in x.parts()} for x in (layer, expected))
        if shapes != wanted:
            raise ValueError(f"layer {i} holds {shapes}, the model's holds {wanted}, rows and tokens left out")


def _inner(name: str, part: Tensor) -> tuple[int, ...]:
    return (part.shape[1], part.shape[3]) if name in ATTENTION and part.ndim == 4 else tuple(part.shape[1:])
