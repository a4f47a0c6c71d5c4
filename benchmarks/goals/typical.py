"""Whether paths are the network's own: their log density without a goal, and how many large changes they have."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi

import numpy as np
import torch
from torch import Tensor

from gssr.network import GoalNetwork
from gssr.network.forecast_error import Decoder, Error
from gssr.network.forecaster import Rollouts
from gssr.sequences.record import Batch, Record

PATHS, BEGINNINGS = 32, 32
LARGE = 0.95  # quantile of the one-step changes of training windows


@torch.no_grad()
def log_densities(network: GoalNetwork, batch: Batch, drawn: Rollouts, seed: int = 1) -> Tensor:
    """log p(x, values | history) (S) of unstretched paths of one sequence, in nats and in scaled units, without a goal.

    The belief at the start is random; the density is the mean over `BEGINNINGS` of it, those of no path.
    """
    forecaster, world = network.forecaster, network.world
    origin = forecaster.origin(batch, BEGINNINGS, torch.Generator().manual_seed(seed))
    paths = len(drawn.x)
    rows = torch.arange(BEGINNINGS, device=origin.error.device).repeat(paths)
    value = origin.scale.transform(drawn.sample)[:, 0].to(origin.error)
    x, value = (part.repeat_interleave(BEGINNINGS, 0) for part in (drawn.x[:, 0].to(origin.error), value))
    belief, error = origin.belief.select(rows), Error(origin.error[rows], origin.error[rows])
    decode = Decoder(world.value_head, world.forecast_error)
    total = value.new_zeros(len(rows), dtype=torch.float64)
    for t in range(origin.steps):
        step = world.rssm.step(belief, origin.first + t)
        still, one = (
            decode(x[:, t], step.gain, error, torch.full_like(value[:, t], noise))[0].sample for noise in (0.0, 1.0)
        )
        spread = one - still
        noise = (value[:, t] - still) / spread
        of_value = noise.square() / 2 + spread.log() + log(2 * pi) / 2
        total -= (step.prior.nll(x[:, t]).sum(-1) + of_value.sum(-1)).double()
        _, error = decode(x[:, t], step.gain, error, noise)
        belief = belief.followed_by(step.h, x[:, t], value[:, t])
    return total.view(paths, BEGINNINGS).logsumexp(1) - log(BEGINNINGS)


def threshold(records: Sequence[Record], resolution: float) -> float:
    """What one-step changes of the first value seldom exceed, and half of its resolution: values of paths lie between
    those that data have.
    """
    steps = np.concatenate([abs(np.diff(record.value[:, 0])) for record in records])
    return float(np.nanquantile(steps, LARGE)) + resolution / 2


def large(paths: Tensor, last: Tensor, most: float) -> float:
    """Share of changes of the first value of paths (S, H, Y), from the last observed values (Y) on, beyond a number."""
    begin = last[0].expand(len(paths), 1).to(paths)
    changes = torch.cat([begin, paths[..., 0]], 1).diff(dim=1).abs()
    return float((changes > most).float().mean())
