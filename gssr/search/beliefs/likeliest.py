"""The likeliest path in which a condition holds: the mode of the network's noise given that, which is no typical path.

    min |u|^2 / 2   over the noise u (H, D + Y) of a rollout,   where the condition's margin is above 0

u is standard normal, so |u|^2 / 2 is by how many nats a path is less likely than the network's own likeliest one. The
margin enters as a penalty that grows until the condition holds (an exact penalty: Nocedal & Wright 2006, section 17.2).
Gradients go through the rollout, which starts from the mean of the filtered belief. Several first guesses are followed,
and the least of all that satisfy the condition is returned. It is the design point of the first-order reliability
method: where margins are nearly linear in the noise, the chance is about Phi(-|u|) (Hasofer & Lind 1974).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gssr.network.noise import WindowNoise
from gssr.search.beliefs.ladder import Searched
from gssr.search.beliefs.rejection import Asked, alone, event_of, last_values
from gssr.search.beliefs.rolling import Dynamics
from gssr.sequences.conditions import Condition, ConditionEvent
from gssr.sequences.record import Batch

STARTS, ROUNDS, RATE = 16, 150, 0.1
SOFTEST, HARDEST = 1.0, 1e3  # nats a standard deviation of what is missing
INSIDE = 0.02  # standard deviations by which the condition should hold


@dataclass(frozen=True)
class Likeliest:
    """A path (H, Y) in data units, by how many ``nats`` it is less likely than the network's likeliest one, and by how
    many a ``typical`` rollout is: half of the numbers of noise.
    """

    path: Tensor
    nats: float
    typical: float

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"values": self.path.tolist(), "nats": round(self.nats, 4), "typical_nats": self.typical}


def likeliest(
    network: Searched, batch: Batch, where: Asked, seed: int = 0, starts: int = STARTS, rounds: int = ROUNDS
) -> list[Likeliest | None]:
    """The likeliest path of each sequence of a batch in which a condition holds; None where none was found.

    Args:
        where: a condition as text or `Condition`.
        seed: of the first guesses. starts: how many. rounds: optimizer steps.

    Raises ValueError for a condition that cannot be read or asked of the horizon, and for a function of paths, which
    tells no margin.
    """
    read = Condition(where, network.value_names, network.value_units) if isinstance(where, str) else where
    found = []
    for row in range(len(batch)):
        one = alone(batch, row)
        event = event_of(read, one)
        if not isinstance(event, ConditionEvent):
            raise ValueError("the likeliest path is found for a condition in words, and a function of paths was given")
        found.append(_search(network, one.to(network.world.device), event, seed, starts, rounds))
    return found


def _search(
    network: Searched, one: Batch, event: ConditionEvent, seed: int, starts: int, rounds: int
) -> Likeliest | None:
    dynamics, generator = Dynamics(network.forecaster, one), torch.Generator().manual_seed(seed)
    last, scale = last_values(one), network.world.scaler.std
    begin = dynamics.begin(starts, _Still([0], 0))  # type: ignore[arg-type]
    noise = 0.3 * torch.randn(starts, dynamics.steps, dynamics.width, generator=generator)
    noise = noise.to(last.device).requires_grad_()
    optimizer = torch.optim.Adam([noise], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, rounds)
    best, kept = torch.inf, None
    for step in range(rounds):
        weight = SOFTEST * (HARDEST / SOFTEST) ** min(1.0, 1.5 * step / rounds)
        with torch.enable_grad():
            paths = _rolled(dynamics, begin, noise)
            cost = noise.square().sum((1, 2)) / 2
            margin = event.margin(paths, last, scale)
            loss = (cost + weight * torch.relu(INSIDE - margin)).sum()
            (noise.grad,) = torch.autograd.grad(loss, noise)
        holds = event(paths.detach(), last)
        costs = cost.detach().masked_fill(~holds, torch.inf)
        if costs.min() < best:
            best, kept = float(costs.min()), paths.detach()[costs.argmin()]
        optimizer.step()
        schedule.step()
    return None if kept is None else Likeliest(kept.cpu(), best, dynamics.steps * dynamics.width / 2)


class _Still(WindowNoise):
    """No noise: filtering follows the means."""

    def normal(self, rows: int, steps: int, width: int) -> Tensor:
        return torch.zeros(rows, steps, width)


def _rolled(dynamics: Dynamics, rolling: Any, noise: Tensor) -> Tensor:
    """Paths (N, H, Y) of noise (N, H, D + Y)."""
    values = []
    for t in range(dynamics.steps):
        rolling, _, value = dynamics.advance(rolling, noise[:, t], t)
        values.append(value)
    return torch.stack(values, 1)
