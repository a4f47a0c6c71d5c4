"""Shared by the modules: the multilayer perceptron of all heads, and the scale of single parameters."""

from torch import nn

# Adam moves a parameter by about the learning rate, whatever its gradient; a single number needs larger steps.
SCALE = 10.0


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, LayerNorm, SiLU, Linear: (…, inputs) to (…, outputs)."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.SiLU(), nn.Linear(hidden, outputs))
