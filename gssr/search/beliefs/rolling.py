"""Rollouts of a network step by step, so that a search can look at them, choose among them and move their noise."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.network.forecast_error import Decoder, Error
from gssr.network.forecaster import Forecaster
from gssr.network.rssm import Belief, Step
from gssr.sequences.record import Batch
from gssr.sequences.scaler import Scaler


class Rolling(NamedTuple):
    """N rollouts after a step: the belief, the errors of its values, and what the next step starts from."""

    belief: Belief
    error: Error
    next: Step
    order: int  # P of the network

    def select(self, rows: Tensor) -> Rolling:
        """The rollouts of some rows (M,) int, as often as they come."""
        step = self.next
        prior = type(step.prior)(*(part[rows] for part in step.prior))
        return Rolling(
            self.belief.select(rows),
            Error(*(part[rows] for part in self.error)),
            Step(step.h[rows], prior, prior, step.gain[rows]),
            self.order,
        )

    def features(self) -> Tensor:
        """What the next steps depend on, (N, G + P · Y + Y); the last Y are the last values in scaled units.

        Of a context shorter than P steps, the rest are 0. What a pretrained forecaster adds is left out.
        """
        error = self.error.sample[:, : self.order]
        error = F.pad(error, (0, 0, 0, self.order - error.shape[1]))
        return torch.cat([self.next.h, error.flatten(1), self.belief.value], -1)


class Dynamics:
    """The network's own rollouts of one sequence, without a goal.

    ``steps`` is H, ``width`` the D + Y numbers of noise of a step, ``values`` the Y of its values.
    """

    def __init__(self, forecaster: Forecaster, batch: Batch) -> None:
        self.forecaster, self.batch, self.world = forecaster, batch, forecaster.world
        self.values = self.world.value_dim
        self.width = self.world.config.latent_dim + self.values
        self._decode = Decoder(self.world.value_head, self.world.forecast_error)
        self.scale = self.world.scale(batch)

    def begin(self, samples: int, generator: torch.Generator) -> Rolling:
        """N rollouts before their first step."""
        origin = self.forecaster.origin(self.batch, samples, generator)
        self.first, self.steps = origin.first, origin.steps
        return self._before(origin.belief, Error(origin.error, origin.error), 0)

    def advance(self, rolling: Rolling, noise: Tensor, t: int) -> tuple[Rolling, Tensor, Tensor]:
        """The next step t = 0 … H - 1 from noise (N, D + Y), its x (N, D) and values (N, Y) in data units."""
        rolling, x = self.follow(rolling, noise, t)
        return rolling, x, self.data_units(rolling.belief.value[:, None], t)[:, 0]

    def follow(self, rolling: Rolling, noise: Tensor, t: int) -> tuple[Rolling, Tensor]:
        """The same without data units, also of several sequences."""
        step, latent = rolling.next, self.width - self.values
        x = step.prior.sample(noise[:, :latent])
        value, error = self._decode(x, step.gain, rolling.error, noise[:, latent:])
        return self._before(rolling.belief.followed_by(step.h, x, value.sample), error, t + 1), x

    def _before(self, belief: Belief, error: Error, t: int) -> Rolling:
        return Rolling(belief, error, self.world.rssm.step(belief, self.first + t), self.world.forecast_error.order)

    def data_units(self, value: Tensor, t: int) -> Tensor:
        """Scaled values (…, K, Y) of the K steps from t = 0 … H - 1 on in data units."""
        first = self.batch.value.shape[1] - self.steps + t
        scale = self.scale if isinstance(self.scale, Scaler) else self.scale.steps(first, first + value.shape[-2])
        return scale.inverse(value)
