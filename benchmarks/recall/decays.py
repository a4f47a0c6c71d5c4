"""Half-lives of the heads of Mamba-2, in tokens, and a picture of them.

Shapes: M heads, L tokens.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from gssr.backbone import FrozenBackbone
from gssr.training.initialisation import half_lives

LONG = 100  # tokens


@torch.no_grad()
def measured_half_lives(backbone: FrozenBackbone, rows: Tensor) -> dict[str, Tensor]:
    """ln 2 over the mean of A · dt over all tokens of a text, (M) by layer name.

    A head keeps exp(−A dt) of its state at each token, so that the mean of A · dt decides what is left after many.

    Args:
        rows: tokens (B, L).
    """
    layers = {name: backbone.model.get_submodule(name) for name in half_lives(backbone.model)}
    sums = {name: torch.zeros(len(layer.dt_bias), dtype=torch.float64) for name, layer in layers.items()}

    def keep(name: str) -> Any:
        def hook(module: torch.nn.Module, given: Any, projected: Tensor) -> None:
            bias = layers[name].dt_bias
            # The step sizes are the last outputs of the projection.
            sums[name] += F.softplus(projected[..., -len(bias) :].float() + bias.float()).double().sum((0, 1)).cpu()

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.in_proj.register_forward_hook(keep(name)).remove)
        for row in rows.split(4):
            backbone.decoder(input_ids=row.to(backbone.device), use_cache=False)
    tokens = rows.numel()
    rates = {name: layer.A_log.double().exp().cpu() for name, layer in layers.items()}
    return {name: math.log(2) / (rates[name] * total / tokens) for name, total in sums.items()}


def decays(backbone: FrozenBackbone, rows: Tensor) -> dict[str, Any]:
    """Half-lives on a text and at the bias alone, by layer, with the share of heads above ``LONG`` tokens."""
    found = {"on text": measured_half_lives(backbone, rows), "at the bias": half_lives(backbone.model)}
    report: dict[str, Any] = {"tokens": rows.numel()}
    for way, by_layer in found.items():
        lives = torch.cat(list(by_layer.values())).double()
        report[way] = {
            "share above 100 tokens": (lives > LONG).double().mean().item(),
            "median": lives.median().item(),
            "longest": lives.max().item(),
            "layers": {
                name: [round(x, 3) for x in part.double().sort().values.tolist()] for name, part in by_layer.items()
            },
        }
    return report


def picture(reports: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Half-lives on text of every head by layer, a panel for each model by its name."""
    figure = Figure(figsize=(4.5 * len(reports), 3.4), layout="constrained")
    panels: Sequence[Any] = figure.subplots(1, len(reports), squeeze=False, sharey=True)[0]
    for axes, (name, report) in zip(panels, reports.items(), strict=True):
        layers = report["on text"]["layers"]
        for place, lives in enumerate(layers.values()):
            axes.scatter([place] * len(lives), lives, s=18, alpha=0.7, color="tab:blue")
        axes.axhline(LONG, color="black", linewidth=0.8, linestyle="--")
        share = report["on text"]["share above 100 tokens"]
        axes.set(yscale="log", xlabel="layer", title=f"{name}: {share:.0%} above {LONG} tokens")
        numbers = [next(part for part in name.split(".") if part.isdigit()) for name in layers]
        axes.set_xticks(range(len(layers)), numbers)
    panels[0].set_ylabel("half-life of a head, tokens")
    return figure
