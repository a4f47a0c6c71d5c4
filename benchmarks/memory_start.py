"""Which initial weights of Mamba-2 layers learn to recall: two layers without attention, repeats of random tokens.

    python -m benchmarks.memory_start                       # seven starts, two seeds; ten minutes on one core
    python -m benchmarks.memory_start --starts transformers memory --steps 1000

Each row repeats 8 to 64 random tokens of 62. Only what can be known counts; not knowing costs log 62 = 4.13 nats.
Everything but the start is the same: seed, rows, optimizer, steps. Half-lives, C = B and the convolution are the three
parts of the start ``memory``, which is ``gssr.training.initialisation``.
"""

import argparse
import math
import sys
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from transformers import GraniteMoeHybridForCausalLM

from gssr.backbone.accelerate import accelerate_on_cpu
from gssr.backbone.cpu import prepare_cpu
from gssr.training.architectures import nano_config
from gssr.training.initialisation import half_lives, initialise_mamba, mamba_layers
from gssr.training.objectives import WeightedTokens
from gssr.training.optimizers import MuonAdamWConfig

TOKENS, LENGTH, ROWS, LONGEST, LAST = 64, 256, 8, 64, 50


@torch.no_grad()
def mamba2(model: nn.Module) -> None:
    """Dao & Gu 2024: dt log-uniform in 1e-3 … 0.1, A uniform in 1 … 16."""
    for layer in mamba_layers(model):
        dt = torch.empty_like(layer.dt_bias).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        layer.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        layer.A_log.copy_(torch.empty_like(layer.A_log).uniform_(1, 16).log())


PARTS = {"half-lives": ("A_log", "dt_bias"), "C = B": ("in_proj",), "convolution": ("conv1d",)}


def parts(*kept: str) -> Callable[[nn.Module], None]:
    """The start ``memory`` with some of its parts only."""

    @torch.no_grad()
    def start(model: nn.Module) -> None:
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        initialise_mamba(model)
        for part, names in PARTS.items():
            for name, weight in model.state_dict().items():
                if part not in kept and any(wanted in name for wanted in names):
                    weight.copy_(before[name])

    return start


STARTS: dict[str, Callable[[nn.Module], None]] = {
    "transformers": lambda model: None,
    "mamba2": mamba2,
    "half-lives": parts("half-lives"),
    "half-lives, C = B": parts("half-lives", "C = B"),
    "half-lives, convolution": parts("half-lives", "convolution"),
    "C = B, convolution": parts("C = B", "convolution"),
    "memory": initialise_mamba,
}


def batch(g: np.random.Generator) -> dict[str, Tensor]:
    tokens, weights = [], []
    for _ in range(ROWS):
        size = int(np.exp(g.uniform(np.log(8), np.log(LONGEST + 1))))
        tokens.append(np.tile(g.integers(2, TOKENS, size), LENGTH // size + 2)[: LENGTH + 1])
        # The first repetition counts: later ones can be copied from nearer.
        place = np.arange(LENGTH + 1)
        weights.append(np.where(place <= size, 0.0, np.where(place <= 2 * size, 1.0, 0.2)))
    return {"tokens": torch.tensor(np.array(tokens)), "weights": torch.tensor(np.array(weights), dtype=torch.float32)}


def train(start: str, steps: int, seed: int, rate: float = 3e-3) -> tuple[float, float]:
    """Mean nats of the last steps, and the share of heads above 100 tokens after training."""
    torch.manual_seed(seed)
    config = nano_config(TOKENS, 96, 2, 64)
    config.layer_types = ["linear_attention"] * 2
    model, g = GraniteMoeHybridForCausalLM(config), np.random.default_rng(seed)
    accelerate_on_cpu(sys.modules[type(model).__module__])
    STARTS[start](model)
    optimizer = MuonAdamWConfig(lr=rate).build(model.named_parameters())
    objective, nats = WeightedTokens(), []
    for step in track(range(steps), f"{start}, seed {seed}", console=Console(stderr=True)):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50)
        total, weight = objective(model, batch(g))
        optimizer.zero_grad()
        (total / weight).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        nats.append((total / weight).item())
    lives = torch.cat(list(half_lives(model).values()))
    return float(np.mean(nats[-LAST:])), (lives > 100).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.steps < 1 or given.threads < 1:
        parser.error("--steps and --threads must be at least 1")
    prepare_cpu()
    torch.set_num_threads(given.threads)
    table = Table("start", "nats a token (seeds)", "heads above 100 tokens")
    for start in given.starts:
        found = [train(start, given.steps, seed) for seed in given.seeds]
        table.add_row(start, " / ".join(f"{n:.2f}" for n, _ in found), " / ".join(f"{s:.0%}" for _, s in found))
    Console().print(table)


if __name__ == "__main__":
    main()
