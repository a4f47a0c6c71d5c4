"""How the next thought is made of the last hidden state: strategies with one interface.

In Mamba-2 the input of a layer does not depend on the layer's own state, so more positions are no deeper computation:
constant spacers are one longer pass of fixed depth, the control. Serial depth needs a way back, from what a step would
say to what the next step reads (Hao et al. 2024, "Training large language models to reason in a continuous latent
space").

Shapes: B rows, E backbone width, V vocabulary, R rank.
"""

import torch
from torch import Tensor, nn

from gssr.backbone import FrozenBackbone
from gssr.domains import Few, Positive, checked


class Thought(nn.Module):
    """``forward`` gives the embedding (B, E) that is read next, from hidden state (B, E) and logits (B, V)."""

    def prepare(self, backbone: FrozenBackbone) -> None:
        """Make parameters that fit a backbone; called once."""

    def forward(self, hidden: Tensor, logits: Tensor, backbone: FrozenBackbone) -> Tensor:
        raise NotImplementedError


@checked
class SoftToken(Thought):
    """softmax(logits / temperature) · embeddings, plus a learned linear map of rank R of the hidden state, 0 at first.

    Args:
        rank: R; the correction has 2 · R · E parameters.
        temperature: below 1 sharpens the mixture.
    """

    def __init__(self, rank: Few = 8, temperature: Positive = 1.0) -> None:
        super().__init__()
        self.rank, self.temperature = rank, temperature

    def prepare(self, backbone: FrozenBackbone) -> None:
        width = backbone.hidden_size
        self.down = nn.Linear(width, self.rank, bias=False)
        self.up = nn.Linear(self.rank, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, hidden: Tensor, logits: Tensor, backbone: FrozenBackbone) -> Tensor:
        said = (logits / self.temperature).softmax(-1).to(backbone.table.weight.dtype) @ backbone.table.weight
        said = said.float() * backbone.embedding_factor
        return said + self.up(self.down(hidden.float())) * backbone.embedding_scale


class LinearThought(Thought):
    """A learned linear map of the hidden state, without the vocabulary in between."""

    def prepare(self, backbone: FrozenBackbone) -> None:
        self.norm = nn.LayerNorm(backbone.hidden_size)
        self.map = nn.Linear(backbone.hidden_size, backbone.hidden_size)

    def forward(self, hidden: Tensor, logits: Tensor, backbone: FrozenBackbone) -> Tensor:
        return self.map(self.norm(hidden.float())) * backbone.embedding_scale


class Spacer(Thought):
    """A learned constant: the control, which adds positions and no way back."""

    def prepare(self, backbone: FrozenBackbone) -> None:
        self.constant = nn.Parameter(torch.randn(backbone.hidden_size))

    def forward(self, hidden: Tensor, logits: Tensor, backbone: FrozenBackbone) -> Tensor:
        return (self.constant * backbone.embedding_scale).expand(len(hidden), -1)


class WrittenToken(Thought):
    """The likeliest token: a chain of thought in words, the other control. No parameter."""

    def forward(self, hidden: Tensor, logits: Tensor, backbone: FrozenBackbone) -> Tensor:
        return backbone.embed(logits.argmax(-1)).float()
