"""What modules share: the one multilayer perceptron of all heads, and the scale of parameters that no layer holds."""

from torch import nn

# A step of Adam moves a parameter by its rate, whatever its gradient: a number that should move by itself needs larger steps.
SCALE = 10.0


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, LayerNorm, SiLU, Linear: (…, inputs) to (…, outputs)."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.SiLU(), nn.Linear(hidden, outputs))
