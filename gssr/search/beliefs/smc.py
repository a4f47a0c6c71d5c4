"""Guided twisted sequential Monte Carlo (Guarniero et al. 2017): paths given a condition, and the condition's chance.

A particle after step t is worth psi_t, about P(condition | its state), so that resampling keeps what can still satisfy
it. psi comes from a twist: K paths of its later values, behind the values that are there, give the condition's margins
m_k of spread s, and psi = mean_k Phi(m_k / s), wider than the margins are: a twist that is too sure loses paths. Noise
u of the next step is drawn where psi grows: with b the gradient of the mean margin m, the noise along b given that
m + b u + s v > 0 is known in closed form (u, v normal), and it is drawn from that. It moves the prior along
sigma^2 grad log psi, as far as that is worth.

Weights correct for all of it, so the chance has no bias whatever the twist. A poor twist makes estimates that are
mostly too low and seldom far too high; two defences bound that. A tenth of the particles draws plain noise until the
next resampling, when it is chosen anew who does. And psi never falls below a share of the mean of an island, so that
what seems lost, and is not, is kept now and then. Islands of particles are resampled by themselves: they are
independent, and their estimates' spread is the error of the mean.
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
LEAST = 0.1  # psi, in means of its island
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

    def data_units(self, value: Tensor, t: int) -> Tensor: ...


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
    log_chances = torch.zeros(islands, dtype=torch.float64, device=value.device)
    log_weights = log_chances.new_zeros(rows)
    log_psi = promise.defended(log_weights, islands)
    log_weights = log_weights + log_psi
    follows, log_ratio = _follows(rows, generator).to(value.device), log_chances.new_zeros(rows)
    for t in range(dynamics.steps):
        chosen, renewed, log_weights, log_chances = _resampled(log_weights, log_chances, generator)
        if chosen is not None:
            state, value, origins, log_psi = state.select(chosen), value[chosen], origins[chosen], log_psi[chosen]
            promise, x = _Promise(*(part[chosen] for part in promise)), None if x is None else x[chosen]
            follows, log_ratio = follows[chosen], log_ratio[chosen]
            follows = torch.where(renewed, _follows(rows, generator).to(follows.device), follows)
            log_ratio = log_ratio.masked_fill(renewed, 0.0)
        noise = torch.randn(rows, dynamics.width, generator=generator).to(value)
        if guided:
            noise, ratio = _guided(promises, state, value, t, ~promise.sure, follows, noise, generator)
            log_weights = log_weights + _log_mixture(log_ratio) - _log_mixture(log_ratio + ratio)
            log_ratio = log_ratio + ratio
        state, latent, now = dynamics.advance(state, noise, t)
        value[:, t] = now
        x = torch.zeros(rows, dynamics.steps, latent.shape[-1]).to(latent) if x is None else x
        x[:, t] = latent
        promise = promises(state, value, t + 1)
        log_weights = torch.where(log_weights > -inf, log_weights - log_psi, -inf)
        log_psi = promise.defended(log_weights, islands)
        log_weights = log_weights + log_psi
    assert x is not None
    log_chances = log_chances + log_weights.view(islands, -1).logsumexp(1) - log(size)
    weights = (
        log_weights.view(islands, -1).log_softmax(1).nan_to_num(-inf, neginf=-inf) + log(size) + log_chances[:, None]
    )
    return Particles(value, x, weights.flatten(), origins, log_chances.exp())


def _follows(rows: int, generator: torch.Generator) -> Tensor:
    """Which particles (N) follow the guide."""
    return torch.rand(rows, generator=generator) >= PLAIN


def _log_mixture(log_ratio: Tensor) -> Tensor:
    """log of the density of guided and plain noise together over that of plain noise, from that of guided noise."""
    return torch.logaddexp(log_ratio + log(1 - PLAIN), torch.full_like(log_ratio, log(PLAIN)))


class _Promise(NamedTuple):
    """log psi (N) as float64, and whether the condition is sure to hold, or to fail (N)."""

    log_psi: Tensor
    sure: Tensor
    lost: Tensor

    def defended(self, log_weights: Tensor, islands: int) -> Tensor:
        """log psi (N) with its least value, from the weights (N) of plain particles."""
        of_island = log_weights.view(islands, -1).logsumexp(1)
        mean = (log_weights + self.log_psi).view(islands, -1).logsumexp(1) - of_island
        least = (mean.nan_to_num(-inf, neginf=-inf) + log(LEAST)).repeat_interleave(len(log_weights) // islands)
        return torch.where(self.sure | self.lost, self.log_psi, torch.logaddexp(self.log_psi, least))


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
            sure = event(value, last)
            lost, log_psi = ~sure, torch.zeros(len(sure), dtype=torch.float64, device=value.device)
        else:
            surely, perhaps = (event.margin(value, last, scale, unknown) for unknown in (-inf, inf))
            sure, lost = surely > 0, perhaps < 0
            margins = self.margins(state, value[:, :t], t).double()
            z = (margins / margins.std(0).clamp(min=1e-6)).clamp(FAINT, -FAINT)
            log_psi = torch.special.log_ndtr(z).logsumexp(0) - log(len(z))
        return _Promise(log_psi.masked_fill(sure, 0.0).masked_fill(lost, -inf), sure, lost)

    def margins(self, state: Any, known: Tensor, t: int) -> Tensor:
        """Margins (K, N) of K paths behind t known values (N, t, Y), with gradients; K is 1 where no step is left."""
        event, last, scale = self.asked
        if t == self.dynamics.steps:
            return event.margin(known, last, scale)[None]
        later = self.dynamics.data_units(
            self.twist.paths(state.features(), self.noise[:, : self.dynamics.steps - t]), t
        )
        paths = torch.cat([known.expand(len(later), *known.shape), later], 2)
        return event.margin(paths.flatten(0, 1), last, scale).view(len(later), -1)


def _guided(
    promises: _Promises,
    state: Any,
    value: Tensor,
    t: int,
    wanted: Tensor,
    follows: Tensor,
    noise: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Noise (N, D + Y) of step t, of particles that follow drawn where the condition is likelier, and for all of it
    log q / p (N) of such noise.
    """
    with torch.enable_grad():
        still = torch.zeros_like(noise, requires_grad=True)
        after, _, now = promises.dynamics.advance(state, still, t)
        margins = promises.margins(after, torch.cat([value[:, :t], now[:, None]], 1), t + 1)
        mean, rest = margins.mean(0), margins.detach().std(0, correction=min(1, len(margins) - 1))
        (slope,) = torch.autograd.grad(mean.sum(), still)
    length = slope.norm(dim=1)
    wanted = wanted & (length > 1e-6) & mean.isfinite()
    along = torch.where(wanted[:, None], slope / length.clamp(min=1e-12)[:, None], 0.0)
    spread = (rest.square() + length.square()).sqrt().clamp(min=1e-6).double()
    a = (mean.detach().double() / spread).clamp(FAINT, -FAINT)
    share = (length / spread).clamp(max=MOST_ALONG)
    # A standard normal T above -a, of which the noise along b is the share that this step knows.
    uniform = torch.rand(len(noise), generator=generator, dtype=torch.float64).to(a).clamp(1e-12, 1 - 1e-12)
    total = -torch.special.ndtri(uniform * torch.special.log_ndtr(a).exp())
    plain = (noise * along).sum(1).double()
    moved = share * total + (1 - share.square()).sqrt() * plain
    amount = torch.where(wanted & follows, moved, plain)
    noise = noise + (amount - plain).to(noise)[:, None] * along
    ratio = torch.special.log_ndtr((a + share * amount) / (1 - share.square()).sqrt()) - torch.special.log_ndtr(a)
    return noise, torch.where(wanted, ratio, 0.0)


