"""The head that reads what a typed goal means from the frozen model's token states.

Of each number, range and factor that a sentence mentions it tells which bound it is, of the level or its change,
whether it is negated, when it holds, and which mentions name its value and its time. Sizes are never learned: they
were found exactly (`gssr.understanding.mentions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.backbone import FrozenBackbone
from gssr.backbone.frozen import side_by_side
from gssr.understanding.mentions import KINDS as MENTIONS
from gssr.understanding.mentions import SUBJECTS, TIMES, VALUES
from gssr.understanding.writing import BASES, BOUNDS, KINDS, WHENS

WIDTH, LAYERS, HEADS, DROPOUT = 96, 2, 4, 0.15
LAYER = 3  # of the frozen model
ENDS = ("about", "at")


class Read(NamedTuple):
    """Sentences as the head sees them: states (N, L, E), mask (N, L) and marks (N, L), the kind of mention at a token
    and 0 elsewhere; of their M mentions kinds (N, M), -1 where there is none, and spans (N, M, L), weights that sum to
    1. Mention 0 is the sentence itself.
    """

    states: Tensor
    mask: Tensor
    marks: Tensor
    kinds: Tensor
    spans: Tensor


class Answers(NamedTuple):
    """Logits: kind of the sentence (N, 3), either (N), and by mention bound (N, M, 8), basis (N, M, 3), negated (N, M),
    when (N, M, 3); about and at (N, M, M), where mention 0 stands for none.
    """

    kind: Tensor
    either: Tensor
    bound: Tensor
    basis: Tensor
    negated: Tensor
    when: Tensor
    about: Tensor
    at: Tensor


class Head(nn.Module):
    """Args: width: E of the token states."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, WIDTH)
        self.marks = nn.Embedding(len(MENTIONS) + 1, WIDTH)
        self.place = nn.Embedding(128, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 2 * WIDTH, DROPOUT, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.kind = nn.Linear(WIDTH, len(KINDS))
        self.either = nn.Linear(WIDTH, 1)
        self.own = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.GELU(), nn.LayerNorm(WIDTH))
        self.bound = nn.Linear(WIDTH, len(BOUNDS))
        self.basis = nn.Linear(WIDTH, len(BASES))
        self.negated = nn.Linear(WIDTH, 1)
        self.when = nn.Linear(WIDTH, len(WHENS))
        self.asks = nn.ModuleDict({end: nn.Linear(WIDTH, WIDTH) for end in ENDS})
        self.answers = nn.ModuleDict({end: nn.Linear(WIDTH, WIDTH) for end in ENDS})

    def forward(self, read: Read) -> Answers:
        places = torch.arange(read.states.shape[1], device=read.states.device).clamp(max=127)
        hidden = self.into(self.norm(read.states)) + self.marks(read.marks) + self.place(places)
        hidden = self.encoder(hidden, src_key_padding_mask=~read.mask)
        mean = (hidden * read.mask[..., None]).sum(1) / read.mask.sum(1, keepdim=True)
        own = read.spans @ hidden
        own = self.own(torch.cat([own, mean[:, None].expand_as(own)], -1))
        points = {
            end: (self.asks[end](own) @ self.answers[end](own).mT / WIDTH**0.5).masked_fill(~allowed[:, None], -1e9)
            for end, allowed in zip(ENDS, (_are(read.kinds, SUBJECTS), _are(read.kinds, TIMES)), strict=True)
        }
        return Answers(
            self.kind(mean),
            self.either(mean)[:, 0],
            self.bound(own),
            self.basis(own),
            self.negated(own)[..., 0],
            self.when(own),
            points["about"],
            points["at"],
        )


def _are(kinds: Tensor, which: Sequence[str]) -> Tensor:
    """Mentions (N, M) of some kinds, and the sentence itself, which stands for none of them."""
    found = torch.isin(kinds, torch.tensor([MENTIONS.index(kind) + 1 for kind in which], device=kinds.device))
    found[:, 0] = True
    return found


def asked(kinds: Tensor) -> Tensor:
    """Mentions (N, M) that may be values, with the sentence itself."""
    return _are(kinds, VALUES)


def read(
    backbone: FrozenBackbone, sentences: Sequence[tuple[str, Sequence[tuple[str, int, int]]]], layer: int = LAYER
) -> Read:
    """What the head sees of sentences, each with its mentions: kind and place in the text."""
    states, mask = side_by_side([s.float() for s in backbone.read([text for text, _ in sentences], layer)])
    offsets = backbone.tokenizer(
        [text for text, _ in sentences], add_special_tokens=False, return_offsets_mapping=True
    )["offset_mapping"]
    return placed(states, mask, offsets, [found for _, found in sentences])


def placed(
    states: Tensor,
    mask: Tensor,
    offsets: Sequence[Sequence[tuple[int, int]]],
    mentions: Sequence[Sequence[tuple[str, int, int]]],
) -> Read:
    """States with the places of mentions, from where tokens start and end in the texts."""
    most = 1 + max(map(len, mentions), default=0)
    marks = torch.zeros(states.shape[:2], dtype=torch.long)
    kinds = torch.full((len(states), most), -1)
    spans = torch.zeros(len(states), most, states.shape[1])
    kinds[:, 0], spans[:, 0] = 0, (mask / mask.sum(1, keepdim=True)).cpu()
    for row, (of_text, found) in enumerate(zip(offsets, mentions, strict=True)):
        for m, (kind, start, end) in enumerate(found, 1):
            tokens = [t for t, (a, b) in enumerate(of_text) if a < end and b > start and b > a]
            kinds[row, m] = MENTIONS.index(kind) + 1
            if tokens:
                marks[row, tokens] = kinds[row, m]
                spans[row, m, tokens] = 1 / len(tokens)
    device = states.device
    return Read(states, mask, marks.to(device), kinds.to(device), spans.to(device))


def loss(answers: Answers, kinds: Tensor, truth: dict[str, Tensor]) -> Tensor:
    """Cross-entropies of all answers; those of a mention count where it is a value.

    Args:
        truth: the answers by name, as indices; for about and at (N, M, M) True where a mention is one that is meant.
    """
    total = F.cross_entropy(answers.kind, truth["kind"])
    goals = truth["kind"] == 0
    if goals.any():
        total = total + 0.5 * F.binary_cross_entropy_with_logits(answers.either[goals], truth["either"][goals])
    asked_for = asked(kinds)
    total = total + F.cross_entropy(answers.bound[asked_for], truth["bound"][asked_for])
    used = asked_for & (truth["bound"] > 0)
    if used.any():
        for name in ("basis", "when"):
            total = total + F.cross_entropy(getattr(answers, name)[used], truth[name][used])
        total = total + F.binary_cross_entropy_with_logits(answers.negated[used], truth["negated"][used])
        for end in ENDS:
            log_p = getattr(answers, end)[used].log_softmax(-1)
            total = total - log_p.masked_fill(~truth[end][used], -torch.inf).logsumexp(-1).mean()
    return total
