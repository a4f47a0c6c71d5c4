"""Projectors: a small network that changes what is written, so that it is found again without optimisation.

`FactProjector` takes what a text does to a state, see `gssr.control.compose`, and adds a residual bounded in norm: each
head's state goes through two small matrices, and heads are mixed. So a fact can be moved from heads that forget to
heads that keep. `TokenProjector` makes a change of the state that says a token next.

Shapes: B rows, M heads of dimension R, N state dimensions, E backbone width, k rank.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.backbone import FrozenBackbone
from gssr.control.compose import Piece, beginning, compose, piece
from gssr.control.force import After
from gssr.control.functional import Layers, asked_by, bounded, logits, mixers, read, rows
from gssr.domains import Few, Positive, Width, checked

Batch = Mapping[str, Tensor]
IGNORED = -100
LARGEST = 5_000_000  # parameters
AFTER = 10  # tokens behind a forced word that training compares


class Projector(nn.Module):
    """A network whose parameters are made for a backbone, once, by ``prepare``."""

    def prepare(self, backbone: FrozenBackbone, shapes: dict[int, tuple[int, int, int]]) -> None:
        """``shapes``: (M, R, N) of each recurrent layer."""
        raise NotImplementedError

    def judge(self, backbone: FrozenBackbone, batch: Batch) -> tuple[Tensor, Tensor]:
        """What training makes small, a scalar, and for each case whether it is right."""
        raise NotImplementedError


@checked
class FactProjector(Projector):
    """A bounded change of what a text writes, nothing at first.

    Args:
        bound: norm of the change over the norm of what is written, in each layer.
    """

    def __init__(self, bound: Positive = 2.0) -> None:
        super().__init__()
        self.bound = bound

    def prepare(self, backbone: FrozenBackbone, shapes: dict[int, tuple[int, int, int]]) -> None:
        def eyes(count: int, size: int) -> nn.Parameter:
            return nn.Parameter(torch.eye(size).repeat(count, 1, 1))

        self.left = nn.ParameterDict({str(i): eyes(m, r) for i, (m, r, _) in shapes.items()})
        self.right = nn.ParameterDict({str(i): eyes(m, n) for i, (m, _, n) in shapes.items()})
        self.mix = nn.ParameterDict({str(i): nn.Parameter(torch.zeros(m, m)) for i, (m, _, _) in shapes.items()})
        _check_size(self)

    def forward(self, piece: Piece) -> Piece:
        layers = list(piece.layers)
        for i, layer in enumerate(layers):
            if layer.recurrent is None:
                continue
            key = str(i)
            turned = self.left[key] @ layer.recurrent.float() @ self.right[key]
            change = torch.einsum("nm,bmrs->bnrs", self.mix[key], turned)
            layers[i] = replace(layer, recurrent=layer.recurrent + bounded(change, layer.recurrent, self.bound))
        return Piece(tuple(layers), piece.log_decay)

    def judge(self, backbone: FrozenBackbone, batch: Batch) -> tuple[Tensor, Tensor]:
        """Facts (B, F, L) are written one after the other; behind other text (B, L) each is asked for."""
        facts = batch["facts"]
        written = self(piece(backbone, facts.flatten(0, 1)))
        layers = beginning(backbone, len(facts))
        for k in range(facts.shape[1]):
            layers = compose(layers, part(written, slice(k, None, facts.shape[1])))
        return answered(backbone, layers, batch["other"], batch["questions"], batch["answers"])


@checked
class TokenProjector(Projector):
    """A change of rank k of each head's state, from what the model would say next and what it should say.

    Args:
        rank: k. hidden: width of the hidden layer. bound: norm of the change over the state's, in each layer.
    """

    def __init__(self, rank: Few = 1, hidden: Width = 256, bound: Positive = 0.5) -> None:
        super().__init__()
        self.rank, self.hidden, self.bound = rank, hidden, bound

    def prepare(self, backbone: FrozenBackbone, shapes: dict[int, tuple[int, int, int]]) -> None:
        self.shapes, width = shapes, backbone.hidden_size
        self.norm, self.target = nn.LayerNorm(width), nn.LayerNorm(width)
        self.body = nn.Sequential(nn.Linear(2 * width, self.hidden), nn.SiLU())
        # What is written is linear in the target's embedding, so that it reaches targets that training never had.
        self.values = nn.ModuleDict({str(i): nn.Linear(width, m * r * self.rank) for i, (m, r, _) in shapes.items()})
        self.corrections = nn.ModuleDict(
            {str(i): nn.Linear(self.hidden, m * r * self.rank) for i, (m, r, _) in shapes.items()}
        )
        self.keys = nn.ModuleDict(
            {str(i): nn.Linear(self.hidden, m * n * self.rank) for i, (m, _, n) in shapes.items()}
        )
        _check_size(self)
        self._begin(backbone)

    @torch.no_grad()
    def _begin(self, backbone: FrozenBackbone) -> None:
        """Values begin as those that a layer's output projection turns into the target's embedding."""
        found = mixers(backbone)
        for i, (m, r, _) in self.shapes.items():
            weight = self.values[str(i)].weight.view(m * r, self.rank, -1)
            size = weight[:, 0].norm()
            weight[:, 0] = F.normalize(found[i].out_proj.weight.float().T, dim=(0, 1)) * size
            nn.init.zeros_(self.corrections[str(i)].weight)

    def forward(self, layers: Layers, hidden: Tensor, asked: dict[int, Tensor], target: Tensor) -> Layers:
        """States with the change.

        Args:
            hidden: (B, E) behind the token that is read next, without the change. asked: what that token asks each
                layer's state, see ``asked_by``. target: embeddings (B, E).
        """
        hidden, target = self.norm(hidden.float()), self.target(target.float())
        body, found = self.body(torch.cat([hidden, target], -1)), list(layers)
        for i, (m, r, n) in self.shapes.items():
            values = (self.values[str(i)](target) + self.corrections[str(i)](body)).view(-1, m, r, self.rank)
            # Along what is asked, so that the change is read now, and little by tokens that ask otherwise.
            keys = self.keys[str(i)](body).view(-1, m, n, self.rank)
            keys = keys + F.normalize(asked[i], dim=-1)[..., None] * n**0.5
            state = found[i].recurrent
            # At the scale of the state, which differs between layers.
            scale = state.detach().flatten(1).norm(dim=1).div((m * r * n) ** 0.5).view(-1, 1, 1, 1)
            change = bounded(scale * (values @ keys.transpose(-1, -2)), state, self.bound)
            found[i] = replace(found[i], recurrent=state + change)
        return tuple(found)

    def change(self, backbone: FrozenBackbone, layers: Layers, last: Tensor, target: Tensor) -> Layers:
        """States with the change that says ``target`` (B,) behind one more token ``last`` (B,)."""
        with torch.no_grad():
            hidden, after = read(backbone, layers, last[:, None])
            asked = asked_by(backbone, after)
        return self(layers, hidden[:, -1], asked, backbone.embed(target))

    def judge(self, backbone: FrozenBackbone, batch: Batch) -> tuple[Tensor, Tensor]:
        """A word (B,) is said behind a text (B, L), and what follows stays as it would be."""
        prompt, target = batch["prompt"], batch["target"]
        with torch.no_grad():
            layers = read(backbone, None, prompt[:, :-1]).layers
        behind = After(backbone, layers, prompt[:, -1], target[:, None], AFTER)
        nats, kl, said = behind.measure(self.change(backbone, layers, prompt[:, -1], target))
        return (nats + kl * AFTER**0.5).mean(), said[:, 0] == target


def part(piece: Piece, index: slice) -> Piece:
    """Some rows of a piece."""
    return Piece(rows(piece.layers, index), {i: decay[index] for i, decay in piece.log_decay.items()})


def answered(
    backbone: FrozenBackbone, layers: Layers, other: Tensor, questions: Tensor, answers: Tensor
) -> tuple[Tensor, Tensor]:
    """Nats of a token of the answers, a scalar, and (B, F), True where all tokens of an answer are the likeliest.

    Args:
        layers: of B rows. other: (B, L), read first. questions: (B, F, L), each asked of the same state. answers:
            (B, F, A), ``IGNORED`` behind their ends.
    """
    if other.shape[1]:
        layers = read(backbone, layers, other).layers
    count, asked = questions.shape[1], questions.flatten(0, 1)
    each = rows(layers, torch.arange(len(questions), device=asked.device).repeat_interleave(count))
    wanted = answers.flatten(0, 1)
    said = logits(backbone, each, torch.cat([asked, wanted[:, :-1].clamp(min=0)], 1))[:, asked.shape[1] - 1 :]
    nats = F.cross_entropy(said.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)
    right = ((said.argmax(-1) == wanted) | (wanted == IGNORED)).all(1)
    return nats, right.view(-1, count)


def shapes_of(layers: Layers) -> dict[int, tuple[int, int, int]]:
    """(M, R, N) of each recurrent layer of some states."""
    return {i: tuple(x.recurrent.shape[1:]) for i, x in enumerate(layers) if x.recurrent is not None}


def _check_size(projector: nn.Module) -> None:
    size = sum(parameter.numel() for parameter in projector.parameters())
    if size > LARGEST:
        raise ValueError(
            f"the projector would have {size:,} parameters; expected at most {LARGEST:,}; choose a lower rank"
        )