def _resampled(
    log_weights: Tensor, log_chances: Tensor, generator: torch.Generator
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """Rows (N) that go on where an island's effective samples are below half of it, None where all are; which rows are
    of such islands (N); their log weights; and the islands' log chances so far (M). Systematic resampling (Kitagawa
    1996) in each island.
    """
    islands = len(log_chances)
    of_island = log_weights.view(islands, -1)
    size = of_island.shape[1]
    weights = of_island.softmax(1)
    few = (weights.square().sum(1) * size > 2) & of_island.isfinite().any(1)
    offset = torch.rand(islands, 1, generator=generator, dtype=torch.float64).to(weights)
    renewed = few.repeat_interleave(size)
    if not few.any():
        return None, renewed, log_weights, log_chances
    places = (torch.arange(size, device=weights.device) + offset) / size
    chosen = torch.searchsorted(weights.nan_to_num(0.0).cumsum(1).contiguous(), places).clamp(max=size - 1)
    chosen = torch.where(few[:, None], chosen, torch.arange(size, device=weights.device))
    rows = chosen + size * torch.arange(islands, device=weights.device)[:, None]
    mean = of_island.logsumexp(1) - log(size)
    log_chances = torch.where(few, log_chances + mean, log_chances)
    return rows.flatten(), renewed, log_weights.masked_fill(renewed, 0.0), log_chances
