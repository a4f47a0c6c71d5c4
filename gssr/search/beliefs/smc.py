"""Guided twisted sequential Monte Carlo (Guarniero et al. 2017): paths given a condition, and the condition's chance.

A particle after step t is worth psi_t, about P(condition | its state), so that resampling keeps what can still satisfy
it. psi comes from a twist: K paths of its later values, behind the values that are there, give the condition's margins,
whose mean m and spread s say psi = Phi(m / s). Noise u of the next step is drawn where psi grows: with b the gradient
of m, the noise along b given that m + b u + s v > 0 is known in closed form (u, v normal), and it is drawn from that.
It moves the prior along sigma^2 grad log psi, as far as that is worth.

Weights correct for all of it, so the chance has no bias whatever the twist. A tenth of the particles draws plain noise
at each step, which bounds the weights. Islands of particles are resampled by themselves: they are independent, and
their estimates' spread is the error of the mean.
"""

from __future__ import annotations

from math import inf, log
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from gssr.sequences.conditions import ConditionEvent

ISLAND = 64  # particles
PATHS = 16  # K, of the twist
PLAIN = 0.1  # share of particles with plain noise
MOST_ALONG = 0.98  # of what decides, the share that the next step may know: margins are linear only nearby
FAINT = -30.0  # deviations; the probability beyond is no float


class State(Protocol):
    """N rollouts at a step."""

    def select(self, rows: Tensor) -> State: ...

    def features(self) -> Tensor: ...


class Dynamics(Protocol):
    """Rollouts step by step; `gssr.search.beliefs.rolling.Dynamics` has it."""

    steps: int
    width: int
    values: int

    def begin(self, samples: int, generator: torch.Generator) -> Any: ...

    def advance(self, rolling: Any, noise: Tensor, t: int) -> tuple[Any, Tensor, Tensor]: ...

    def data_units(self, value: Tensor) -> Tensor: ...


class Ahead(Protocol):
    """Draws later values; `gssr.search.beliefs.twist.Twist` does."""

    def paths(self, features: Tensor, noise: Tensor) -> Tensor: ...


class Asked(NamedTuple):
    """A condition of one sequence: the event, the last observed values (Y), and the units of margins (Y)."""

    event: ConditionEvent
    last: Tensor
    scale: Tensor


class Particles(NamedTuple):
    """N particles in M islands.

    ``paths`` (N, H, Y) in data units and ``x`` (N, H, D); ``log_weights`` (N) whose exponentials' mean is the chance,
    -inf where the condition does not hold; ``origins`` (N) where a particle's first ancestor began; ``chances`` (M) of
    the islands, each without bias.
    """

    paths: Tensor
    x: Tensor
    log_weights: Tensor
    origins: Tensor
    chances: Tensor


@torch.no_grad()
def draw(
    dynamics: Dynamics,
    twist: Ahead,
    asked: Asked,
    islands: int,
    generator: torch.Generator,
    size: int = ISLAND,
    guided: bool = True,
) -> Particles:
    """Draw particles given a condition.

    Args:
        islands, size: M islands of so many particles each.
        generator: on the CPU.
        guided: False draws plain noise.
    """
    rows = islands * size
    state = dynamics.begin(rows, generator)
    promises = _Promises(dynamics, twist, asked)
    value = asked.last.new_full((rows, dynamics.steps, dynamics.values), torch.nan)
    x: Tensor | None = None
    origins = torch.arange(rows, device=value.device)
    promise = promises(state, value, 0)
    log_psi = promise.log_psi()
    log_weights, log_chances = log_psi, log_psi.new_zeros(islands)
    for t in range(dynamics.steps):
        chosen, log_weights, log_chances = _resampled(log_weights, log_chances, generator)
        if chosen is not None:
            state, value, origins, log_psi = state.select(chosen), value[chosen], origins[chosen], log_psi[chosen]
            promise, x = _Promise(*(part[chosen] for part in promise)), None if x is None else x[chosen]
        noise = torch.randn(rows, dynamics.width, generator=generator).to(value)
        if guided:
            noise, correction = _guided(promises, state, value, t, ~promise.sure, noise, generator)
            log_weights = log_weights + correction
        state, latent, now = dynamics.advance(state, noise, t)
        value[:, t] = now
        x = torch.zeros(rows, dynamics.steps, latent.shape[-1]).to(latent) if x is None else x
        x[:, t] = latent
        promise = promises(state, value, t + 1)
        before, log_psi = log_psi, promise.log_psi()
        alive = log_weights > -inf
        log_weights = torch.where(alive, log_weights + log_psi - before, -inf)
    assert x is not None
    log_chances = log_chances + log_weights.view(islands, -1).logsumexp(1) - log(size)
    weights = log_weights.view(islands, -1).log_softmax(1).nan_to_num(-inf) + log(size) + log_chances[:, None]
    return Particles(value, x, weights.flatten(), origins, log_chances.exp())


class _Promise(NamedTuple):
    """Mean and spread (N) of the margin, and whether the condition is sure to hold, or to fail."""

    mean: Tensor
    spread: Tensor
    sure: Tensor
    lost: Tensor

    def log_psi(self) -> Tensor:
        """log psi (N) as float64."""
        z = (self.mean.double() / self.spread.clamp(min=1e-6)).clamp(FAINT, -FAINT)
        return torch.special.log_ndtr(z).masked_fill(self.sure, 0.0).masked_fill(self.lost, -inf)


