"""The recurrent state-space model that carries the belief (Hafner et al. 2019, "Learning Latent Dynamics", section 3).

h_t       = GRU([x_{t-1}, y_{t-1}], h_{t-1})        y observed or, in a rollout, its own: Chung et al. 2015, equation 7
                                                    (and its change y_{t-1} - y_{t-2}, where asked for)
prior     p(x_t | h_t)
steered   p~(x_t | h_t, goal)        see gssr/network/steering.py
posterior q(x_t | h_t, y_t, s_t)     prior times what y_t and s_t alone say
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gssr.network.forecast_error import Decoder, Error, Value
from gssr.network.gaussian import Gaussian, multiply
from gssr.network.layers import mlp
from gssr.network.steering import Goal, SteeredPrior

MIN_STD = 0.05
CHANGE_SCALE = 4.0  # changes of a smooth series are small beside its values
POSTERIORS = ("product", "mlp")


class Belief(NamedTuple):
    """State of B sequences at one step: h (B, G) deterministic, x (B, D) sampled, value (B, Y) that was observed or imagined, 0
    where ``seen`` (B, Y) is 0, and its change (B, Y) from the step before, 0 where either was not seen."""

    h: Tensor
    x: Tensor
    value: Tensor
    seen: Tensor
    change: Tensor

    def followed_by(self, h: Tensor, x: Tensor, value: Tensor, seen: Tensor) -> "Belief":
        """The belief one step later."""
        return Belief(h, x, value, seen, (value - self.value) * self.seen * seen)


class Filtered(NamedTuple):
    """T steps of filtering. h (B, T, G), x (B, T, D), value, seen and change (B, T, Y) as in Belief; the Gaussians (B, T, D); observed (B, T)
    True where anything was seen."""

    h: Tensor
    x: Tensor
    value: Tensor
    seen: Tensor
    change: Tensor
    prior: Gaussian
    steered: Gaussian
    posterior: Gaussian
    observed: Tensor

    def at(self, step: Tensor) -> Belief:
        """The belief after step (B,) of each sequence."""
        rows = torch.arange(len(step), device=step.device)
        return Belief(*(part[rows, step] for part in self[:5]))


class Noise(NamedTuple):
    """Standard normal noise of rollouts: x (B, T, D) of the belief, value (B, T, Y) of the value's error."""

    x: Tensor
    value: Tensor

    def at(self, step: int) -> "Noise":
        return Noise(self.x[:, step], self.value[:, step])


class Imagined(NamedTuple):
    """Steps of rollouts: x (B, T, D), and values (B, T, Y) without noise and drawn, in scaled units."""

    x: Tensor
    mean: Tensor
    sample: Tensor


