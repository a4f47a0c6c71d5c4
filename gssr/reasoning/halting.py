"""When to stop thinking: the chance that what would be said now is right.

Banino et al. 2021 ("PonderNet") learn a halting probability; here its label is known in training, so that the head is a
calibrated classifier and a threshold on it a risk that the user chooses.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gssr.domains import Width, checked

if TYPE_CHECKING:
    from gssr.reasoning.thinker import Step


@checked
class HaltingHead(nn.Module):
    """Log-odds (B,) that the readout of a step is right.

    Inputs are the hidden state, the entropy of what would be said, and the chance that it is what the step before would
    have said: where nothing is left to look up, steps repeat themselves.

    Args:
        width: E. hidden: width of the hidden layer.
    """

    def __init__(self, width: Width, hidden: Width = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU())
        self.out = nn.Linear(hidden + 2, 1)

    def forward(self, step: "Step") -> Tensor:
        said = step.logits.detach().float().log_softmax(-1)
        entropy = -(said.exp() * said).sum(-1, keepdim=True)
        hidden = self.layers(step.hidden.detach().float())
        return self.out(torch.cat([hidden, entropy, step.again[:, None]], -1)).squeeze(-1)
