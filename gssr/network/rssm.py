"""The recurrent state-space model that carries the belief (Hafner et al. 2019, "Learning Latent Dynamics", section 3).

h_t       = GRU([x_{t-1}, y_{t-1}, seen], h_{t-1})   y observed or, in a rollout, drawn (Chung et al. 2015, equation 7)
prior     p(x_t | h_t)
steered   p~(x_t | h_t, goal)                        a pull moves the prior, see gssr/network/steering.py
posterior q(x_t | h_t, y_t, s_t)                     see gssr/network/posterior.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.network.forecast_error import Decoder, Error
from gssr.network.gaussian import Gaussian
from gssr.network.layers import mlp
from gssr.network.posterior import Posterior, ProductPosterior, gaussian_from, observed
from gssr.network.steering import Pull

CHANGE_SCALE = 4.0  # changes of a smooth series are small beside its values


class Belief(NamedTuple):
    """State of B sequences at one step (or at T steps, with an axis T behind B).

    ``h`` (B, G) deterministic, ``x`` (B, D) sampled, ``value`` (B, Y) observed or imagined and 0 where ``seen`` (B, Y)
    is 0, ``change`` (B, Y) of the value from the step before, 0 where either was not seen.
    """

    h: Tensor
    x: Tensor
    value: Tensor
    seen: Tensor
    change: Tensor

    def select(self, rows: Tensor) -> Belief:
        """The beliefs of some rows (N,) int, in that order and as often as they come."""
        return Belief(*(part[rows] for part in self))

    def repeat(self, samples: int) -> Belief:
        """Sample-major copies for S rollouts of each sequence: (S · B, …)."""
        return Belief(*(part.repeat(samples, *[1] * (part.ndim - 1)) for part in self))

    def at(self, step: Tensor) -> Belief:
        """Of beliefs at T steps the one after step (B,) int of each sequence."""
        rows = torch.arange(len(step), device=step.device)
        return Belief(*(part[rows, step] for part in self))

    def followed_by(self, h: Tensor, x: Tensor, value: Tensor) -> Belief:
        """The belief one step later, whose value (B, Y) is imagined and so counts as seen."""
        seen = torch.ones_like(value)
        return Belief(h, x, value, seen, (value - self.value) * self.seen * seen)


class Step(NamedTuple):
    """One step of the recurrence: ``h`` (B, G), the prior (B, D), the prior after the pull, and the pull's gain (B)."""

    h: Tensor
    prior: Gaussian
    steered: Gaussian
    gain: Tensor


class Filtered(NamedTuple):
    """T steps of filtering: the beliefs (B, T, …), the Gaussians (B, T, D), and ``observed`` (B, T), True where
    anything was seen.
    """

    belief: Belief
    prior: Gaussian
    steered: Gaussian
    posterior: Gaussian
    observed: Tensor


class Noise(NamedTuple):
    """Standard normal noise of rollouts: ``x`` (B, H, D) of the belief, ``value`` (B, H, Y) of the value's error."""

    x: Tensor
    value: Tensor

    def mirrored(self) -> Noise:
        """The noise and its opposite, (2 B, …): antithetic pairs."""
        return Noise(*(torch.cat([part, -part]) for part in self))


class Imagined(NamedTuple):
    """Steps of rollouts: ``x`` (B, H, D), and values (B, H, Y) without noise and drawn, in scaled units."""

    x: Tensor
    mean: Tensor
    sample: Tensor


