"""Projectors: a small network that changes what is written, so that it is found again without optimisation.

`FactProjector` takes what a text does to a state, see `gssr.control.compose`, and adds a residual bounded in norm: each
head's state goes through two small matrices, and heads are mixed. So a fact can be moved from heads that forget to
heads that keep. `TokenProjector` makes a change of the state that says a token next.

Shapes: B rows, M heads of dimension R, N state dimensions, E backbone width, k rank.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from gssr.backbone import FrozenBackbone
from gssr.control.compose import Piece
from gssr.control.functional import Layers
from gssr.domains import Few, Positive, Width, checked

LARGEST = 5_000_000  # parameters


class Projector(nn.Module):
    """A network whose parameters are made for a backbone, once, by ``prepare``."""

    def prepare(self, backbone: FrozenBackbone, shapes: dict[int, tuple[int, int, int]]) -> None:
        """``shapes``: (M, R, N) of each recurrent layer."""
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
        self.keys = nn.ModuleDict({str(i): nn.Linear(self.hidden, m * n * self.rank) for i, (m, _, n) in shapes.items()})
        _check_size(self)

    def forward(self, layers: Layers, hidden: Tensor, target: Tensor) -> Layers:
        """States with the change.

        Args:
            hidden: (B, E) behind the token that is read next, without the change. target: embeddings (B, E).
        """
        hidden, target = self.norm(hidden.float()), self.target(target.float())
        body, found = self.body(torch.cat([hidden, target], -1)), list(layers)
        for i, (m, r, n) in self.shapes.items():
            values = self.values[str(i)](target).view(-1, m, r, self.rank)
            keys = self.keys[str(i)](body).view(-1, m, n, self.rank)
            state = found[i].recurrent
            change = bounded(values @ keys.transpose(-1, -2), state, self.bound)
            found[i] = replace(found[i], recurrent=state + change)
        return tuple(found)


def bounded(change: Tensor, state: Tensor, bound: float) -> Tensor:
    """``change`` (B, …), shortened where its norm is above ``bound`` times that of ``state``."""
    size = change.flatten(1).norm(dim=1).clamp(min=1e-12)
    most = bound * state.detach().flatten(1).norm(dim=1)
    return change * (most / size).clamp(max=1.0).view(-1, *[1] * (change.ndim - 1))


def shapes_of(layers: Layers) -> dict[int, tuple[int, int, int]]:
    """(M, R, N) of each recurrent layer of some states."""
    return {i: tuple(x.recurrent.shape[1:]) for i, x in enumerate(layers) if x.recurrent is not None}


def _check_size(projector: nn.Module) -> None:
    size = sum(parameter.numel() for parameter in projector.parameters())
    if size > LARGEST:
        raise ValueError(f"the projector would have {size:,} parameters; expected at most {LARGEST:,}; choose a lower rank")
