"""Put this package's formulations in place of the torch path of a transformers modeling module."""

import inspect
import warnings
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from gssr.backbone.conv import causal_conv, causal_conv_step
from gssr.backbone.decoding import one_step
from gssr.backbone.scan import chunk_scan

REPLACED = {
    "mamba2_chunk_scan": chunk_scan,
    "mamba2_selective_state_update": one_step,
    "causal_conv1d_fn": causal_conv,
    "causal_conv1d_update": causal_conv_step,
}
# Functions that read a single token. The library's overwrite states that the backward pass needs, on every device.
STEPS = ("mamba2_selective_state_update", "causal_conv1d_update")


def accelerate_on_cpu(modeling: ModuleType) -> None:
    """Replace functions of a transformers modeling module: all of them on the CPU, elsewhere steps with gradients.

    A module without a Mamba-2 scan stays as it is. So does a function with other parameters than expected; a warning
    names it.
    """
    if not hasattr(modeling, "mamba2_chunk_scan"):
        return
    for name, fast in REPLACED.items():
        library = getattr(modeling, name, None)
        if getattr(library, "gssr_on_cpu", False):
            continue
        if library is None or not _same_call(fast, library):
            warnings.warn(
                f"{modeling.__name__}.{name} has changed in this version of transformers; its own, slower path is used",
                stacklevel=2,
            )
        else:
            setattr(modeling, name, _dispatch(fast, library, name in STEPS))


def _same_call(fast: Callable[..., object], library: Callable[..., object]) -> bool:
    """The library's parameters are among those of the CPU formulation, in the same order."""
    wanted = list(inspect.signature(inspect.unwrap(library)).parameters)
    return [name for name in inspect.signature(fast).parameters if name in wanted] == wanted


def _dispatch(fast: Callable[..., object], library: Callable[..., object], is_step: bool) -> Callable[..., object]:
    def dispatch(*args: Tensor, **kwargs: object) -> object:
        first = args[0] if args else next(iter(kwargs.values()))
        on_cpu = first.device.type == "cpu"
        needs_gradient = torch.is_grad_enabled() and any(
            isinstance(x, Tensor) and x.requires_grad for x in (*args, *kwargs.values())
        )
        return (fast if on_cpu or (is_step and needs_gradient) else library)(*args, **kwargs)

    dispatch.__wrapped__ = library  # type: ignore[attr-defined]
    dispatch.gssr_on_cpu = True  # type: ignore[attr-defined]
    return dispatch