class RSSM(nn.Module):
    """The belief's dynamics.

    Args:
        value_dim: Y. latent_dim: D. hidden_dim: G.
        posterior: class of the posterior, called with Y, D and G.
        reads_changes: the GRU reads the value's last change, too.
    """

    def __init__(
        self,
        value_dim: int,
        latent_dim: int,
        hidden_dim: int,
        posterior: Callable[[int, int, int], Posterior] = ProductPosterior,
        reads_changes: bool = False,
    ) -> None:
        super().__init__()
        self.value_dim, self.latent_dim, self.reads_changes = value_dim, latent_dim, reads_changes
        self.cell = nn.GRUCell(latent_dim + (3 if reads_changes else 2) * value_dim, hidden_dim)
        self.prior_net = mlp(hidden_dim, hidden_dim, 2 * latent_dim)
        self.posterior = posterior(value_dim, latent_dim, hidden_dim)
        self.first_h = nn.Parameter(torch.zeros(hidden_dim))

    def initial(self, batch: int) -> Belief:
        """The belief of ``batch`` sequences before the first step: a learned h, x = 0, and no value."""
        h = torch.tanh(self.first_h).expand(batch, -1)
        nothing = h.new_zeros(batch, self.value_dim)
        return Belief(h, h.new_zeros(batch, self.latent_dim), nothing, nothing, nothing)

    def step(self, belief: Belief, t: int, pull: Pull | None = None) -> Step:
        """h_t and the priors of step t from the belief after step t - 1; filter and rollouts both go on with it."""
        change = [CHANGE_SCALE * belief.change] if self.reads_changes else []
        h = self.cell(torch.cat([belief.x, belief.value, belief.seen, *change], -1), belief.h)
        prior = gaussian_from(self.prior_net(h))
        steered, gain = (prior, h.new_zeros(len(h))) if pull is None else pull(prior, h, t)
        return Step(h, prior, steered, gain)

    def observe(
        self,
        value: Tensor,
        value_mask: Tensor,
        text: Tensor,
        text_mask: Tensor,
        noise: Tensor,
        pull: Pull | None = None,
    ) -> Filtered:
        """Filter a sequence. A pull changes the steered prior only: a belief that saw a hindsight goal would know the
        future.

        Args:
            value, value_mask: (B, T, Y), scaled values and True where observed.
            text, text_mask: (B, T, D) projected texts and (B, T) True where there is a text.
            noise: (B, T, D) standard normal, or zeros to follow the means.
        """
        belief = self.initial(len(value))
        anything = value_mask.any(-1) | text_mask
        seen = value_mask.to(value.dtype)
        known = torch.where(value_mask, value, torch.zeros_like(value))
        change = _changes(known, seen)
        steps = []
        for t in range(value.shape[1]):
            h, prior, steered, _ = self.step(belief, t, pull)
            observation = observed(value[:, t], value_mask[:, t], text[:, t], text_mask[:, t])
            posterior = self.posterior(h, prior, observation).where(anything[:, t, None], prior)
            belief = Belief(h, posterior.sample(noise[:, t]), known[:, t], seen[:, t], change[:, t])
            steps.append((h, belief.x, *prior, *steered, *posterior))
        h, x, *moments = (torch.stack(parts, 1) for parts in zip(*steps, strict=True))
        prior, steered, posterior = (Gaussian(*moments[i : i + 2]) for i in (0, 2, 4))
        return Filtered(Belief(h, x, known, seen, change), prior, steered, posterior, anything)

    def imagine(
        self, belief: Belief, error: Tensor, first: int, noise: Noise, decode: Decoder, pull: Pull | None = None
    ) -> Imagined:
        """Roll the steered prior on from ``belief``.

        Args:
            error: (B, P, Y) of the belief's own step and those before, see ForecastError.
            first: index t of the first imagined step.
            noise: of H steps.
            decode: the values of imagined beliefs, which the next step reads.
        """
        drift, path = Error(error, error), []
        for i in range(noise.x.shape[1]):
            step = self.step(belief, first + i, pull)
            x = step.steered.sample(noise.x[:, i])
            value, drift = decode(x, step.gain, drift, noise.value[:, i])
            belief = belief.followed_by(step.h, x, value.sample)
            path.append((x, *value))
        return Imagined(*(torch.stack(parts, 1) for parts in zip(*path, strict=True)))


def _changes(known: Tensor, seen: Tensor) -> Tensor:
    """(B, T, Y) from the step before, 0 at the first and where either was not seen."""
    return F.pad(known.diff(dim=1) * seen[:, 1:] * seen[:, :-1], (0, 0, 1, 0))
