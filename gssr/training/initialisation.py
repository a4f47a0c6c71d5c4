"""Initial weights of Mamba-2 layers from which recurrent states learn to recall.

transformers begins with ``dt_bias = 1`` and ``A = 1 … M``: every head forgets within a token or two, and training does
not leave this. In Mamba-2's own start (step sizes 1e-3 to 0.1) heads with long half-lives write with a weight as small
as dt. Here dt is log 2 in every head, and A alone decides how long a head remembers; C begins equal to B (both after
Trockman et al. 2024, "Mimetic initialization helps state space models learn to recall", section 3). The convolution
begins as the identity, but for B, which it takes from the token before. Each layer thus begins as an induction head:
where a token comes again, its state answers with what followed. ``benchmarks.memory_start`` compares the parts.

Shapes: M heads, N state dimensions, G groups of B and C, I inner width.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

LONGEST = 2000.0  # tokens; half-lives are log-uniform from 1
NOISE = 0.1  # what is left of the convolution's random weights


@torch.no_grad()
def initialise_mamba(model: nn.Module, layers: Iterable[int] | None = None, std: float | None = None) -> None:
    """Begin Mamba-2 layers as memories; gate, x and the output projection stay.

    Args:
        layers: places among the Mamba-2 layers, from 0; all by default.
        std: draw B, C and dt anew with it, for a model whose weights are trained. They stay by default.

    Raises ValueError for a model without a Mamba-2 layer, or without one of these layers.
    """
    found = mamba_layers(model)
    chosen = range(len(found)) if layers is None else list(layers)
    if wrong := [i for i in chosen if not 0 <= i < len(found)]:
        raise ValueError(f"layers {wrong} do not exist; the model has {len(found)} Mamba-2 layers, counted from 0")
    for i in chosen:
        layer = found[i]
        heads, inner, width = len(layer.dt_bias), layer.intermediate_size, layer.n_groups * layer.ssm_state_size
        # Evenly spaced, so that a layer of few heads has long and short ones alike.
        place = (torch.randperm(heads, device=layer.A_log.device) + 0.5) / heads
        layer.A_log.copy_(-place * math.log(LONGEST))
        layer.dt_bias.zero_()
        layer.D.fill_(1.0)
        # Rows of the projection: gate I, x I, B G·N, C G·N, dt M. Channels of the convolution: x, B, C.
        projection, taps = layer.in_proj.weight, layer.conv1d.weight
        if std is not None:
            projection[2 * inner :].normal_(std=std)
            nn.init.kaiming_uniform_(taps, a=math.sqrt(5))
            if layer.conv1d.bias is not None:
                layer.conv1d.bias.zero_()
        b, c = 2 * inner, 2 * inner + width
        projection[c : c + width] = projection[b:c]
        taps.mul_(NOISE)
        taps[:inner, 0, -1] += 1
        taps[inner : inner + width, 0, -2] += 1
        taps[inner + width :, 0, -1] += 1


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
