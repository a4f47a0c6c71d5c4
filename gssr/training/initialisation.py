"""Initial decays of Mamba-2 layers, from which a model learns to remember.

transformers begins with ``dt_bias = 1`` and ``A = 1 … M``: every head forgets within a token or two, and training does
not leave this. Mamba-2 begins with step sizes between 1e-3 and 0.1: heads forget within a token or within hundreds.

Shapes: M heads.
"""

import math

import torch
from torch import Tensor, nn

STEPS = 1e-3, 1e-1  # dt behind softplus, log-uniform
RATES = 1.0, 16.0  # A, uniform


@torch.no_grad()
def initialise_mamba(model: nn.Module) -> None:
    """Draw ``dt_bias``, ``A_log`` and ``D`` of every Mamba-2 layer as Dao & Gu 2024 do; other parameters stay.

    Raises ValueError for a model without a Mamba-2 layer.
    """
    for layer in mamba_layers(model):
        low, high = map(math.log, STEPS)
        dt = torch.empty_like(layer.dt_bias).uniform_(low, high).exp()
        layer.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        layer.A_log.copy_(torch.empty_like(layer.A_log).uniform_(*RATES).log())
        layer.D.fill_(1.0)


@torch.no_grad()
def half_lives(model: nn.Module) -> dict[str, Tensor]:
    """Tokens in which half of a head's state decays where its input adds nothing to ``dt_bias``, (M) by layer name.

    Raises ValueError for a model without a Mamba-2 layer.
    """
    return {
        name: math.log(2) / (nn.functional.softplus(layer.dt_bias.float()) * layer.A_log.float().exp())
        for name, layer in _named(model)
    }


def mamba_layers(model: nn.Module) -> list[nn.Module]:
    return [layer for _, layer in _named(model)]


def _named(model: nn.Module) -> list[tuple[str, nn.Module]]:
    wanted = ("dt_bias", "A_log", "D")
    found = [(name, module) for name, module in model.named_modules() if all(hasattr(module, w) for w in wanted)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no Mamba-2 layer (a module with {', '.join(wanted)})")
    return found
