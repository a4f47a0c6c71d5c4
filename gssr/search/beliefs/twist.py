"""A twist: a small forecaster of later values from a rollout's state, which tells how likely a condition still is.

    y_{t+k} | state of step t  ~  N(m_k, s_k^2),  k = 1 … R,   errors of neighbouring k correlated by r_k

It is learned on imagined rollouts of training windows (`gssr.search.beliefs.learning`), for one network, and good for
every condition. The belief itself is no use there: what it promises for later steps must be imagined.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.network.world_model import WorldModel
from gssr.states import state_file

FORM = "gssr-twist-1"
HIDDEN = 64
LEAST_STD, MOST_CORRELATED = 1e-3, 0.999
OTHER = "the twist was learned for another network; learn one for this network with gssr.search.beliefs.learn_twist"


class Ahead(NamedTuple):
    """Later values (N, R, Y): mean, std, and the correlation of the error with that of the value before."""

    mean: Tensor
    std: Tensor
    following: Tensor

    def paths(self, noise: Tensor) -> Tensor:
        """Values (K, N, R, Y) drawn from noise (K, R, Y), standard normal between steps."""
        error, errors = torch.zeros_like(self.mean[:, 0]), []
        for k in range(self.mean.shape[1]):
            r = self.following[:, k]
            error = r * error + (1 - r.square()).sqrt() * noise[:, None, k]
            errors.append(error)
        return self.mean + self.std * torch.stack(errors, 2)


class Network(Protocol):
    """What a twist belongs to; `gssr.network.GoalNetwork` is one."""

    world: WorldModel


class Twist(nn.Module):
    """See above.

    Args:
        features: numbers that describe the state of a rollout, see `Rolling.features`.
        values: Y.
        fingerprint: of the network that it was learned for.
    """

    between: Tensor

    def __init__(self, features: int, values: int, fingerprint: str) -> None:
        super().__init__()
        self.values, self.fingerprint = values, fingerprint
        self.state = nn.Linear(features, HIDDEN)
        self.lead = nn.Linear(2, HIDDEN, bias=False)
        self.norm = nn.LayerNorm(HIDDEN)
        self.more = nn.Linear(HIDDEN, HIDDEN)
        self.out = nn.Linear(HIDDEN, 3 * values)
        self.register_buffer("between", torch.eye(values))  # a root of the correlation between values of one step
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @classmethod
    def of(cls, network: Network) -> Twist:
        """One that has learned nothing."""
        world = network.world
        features = world.config.hidden_dim + (world.forecast_error.order + 1) * world.value_dim
        return cls(features, world.value_dim, fingerprint(network))

    def forward(self, features: Tensor, steps: int) -> Ahead:
        """The R = ``steps`` values that follow states (N, F), in scaled units."""
        k = torch.arange(1, steps + 1, device=features.device, dtype=features.dtype)
        lead = self.lead(torch.stack([k.log(), k / 8], -1))
        hidden = F.silu(self.norm(self.state(features)[:, None] + lead))
        hidden = hidden + F.silu(self.more(hidden))
        change, spread, following = self.out(hidden).chunk(3, -1)
        mean = features[:, None, -self.values :] + change
        r = MOST_CORRELATED * torch.tanh(following + 1)
        return Ahead(mean, F.softplus(spread - 1) + LEAST_STD, torch.cat([torch.zeros_like(r[:, :1]), r[:, 1:]], 1))

    def paths(self, features: Tensor, noise: Tensor) -> Tensor:
        """Later values (K, N, R, Y) in scaled units, drawn from noise (K, R, Y)."""
        return self(features, noise.shape[1]).paths(noise @ self.between.T)

    def save(self, file: Path) -> None:
        """Raises ValueError if the file cannot be written."""
        state_file.write(file, FORM, self.state_dict(), {"fingerprint": self.fingerprint})

    @classmethod
    def load(cls, file: Path, network: Network) -> Twist:
        """The twist of a network. Raises ValueError for a damaged file, and for the twist of another network."""

        def build(tensors: dict[str, Tensor], about: dict[str, str]) -> Twist:
            if about.get("fingerprint") != twist.fingerprint:
                raise ValueError(OTHER)
            expected = {name: tensor.shape for name, tensor in twist.state_dict().items()}
            if {name: tensor.shape for name, tensor in tensors.items()} != expected:
                raise ValueError("its sizes are not those of a twist of this network")
            if any(not tensor.is_meta for tensor in tensors.values()):
                if not all(tensor.isfinite().all() for tensor in tensors.values()):
                    raise ValueError("it holds numbers that are not finite")
                twist.load_state_dict(tensors)
            return twist.eval().requires_grad_(False).to(network.world.device)

        twist = cls.of(network)
        return state_file.read(file, FORM, build)

    def require(self, network: Network) -> None:
        """Raises ValueError for a network that it was not learned for."""
        if self.fingerprint != fingerprint(network):
            raise ValueError(OTHER)


def fingerprint(network: Network) -> str:
    """SHA-256 of all that a rollout depends on."""
    digest = hashlib.sha256(str(network.world.backbone.identity()["fingerprint"]).encode())
    for name, tensor in sorted(network.world.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
