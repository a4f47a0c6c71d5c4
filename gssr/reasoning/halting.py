"""When to stop thinking: the chance that what would be said now is right.

Banino et al. 2021 ("PonderNet") learn a halting probability; here its label is known in training, so that the head is a
calibrated classifier and a threshold on it a risk that the user chooses.
"""

import torch
from torch import Tensor, nn

from gssr.domains import Width, checked


@checked
class HaltingHead(nn.Module):
    """Log-odds (B,) that the readout is right, from the hidden state (B, E) and the logits (B, V) of a step.

    The entropy of the logits is an input beside the hidden state.

    Args:
        width: E. hidden: width of the hidden layer.
    """

    def __init__(self, width: Width, hidden: Width = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU())
        self.out = nn.Linear(hidden + 1, 1)

    def forward(self, hidden: Tensor, logits: Tensor) -> Tensor:
        said = logits.float().log_softmax(-1)
        entropy = -(said.exp() * said).sum(-1, keepdim=True)
        return self.out(torch.cat([self.layers(hidden.float()), entropy], -1)).squeeze(-1)
