"""Read on from states as a function of them: differentiable in every part, for one token, too.

Shapes: B rows, K positions in keys and values, L new tokens, E backbone width, V vocabulary, M heads.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.backbone import FrozenBackbone
from gssr.states.advance import advance
from gssr.states.cache import LayerState, empty_cache, fill_cache, layer_states

Layers = tuple[LayerState, ...]
LogDecay = dict[int, Tensor]


class Read(NamedTuple):
    """Behind new tokens: hidden states (B, L, E), and the states of all layers."""

    hidden: Tensor
    layers: Layers


def read(backbone: FrozenBackbone, layers: Layers | None, tokens: Tensor) -> Read:
    """Read token ids (B, L) behind states, which stay as they are; None is an empty state.

    Raises ValueError as `gssr.states.advance.advance`.
    """
    model = backbone.model
    cache = empty_cache(model) if layers is None else fill_cache(model, layers)
    tokens = tokens.to(backbone.device)
    past = 0 if layers is None else max((layer.keys.shape[2] for layer in layers if layer.keys is not None), default=0)
    mask = torch.ones(len(tokens), past + tokens.shape[1], dtype=torch.bool, device=tokens.device)
    hidden, after = advance(backbone, cache, backbone.embed(tokens), mask)
    return Read(hidden, layer_states(after))


def logits(backbone: FrozenBackbone, layers: Layers | None, tokens: Tensor) -> Tensor:
    """What is said behind each of the tokens, (B, L, V) in float32; arguments as in ``read``."""
    return backbone.logits(read(backbone, layers, tokens).hidden).float()


@torch.no_grad()
def say(backbone: FrozenBackbone, layers: Layers, last: Tensor, count: int) -> Tensor:
    """The likeliest tokens (B, count) behind states and one more token ``last`` (B,) that they have not read."""
    said = []
    for _ in range(count):
        hidden, layers = read(backbone, layers, last[:, None])
        last = backbone.logits(hidden[:, -1]).argmax(-1)
        said.append(last)
    return torch.stack(said, 1)


@contextmanager
def decays(backbone: FrozenBackbone) -> Iterator[LogDecay]:
    """Inside the block, calls of the model add up log D, (B, M) for each Mamba-2 layer: what is left of its state.

    Rows are without padding. It is read off the step sizes, so that no kernel needs to hand it out.

    Raises ValueError for a layer whose step sizes cannot be read.
    """
    total: LogDecay = {}

    def reading(layer: int, mixer: nn.Module) -> object:
        def hook(_: nn.Module, __: object, projected: Tensor) -> None:
            scaled = projected * mixer.mup_vector if hasattr(mixer, "mup_vector") else projected
            dt = F.softplus(scaled[..., -len(mixer.dt_bias) :].float() + mixer.dt_bias.float())
            found = -mixer.A_log.float().exp() * dt.clamp(*getattr(mixer, "time_step_limit", (0.0, float("inf"))))
            total[layer] = total.get(layer, 0) + found.sum(1)

        return mixer.in_proj.register_forward_hook(hook)

    handles = [reading(i, mixer) for i, mixer in mixers(backbone).items()]
    try:
        yield total
    finally:
        for handle in handles:
            handle.remove()


def mixers(backbone: FrozenBackbone) -> dict[int, nn.Module]:
    """The Mamba-2 mixer of each layer that has one.

    Raises ValueError for a model without one.
    """
    found = {
        i: module
        for i, layer in enumerate(backbone.layers)
        for module in layer.modules()
        if all(hasattr(module, name) for name in ("in_proj", "dt_bias", "A_log"))
    }
    if not found:
        raise ValueError(
            f"{type(backbone.model).__name__} has no Mamba-2 layer; facts and tokens are written into those. Give a "
            "hybrid or Mamba-2 model such as nano"
        )
    return found


def asked_by(backbone: FrozenBackbone, layers: Layers) -> dict[int, Tensor]:
    """What the last token that was read asks the state of each Mamba-2 layer: C, (B, M, N) by layer.

    The conv state holds the last inputs of the convolution, of which C is the last part.
    """
    found: dict[int, Tensor] = {}
    for i, mixer in mixers(backbone).items():
        conv, weight = layers[i].conv, mixer.conv1d.weight.squeeze(1)
        mixed = (conv * weight).sum(-1) + (0 if mixer.conv1d.bias is None else mixer.conv1d.bias)
        heads, size = layers[i].recurrent.shape[1], layers[i].recurrent.shape[-1]
        groups = F.silu(mixed)[:, -mixer.n_groups * size :].float().view(len(conv), mixer.n_groups, size)
        found[i] = groups.repeat_interleave(heads // mixer.n_groups, 1)
    return found


def rows(layers: Layers, index: Sequence[int] | Tensor) -> Layers:
    """Some rows of states, in this order."""
    return tuple(layer.map(lambda part: part[index]) for layer in layers)


def bounded(change: Tensor, state: Tensor, bound: float) -> Tensor:
    """``change`` (B, …), shortened where its norm is above ``bound`` times that of ``state``."""
    size = change.flatten(1).norm(dim=1).clamp(min=1e-12)
    most = bound * state.detach().flatten(1).norm(dim=1)
    return change * (most / size).clamp(max=1.0).view(-1, *[1] * (change.ndim - 1))
