"""Shared by the modules: the multilayer perceptron of all heads, and the scale of single parameters."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import nn

Method = TypeVar("Method", bound=Callable[..., Any])

# Adam moves a parameter by about the learning rate, whatever its gradient; a single number needs larger steps.
SCALE = 10.0


def exact(method: Method) -> Method:
    """A method that computes in the precision of its tensors, also where mixed precision is on around it.

    Errors of a recurrence grow from step to step, and states that are kept must not depend on who read them first.
    """

    @wraps(method)
    def computing(self: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(self.device.type, enabled=False):
            return method(self, *args, **kwargs)

    return computing  # type: ignore[return-value]


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, LayerNorm, SiLU, Linear: (…, inputs) to (…, outputs)."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.SiLU(), nn.Linear(hidden, outputs))
