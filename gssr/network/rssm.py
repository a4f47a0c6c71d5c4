"""The recurrent state-space model that carries the belief (Hafner et al. 2019, "Learning Latent Dynamics", section 3).

h_t       = GRU(x_{t-1}, h_{t-1})
prior     p(x_t | h_t)
steered   p~(x_t | h_t, goal)        see gssr/network/steering.py
posterior q(x_t | h_t, y_t, s_t)
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.network.gaussian import Gaussian, multiply
from gssr.network.layers import mlp
from gssr.network.steering import Goal, SteeredPrior

MIN_STD = 0.05
POSTERIORS = ("mlp", "product")


class Belief(NamedTuple):
    """State of B sequences at one step: h (B, G) deterministic, x (B, D) sampled."""

    h: Tensor
    x: Tensor


class Filtered(NamedTuple):
    """T steps of filtering. h (B, T, G), x (B, T, D); the Gaussians (B, T, D); observed (B, T) True where anything was seen."""

    h: Tensor
    x: Tensor
    prior: Gaussian
    steered: Gaussian
    posterior: Gaussian
    observed: Tensor

    def at(self, step: Tensor) -> Belief:
        """The belief after step (B,) of each sequence."""
        rows = torch.arange(len(step), device=step.device)
        return Belief(self.h[rows, step], self.x[rows, step])


class RSSM(nn.Module):
    """The belief's dynamics.

    Args:
        value_dim: Y. latent_dim: D. hidden_dim: G.
        steering: the steered prior.
        posterior: ``mlp``, a network reads h, y and s; or ``product``, the prior times a Gaussian that is read from y and s alone.
    """

    def __init__(
        self, value_dim: int, latent_dim: int, hidden_dim: int, steering: SteeredPrior, posterior: str = "mlp"
    ) -> None:
        super().__init__()
        if posterior not in POSTERIORS:
            raise ValueError(f"posterior {posterior!r} is not known; expected one of {POSTERIORS}")
        self.latent_dim, self.hidden_dim, self.product = latent_dim, hidden_dim, posterior == "product"
        self.cell = nn.GRUCell(latent_dim, hidden_dim)
        self.prior_net = mlp(hidden_dim, hidden_dim, 2 * latent_dim)
        seen = 2 * value_dim + latent_dim + 1
        self.posterior_net = mlp(seen if self.product else hidden_dim + seen, hidden_dim, 2 * latent_dim)
        self.first_h = nn.Parameter(torch.zeros(hidden_dim))
        self.steering = steering

    def initial(self, batch: int) -> Belief:
        """The belief before the first step: a learned h and x = 0."""
        h = torch.tanh(self.first_h).expand(batch, -1)
        return Belief(h, h.new_zeros(batch, self.latent_dim))

    def prior(self, h: Tensor) -> Gaussian:
        """p(x_t | h_t), (B, D)."""
        return _gaussian(self.prior_net(h))

    def posterior(self, h: Tensor, value: Tensor, value_mask: Tensor, text: Tensor, text_mask: Tensor) -> Gaussian:
        """q(x_t | h_t, y_t, s_t), (B, D), from value and its mask (B, Y), projected text (B, D) and its mask (B,).

        The product is with the prior that no goal steered: a hindsight goal would otherwise tell the belief the future.
        """
        seen = value_mask.to(h.dtype)
        said = text_mask[:, None].to(h.dtype)
        observed = torch.cat([value * seen, seen, text * said, said], -1)
        if self.product:
            return multiply(self.prior(h), _gaussian(self.posterior_net(observed)))
        return _gaussian(self.posterior_net(torch.cat([h, observed], -1)))

    def observe(
        self,
        value: Tensor,
        value_mask: Tensor,
        text: Tensor,
        text_mask: Tensor,
        noise: Tensor,
        goal: Goal | None = None,
    ) -> Filtered:
        """Filter a sequence. The goal changes the steered prior alone: a belief that saw it would know a hindsight goal's future.

        Args:
            value, value_mask: (B, T, Y), scaled values and True where observed.
            text, text_mask: (B, T, D) projected texts and (B, T) True where something was said.
            noise: (B, T, D) standard normal, or zeros to follow the means.
        """
        belief = self.initial(len(value))
        observed = value_mask.any(-1) | text_mask
        steps = []
        for t in range(value.shape[1]):
            h = self.cell(belief.x, belief.h)
            prior = self.prior(h)
            steered = self.steering(prior, t, goal)
            posterior = self.posterior(h, value[:, t], value_mask[:, t], text[:, t], text_mask[:, t])
            posterior = posterior.where(observed[:, t, None], prior)
            belief = Belief(h, posterior.sample(noise[:, t]))
            steps.append((*belief, *prior, *steered, *posterior))
        h, x, *moments = (torch.stack(parts, 1) for parts in zip(*steps, strict=True))
        prior, steered, posterior = (Gaussian(*moments[i : i + 2]) for i in (0, 2, 4))
        return Filtered(h, x, prior, steered, posterior, observed)

    def imagine(self, belief: Belief, first: int, noise: Tensor, goal: Goal | None = None) -> Tensor:
        """Roll the steered prior on from ``belief``.

        Args:
            first: index t of the first imagined step.
            noise: (B, H, D) standard normal, or zeros to follow the means.

        Returns:
            x (B, H, D).
        """
        path = []
        for step in range(noise.shape[1]):
            h = self.cell(belief.x, belief.h)
            prior = self.steering(self.prior(h), first + step, goal)
            belief = Belief(h, prior.sample(noise[:, step]))
            path.append(belief.x)
        return torch.stack(path, 1)

    def open_loop(self, filtered: Filtered, context: Tensor, noise: Tensor, goal: Goal | None = None) -> Tensor:
        """Imagine the steps t >= context (B,) of each sequence, S times, from the belief filtered up to there.

        Args:
            filtered: without a goal, B sequences.
            noise: (S · B, T, D), sample-major.
            goal: S · B goals in the same order.

        Returns:
            x (S · B, T, D): imagined from ``context`` on, filtered before it.
        """
        samples = len(noise) // len(context)
        given = torch.arange(noise.shape[1], device=context.device) < context[:, None]
        h, x, given = (part.repeat(samples, *[1] * (part.ndim - 1)) for part in (filtered.h, filtered.x, given))
        belief = Belief(h[:, 0], x[:, 0])
        path = [belief.x]
        for t in range(1, noise.shape[1]):
            step_h = self.cell(belief.x, belief.h)
            prior = self.steering(self.prior(step_h), t, goal)
            take = given[:, t, None]
            belief = Belief(torch.where(take, h[:, t], step_h), torch.where(take, x[:, t], prior.sample(noise[:, t])))
            path.append(belief.x)
        return torch.stack(path, 1)


def _gaussian(moments: Tensor) -> Gaussian:
    mean, spread = moments.chunk(2, -1)
    return Gaussian(mean, F.softplus(spread) + MIN_STD)
