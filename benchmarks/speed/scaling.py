"""Growth of cost: fitted slopes on log axes, and memory over the vocabulary."""

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from transformers import GraniteMoeHybridForCausalLM

from benchmarks.speed.measure import interleaved, median, peak_memory, slope
from benchmarks.speed.work import network_and_batch, text_call
from gssr.training.architectures import nano_config

IMAGE = Path(__file__).parents[2] / "docs" / "images" / "speed.png"


def model(vocabulary: int = 4096, width: int = 192) -> GraniteMoeHybridForCausalLM:
    torch.manual_seed(0)
    return GraniteMoeHybridForCausalLM(nano_config(vocabulary, width, 8)).eval().requires_grad_(False)


def scaling(quick: bool) -> dict[str, Any]:
    """Seconds of text likelihood (over B, L, V, weights) and of filtering (over T), forward and backward."""
    nano = model()
    network, batch = network_and_batch(16)
    world, latent_dim = network.world, network.world.config.latent_dim
    length = batch.value.shape[1]

    def belief(steps: int) -> None:
        noise = torch.zeros(16, steps, latent_dim)
        repeated = [part.repeat(1, -(-steps // length), *[1] * (part.ndim - 2))[:, :steps] for part in (value, mask)]
        text = torch.zeros(16, steps, latent_dim)
        found = world.rssm.observe(*repeated, text, torch.zeros(16, steps, dtype=torch.bool), noise)
        found.belief.x.square().sum().backward()

    value, mask = world.scaled_values(batch), batch.value_mask
    widths = (96, 192) if quick else (96, 192, 384)
    models = {width: model(width=width) for width in widths}
    weights = {width: sum(p.numel() for p in models[width].parameters()) for width in widths}
    sweeps = {
        "B": {size: text_call(nano, size, 48, "ours") for size in (4, 16, 64)},
        "T": {steps: (lambda steps=steps: belief(steps)) for steps in (16, 64, 256, 512)},
        "L": {length: text_call(nano, 8, length, "ours") for length in (32, 64, 128, 256, 512)},
        "V": {v: text_call(model(v), 4, 48, "ours") for v in (2048, 8192, 32768)},
        "weights": {weights[width]: text_call(models[width], 8, 48, "ours") for width in widths},
    }
    rows, points = [], {}
    for letter, calls in sweeps.items():
        times = interleaved({str(size): call for size, call in calls.items()}, 2 if quick else 5)
        points[letter] = {int(size): median(found) for size, found in times.items()}
        exponent = slope(list(points[letter]), list(points[letter].values()))
        rows.append({"over": letter, "from": min(points[letter]), "to": max(points[letter]), "slope": exponent})
    if not quick:
        draw(points)
    return {"rows": rows, "seconds": points}


def draw(points: dict[str, dict[int, float]]) -> None:
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    for axes, (letter, found) in zip(figure.subplots(1, len(points)), points.items(), strict=True):
        axes.loglog(list(found), list(found.values()), "o-")
        axes.set_xlabel(letter)
        axes.set_title(f"slope {slope(list(found), list(found.values())):.2f}")
    figure.axes[0].set_ylabel("seconds")
    IMAGE.parent.mkdir(exist_ok=True)
    figure.savefig(IMAGE, dpi=120)


def memory(quick: bool) -> dict[str, Any]:
    """Peak memory of the cross-entropy in MiB, without its weights, over rows at a large vocabulary."""
    sizes = (
        ((100_352, 256), (100_352, 2048))
        if quick
        else ((100_352, 256), (100_352, 1024), (100_352, 4096), (100_352, 16_384))
    )
    rows = []
    for vocabulary, count in sizes:
        peak = peak_memory("head", vocabulary, count)
        rows.append({"V": vocabulary, "rows": count, "peak MiB": peak, "V × rows MiB": vocabulary * count * 4 / 2**20})
    return {"rows": rows}
