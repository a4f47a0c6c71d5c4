"""Drafters for speculative decoding: what followed before, and a small network that predicts final hidden states.

Shapes: B rows, L tokens, k drafted tokens, E backbone width, S width of the network, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.backbone import FrozenBackbone
from gssr.search.decoding.rows import Decoding
from gssr.search.decoding.saved import Kind, whole
from gssr.search.decoding.speculative import Draft


class NGramDrafter:
    """What followed the last tokens when they last came in the text; nothing where they did not.

    Args:
        longest: tokens that are looked for; fewer, down to two, where so many did not come before.
    """

    def __init__(self, vocabulary: int, longest: int = 4) -> None:
        self.vocabulary, self.longest = vocabulary, longest

    def draft(
        self, tokens: Sequence[int], hidden: Tensor, count: int, decoding: Decoding, generator: torch.Generator
    ) -> Draft:
        text = list(tokens)
        for n in range(self.longest, 1, -1):
            last = text[-n:]
            for begin in range(len(text) - n - 1, -1, -1):
                if text[begin : begin + n] == last:
                    found = torch.tensor(text[begin + n : begin + n + count], dtype=torch.long, device=hidden.device)
                    return Draft(found, F.one_hot(found, self.vocabulary).float())
        return Draft(torch.empty(0, dtype=torch.long), torch.empty(0, self.vocabulary))


class HiddenDrafter(nn.Module):
    """A GRU that goes on from a final hidden state: it predicts the next ones from the tokens that are drafted.

    Args:
        width: S.
    """

    def __init__(self, hidden_size: int, width: int = 256) -> None:
        super().__init__()
        self.hidden_size, self.width = hidden_size, width
        self.into = nn.Sequential(nn.Linear(hidden_size, width), nn.Tanh())
        self.cell = nn.GRUCell(hidden_size, width)
        self.out = nn.Linear(width, hidden_size)
        self.backbone: FrozenBackbone | None = None

    def bind(self, backbone: FrozenBackbone) -> HiddenDrafter:
        """Use this model's embeddings and head."""
        object.__setattr__(self, "backbone", backbone)
        return self

    def start(self, hidden: Tensor) -> Tensor:
        """State (B, S) from hidden states (B, E)."""
        return self.into(hidden.float() / _size(hidden))

    def forward(self, state: Tensor, hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The next state (B, S), and the hidden state (B, E) behind tokens (B,) that follow ``hidden`` (B, E)."""
        assert self.backbone is not None
        embedded = self.backbone.embed(tokens).float() / self.backbone.embedding_scale
        state = self.cell(embedded, state)
        return state, hidden.float() + _size(hidden) * self.out(state)

    @torch.no_grad()
    def draft(
        self, tokens: Sequence[int], hidden: Tensor, count: int, decoding: Decoding, generator: torch.Generator
    ) -> Draft:
        assert self.backbone is not None
        token, hidden = torch.tensor(tokens[-1:], device=hidden.device), hidden[None]
        state, found, probs = self.start(hidden), [], []
        for _ in range(count):
            state, hidden = self(state, hidden, token)
            own = decoding.log_probs(self.backbone.logits(hidden)).exp()
            token = own.argmax(-1) if decoding.temperature == 0 else torch.multinomial(own, 1, generator=generator)[0]
            found.append(token)
            probs.append(own[0])
        if not found:
            return Draft(torch.empty(0, dtype=torch.long), torch.empty(0, len(self.backbone.table.weight)))
        return Draft(torch.cat(found), torch.stack(probs))

    def save(self, path: Path, backbone: FrozenBackbone) -> None:
        """Write a safetensors file with the model's fingerprint. Raises ValueError if that fails."""
        KIND.save(path, self, backbone, {"width": str(self.width)})

    @classmethod
    def load(cls, path: Path, backbone: FrozenBackbone) -> HiddenDrafter:
        """Raises ValueError for a file that is damaged, of another kind, or of another model."""
        return KIND.load(path, backbone).bind(backbone)


def _of_strings(backbone: FrozenBackbone, about: Mapping[str, str]) -> HiddenDrafter:
    return HiddenDrafter(backbone.hidden_size, whole(about.get("width", ""), "width"))


KIND = Kind("gssr draft 1", "drafts for", "configs/draft.yaml", _of_strings)


def _size(hidden: Tensor) -> Tensor:
    """Root mean square (B, 1): hidden states are of any scale, what is learned is not."""
    return hidden.detach().float().square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)