class RSSM(nn.Module):
    """The belief's dynamics.

    Args:
        value_dim: Y. latent_dim: D. hidden_dim: G.
        steering: the steered prior.
        posterior: ``product``, the prior times a Gaussian that is read from y and s alone; or ``mlp``, a network reads h, y and s.
        reads_changes: the GRU reads the value's last change, too.
    """

    def __init__(
        self,
        value_dim: int,
        latent_dim: int,
        hidden_dim: int,
        steering: SteeredPrior,
        posterior: str = "product",
        reads_changes: bool = False,
    ) -> None:
        super().__init__()
        if posterior not in POSTERIORS:
            raise ValueError(f"posterior {posterior!r} is not known; expected one of {POSTERIORS}")
        self.value_dim, self.latent_dim, self.product = value_dim, latent_dim, posterior == "product"
        self.reads_changes = reads_changes
        self.cell = nn.GRUCell(latent_dim + (3 if reads_changes else 2) * value_dim, hidden_dim)
        self.prior_net = mlp(hidden_dim, hidden_dim, 2 * latent_dim)
        seen = 2 * value_dim + latent_dim + 1
        self.posterior_net = mlp(seen if self.product else hidden_dim + seen, hidden_dim, 2 * latent_dim)
        self.first_h = nn.Parameter(torch.zeros(hidden_dim))
        self.steering = steering

    def initial(self, batch: int) -> Belief:
        """The belief before the first step: a learned h, x = 0, and no value."""
        h = torch.tanh(self.first_h).expand(batch, -1)
        nothing = h.new_zeros(batch, self.value_dim)
        return Belief(h, h.new_zeros(batch, self.latent_dim), nothing, nothing, nothing)

    def transition(self, belief: Belief) -> Tensor:
        """h_t (B, G) from the belief after step t - 1."""
        change = [CHANGE_SCALE * belief.change] if self.reads_changes else []
        return self.cell(torch.cat([belief.x, belief.value, belief.seen, *change], -1), belief.h)

    def prior(self, h: Tensor) -> Gaussian:
        """p(x_t | h_t), (B, D)."""
        return _gaussian(self.prior_net(h))

    def posterior(
        self, h: Tensor, prior: Gaussian, value: Tensor, value_mask: Tensor, text: Tensor, text_mask: Tensor
    ) -> Gaussian:
        """q(x_t | h_t, y_t, s_t), (B, D), from value and its mask (B, Y), projected text (B, D) and its mask (B,).

        ``prior`` is that of h, which no goal steered: a hindsight goal would otherwise tell the belief the future.
        """
        seen = value_mask.to(h.dtype)
        said = text_mask[:, None].to(h.dtype)
        observed = torch.cat([value * seen, seen, text * said, said], -1)
        if self.product:
            return multiply(prior, _gaussian(self.posterior_net(observed)))
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
        seen = value_mask.to(value.dtype)
        known = torch.where(value_mask, value, torch.zeros_like(value))
        change = _changes(known, seen)
        steps = []
        for t in range(value.shape[1]):
            h = self.transition(belief)
            prior = self.prior(h)
            steered = self.steering(prior, t, goal)
            posterior = self.posterior(h, prior, value[:, t], value_mask[:, t], text[:, t], text_mask[:, t])
            posterior = posterior.where(observed[:, t, None], prior)
            belief = Belief(h, posterior.sample(noise[:, t]), known[:, t], seen[:, t], change[:, t])
            steps.append((h, belief.x, *prior, *steered, *posterior))
        h, x, *moments = (torch.stack(parts, 1) for parts in zip(*steps, strict=True))
        prior, steered, posterior = (Gaussian(*moments[i : i + 2]) for i in (0, 2, 4))
        return Filtered(h, x, known, seen, change, prior, steered, posterior, observed)

    def imagine(
        self, belief: Belief, error: Tensor, first: int, noise: Noise, decode: Decoder, goal: Goal | None = None
    ) -> Imagined:
        """Roll the steered prior on from ``belief``.

        Args:
            error: (B, P, Y) of the belief's own step and those before, see ForecastError.
            first: index t of the first imagined step.
            noise: of H steps.
            decode: the values of imagined beliefs, which the next step reads.
        """
        drift, path = Error(error, error), []
        for step in range(noise.x.shape[1]):
            belief, value, drift = self._imagine_step(belief, drift, first + step, noise.at(step), decode, goal)
            path.append((belief.x, *value))
        return Imagined(*(torch.stack(parts, 1) for parts in zip(*path, strict=True)))

    def _imagine_step(
        self, belief: Belief, error: Error, t: int, noise: Noise, decode: Decoder, goal: Goal | None
    ) -> tuple[Belief, Value, Error]:
        h = self.transition(belief)
        x = self.steering(self.prior(h), t, goal).sample(noise.x)
        gain = h.new_zeros(len(h)) if goal is None else self.steering.acting(t, goal)
        value, error = decode(x, gain, error, noise.value)
        return belief.followed_by(h, x, value.sample, torch.ones_like(value.sample)), value, error


def _changes(known: Tensor, seen: Tensor) -> Tensor:
    """(B, T, Y) from the step before, 0 at the first and where either was not seen."""
    return F.pad(known.diff(dim=1) * seen[:, 1:] * seen[:, :-1], (0, 0, 1, 0))


def _gaussian(moments: Tensor) -> Gaussian:
    mean, spread = moments.chunk(2, -1)
    return Gaussian(mean, F.softplus(spread) + MIN_STD)
