"""Learn the twist of a network on its own rollouts of training windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.network.forecaster import Forecaster
from gssr.network.gaussian import Gaussian
from gssr.network.world_model import WorldModel
from gssr.search.beliefs.rolling import Dynamics
from gssr.search.beliefs.twist import Twist
from gssr.sequences.collate import collate
from gssr.sequences.context import context_length
from gssr.sequences.record import Record

WINDOWS, TOGETHER, SAMPLES = 768, 64, 12
STEPS, BATCH, RATE = 3000, 256, 3e-3
WIDER = 2.0  # noise of the steps before those that are learned, at most


class Rolls(Protocol):
    """What is asked of a network; `gssr.network.GoalNetwork` has it."""

    world: WorldModel

    @property
    def forecaster(self) -> Forecaster: ...


def learn_twist(
    network: Rolls,
    windows: Sequence[Record],
    seed: int = 0,
    tick: Callable[[float], object] = lambda share: None,
    steps: int = STEPS,
) -> Twist:
    """Learn the twist of a network, about a minute on a core.

    Args:
        windows: of the training part, with contexts of one length; some hundred of them are drawn.
        tick: called with the share that is done.
        steps: optimizer steps.

    Raises ValueError without windows.
    """
    if not len(windows):
        raise ValueError("a twist is learned on windows of the training part, and there are none")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(windows), generator=generator)[:WINDOWS].tolist()
    parts = [chosen[i : i + TOGETHER] for i in range(0, len(chosen), TOGETHER)]
    found = []
    for done, part in enumerate(parts):
        found.append(_imagine(network, [windows[i] for i in part], generator))
        tick((done + 1) / len(parts) / 2)
    states, values, own = map(torch.cat, zip(*found, strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twist = Twist.of(network).to(states.device)
    _fit(twist, states, values, own, generator, steps, lambda share: tick((1 + share) / 2))
    return twist.eval().requires_grad_(False)


@torch.no_grad()
def _imagine(network: Rolls, windows: list[Record], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """States (N, H, F) of rollouts before each step, the values (N, H, Y) of these steps in scaled units, and the step
    (N) from which a rollout is the network's own.

    Before it, the noise is wider. So the twist knows states that rollouts seldom reach, which conditions ask for.
    """
    batch = collate(windows)
    dynamics = Dynamics(network.forecaster, batch.to(network.world.device))
    rolling = dynamics.begin(SAMPLES, generator)
    rows, steps = len(windows) * SAMPLES, batch.value.shape[1] - context_length(batch)
    until = torch.randint(1 - steps, steps, (rows, 1), generator=generator).clamp(min=0)  # 0 for half of them
    wider = 1 + (WIDER - 1) * torch.rand(rows, 1, generator=generator)
    states, values = [], []
    for t in range(steps):
        noise = torch.randn(rows, dynamics.width, generator=generator)
        states.append(rolling.features())
        rolling, _ = dynamics.follow(rolling, torch.where(t < until, wider * noise, noise).to(states[0].device), t)
        values.append(rolling.belief.value)
    return torch.stack(states, 1), torch.stack(values, 1), until[:, 0]


def _fit(
    twist: Twist,
    states: Tensor,
    values: Tensor,
    own: Tensor,
    generator: torch.Generator,
    steps: int,
    tick: Callable[[float], object],
) -> None:
    rows = [(own <= t).nonzero()[:, 0] for t in range(values.shape[1])]

    def draw(t: int, size: int) -> tuple[Tensor, Tensor]:
        chosen = rows[t][torch.randint(len(rows[t]), (size,), generator=generator)].to(values.device)
        return states[chosen, t], values[chosen, t:]

    optimizer = torch.optim.AdamW(twist.parameters(), lr=RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for step in range(steps):
        loss, _ = _loss(twist, *draw(int(torch.randint(len(rows), (), generator=generator)), BATCH))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twist.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 19:
            tick((step + 1) / steps)
    with torch.no_grad():
        _, innovation = _loss(twist, *draw(0, 4096))
        between = torch.corrcoef(innovation.flatten(0, 1).T).reshape(twist.values, twist.values)
        twist.between.copy_(torch.linalg.cholesky(0.99 * between + 0.01 * torch.eye(twist.values).to(between)))


def _loss(twist: Twist, state: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    """The mean negative log-likelihood of later values (N, R, Y) behind states (N, F), and their innovations.

    Mean and spread are learned by each value alone, so that they hold far ahead; the correlation by what is left.
    """
    ahead = twist(state, later.shape[1])
    alone = Gaussian(ahead.mean, ahead.std).nll(later)
    error = ((later - ahead.mean) / ahead.std).detach()
    before = F.pad(error, (0, 0, 1, 0))[:, :-1]
    spread = (1 - ahead.following.square()).sqrt()
    following = Gaussian(ahead.following * before, spread).nll(error)
    return alone.mean() + following.mean(), (error - ahead.following * before) / spread
