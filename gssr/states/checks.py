"""What the states of a model must be, wherever they come from. Shapes: as in `gssr.states.hybrid_state`."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gssr.backbone.precision import DTYPES
from gssr.states.cache import ATTENTION, LayerState

# Far above the layers of any model; a file may declare what it likes.
MOST_LAYERS = 10_000
NUMBER = r"(0|[1-9][0-9]{0,3})"
NAME = re.compile(rf"layers\.{NUMBER}\.(recurrent|conv|keys|values)")


def check_consistent(layers: Sequence[LayerState], tokens: Tensor, mask: Tensor) -> None:
    """Compare shapes and types of states with those of ``tokens`` and ``mask``, both (B, L+1).

    Raises ValueError if they do not fit, no layer has a recurrent state, or the mask is no left padding.
    """
    if tokens.ndim != 2 or tokens.dtype != torch.int64 or mask.shape != tokens.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"tokens {tokens.dtype} {tuple(tokens.shape)} and mask {mask.dtype} {tuple(mask.shape)} do not fit; "
            "expected torch.int64 and torch.bool, both (B, L+1)"
        )
    if len(tokens) < 1 or tokens.shape[1] < 2:
        raise ValueError(f"tokens are {tuple(tokens.shape)}; expected (B, L+1) with B and L of at least 1")
    if not mask.is_meta:
        check_mask(mask)
    rows, length = len(tokens), tokens.shape[1] - 1
    if all(layer.recurrent is None for layer in layers):
        raise ValueError("no layer has a recurrent state")
    for i, layer in enumerate(layers):
        if (layer.keys is None) != (layer.values is None):
            raise ValueError(f"layer {i} has one of keys and values; attention needs both")
        for name, part in layer.parts():
            expected = (rows, length) if name in ATTENTION else (rows,)
            found = tuple(part.shape[d] for d in ((0, 2) if name in ATTENTION else (0,)) if d < part.ndim)
            if found != expected or part.dtype not in DTYPES.values() or (name in ATTENTION and part.ndim != 4):
                raise ValueError(
                    f"{name} of layer {i} is {part.dtype} {tuple(part.shape)}, which does not fit {rows} rows of "
                    f"{length} tokens read, in one of {', '.join(DTYPES)}"
                )


def check_mask(mask: Tensor) -> None:
    """Raises ValueError unless each row of (B, L+1) is False at padding on the left and True at two tokens or more."""
    if not mask[:, -2:].all() or (mask[:, 1:] < mask[:, :-1]).any():
        raise ValueError("the mask marks no left padding before two or more tokens; nothing else can be a state")


def check_values(layers: Sequence[LayerState], tokens: Tensor) -> None:
    """Raises ValueError for negative token ids, or states that are not finite."""
    if int(tokens.min()) < 0:
        raise ValueError(f"it holds the token id {int(tokens.min())}; expected none below 0")
    for i, layer in enumerate(layers):
        for name, part in layer.parts():
            # One infinity or NaN makes the sum one too; so do large numbers, which are looked at one by one.
            if not part.sum(dtype=torch.float32).isfinite() and not part.isfinite().all():
                raise ValueError(f"{name} of layer {i} holds numbers that are not finite; capture the state again")


def check_layout(layers: Mapping[int, LayerState], expected: Mapping[int, LayerState]) -> None:
    """Compare each layer's states with those that are expected of the layer, rows and tokens left out.

    Raises ValueError for a layer that is not expected, or one with other states or shapes.
    """
    for i, layer in layers.items():
        if i not in expected:
            raise ValueError(f"layer {i} does not exist; expected layers 0 to {len(expected) - 1}")
        shapes, wanted = ({name: _inner(name, part) for name, part in x.parts()} for x in (layer, expected[i]))
        if shapes != wanted:
            raise ValueError(f"layer {i} holds {shapes}, the model's holds {wanted}, rows and tokens left out")


def _inner(name: str, part: Tensor) -> tuple[int, ...]:
    return (part.shape[1], part.shape[3]) if name in ATTENTION and part.ndim == 4 else tuple(part.shape[1:])


def layers_of(tensors: Mapping[str, Tensor], count: str) -> tuple[LayerState, ...]:
    """Layers from tensors with names such as ``layers.4.conv``; ``count`` is their number, as a file declares it.

    Raises ValueError for other names, or a number that does not fit them.
    """
    layers: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if (found := NAME.fullmatch(name)) is None:
            raise ValueError(f"it holds {name[:40]!r}; expected names such as layers.0.recurrent")
        layers.setdefault(int(found[1]), {})[found[2]] = tensor
    if re.fullmatch(NUMBER, count) is None or max(layers, default=0) >= int(count):
        raise ValueError(f"it declares {count[:20]!r} layers; expected one for each that it holds, below {MOST_LAYERS}")
    return tuple(LayerState(**layers.get(i, {})) for i in range(int(count)))