class _Promises:
    """What states promise of a condition."""

    def __init__(self, dynamics: Dynamics, twist: Ahead, asked: Asked) -> None:
        self.dynamics, self.twist, self.asked = dynamics, twist, asked
        half = torch.randn(PATHS // 2, dynamics.steps, dynamics.values, generator=torch.Generator().manual_seed(0))
        half = half / half.square().mean(0).sqrt()
        self.noise = torch.cat([half, -half]).to(asked.last)

    def __call__(self, state: Any, value: Tensor, t: int) -> _Promise:
        """Behind values (N, H, Y) of which the first t are known, the others NaN."""
        event, last, scale = self.asked
        if t == self.dynamics.steps:
            holds = event(value, last)
            margin = torch.zeros_like(value[:, 0, 0])
            return _Promise(margin, margin, holds, ~holds)
        bounds = [event.margin(value, last, scale, unknown) for unknown in (-inf, inf)]
        mean, spread = self.margin(state, value[:, :t], t)
        return _Promise(mean, spread, bounds[0] > 0, bounds[1] < 0)

    def margin(self, state: Any, known: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Mean and spread (N) of margins behind t known values (N, t, Y), with gradients."""
        event, last, scale = self.asked
        if t == self.dynamics.steps:
            margin = event.margin(known, last, scale)
            return margin, torch.zeros_like(margin)
        later = self.dynamics.data_units(self.twist.paths(state.features(), self.noise[:, : self.dynamics.steps - t]))
        paths = torch.cat([known.expand(len(later), *known.shape), later], 2)
        margins = event.margin(paths.flatten(0, 1), last, scale).view(len(later), -1)
        return margins.mean(0), margins.std(0)


def _guided(
    promises: _Promises,
    state: Any,
    value: Tensor,
    t: int,
    wanted: Tensor,
    noise: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Noise (N, D + Y) of step t drawn where the condition is likelier, and log p / q (N) of it."""
    with torch.enable_grad():
        still = torch.zeros_like(noise, requires_grad=True)
        after, _, now = promises.dynamics.advance(state, still, t)
        mean, rest = promises.margin(after, torch.cat([value[:, :t], now[:, None]], 1), t + 1)
        (slope,) = torch.autograd.grad(mean.sum(), still)
    length = slope.norm(dim=1)
    wanted = wanted & (length > 1e-6) & mean.isfinite()
    along = slope / length.clamp(min=1e-12)[:, None]
    spread = (rest.detach().square() + length.square()).sqrt().clamp(min=1e-6).double()
    a = (mean.detach().double() / spread).clamp(FAINT, -FAINT)
    share = (length / spread).clamp(max=MOST_ALONG)
    # A standard normal T above -a, of which the noise along b is the share that this step knows.
    uniform = torch.rand(len(noise), generator=generator, dtype=torch.float64).to(a).clamp(1e-12, 1 - 1e-12)
    total = -torch.special.ndtri(uniform * torch.special.log_ndtr(a).exp())
    plain = (noise * along).sum(1).double()
    moved = share * total + (1 - share.square()).sqrt() * plain
    moves = wanted & (torch.rand(len(noise), generator=generator).to(noise) >= PLAIN)
    amount = torch.where(moves, moved, plain)
    noise = noise + (amount - plain).to(noise)[:, None] * along
    ratio = torch.special.log_ndtr((a + share * amount) / (1 - share.square()).sqrt()) - torch.special.log_ndtr(a)
    mixture = torch.logaddexp(ratio + log(1 - PLAIN), torch.full_like(ratio, log(PLAIN)))
    return noise, torch.where(wanted, -mixture, 0.0)


def _resampled(
    log_weights: Tensor, log_chances: Tensor, generator: torch.Generator
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Rows (N) that go on where an island's effective samples are below half of it, None where all are; their log
    weights; and the islands' log chances so far (M). Systematic resampling (Kitagawa 1996) in each island.
    """
    islands = len(log_chances)
    of_island = log_weights.view(islands, -1)
    size = of_island.shape[1]
    weights = of_island.softmax(1)
    few = (weights.square().sum(1) * size > 2) & of_island.isfinite().any(1)
    offset = torch.rand(islands, 1, generator=generator, dtype=torch.float64).to(weights)
    if not few.any():
        return None, log_weights, log_chances
    places = (torch.arange(size, device=weights.device) + offset) / size
    chosen = torch.searchsorted(weights.nan_to_num(0.0).cumsum(1).contiguous(), places).clamp(max=size - 1)
    chosen = torch.where(few[:, None], chosen, torch.arange(size, device=weights.device))
    mean = of_island.logsumexp(1) - log(size)
    log_chances = torch.where(few, log_chances + mean, log_chances)
    kept = torch.where(few[:, None], torch.zeros_like(of_island), of_island)
    rows = chosen + size * torch.arange(islands, device=weights.device)[:, None]
    return rows.flatten(), kept.flatten(), log_chances
