"""The open-loop loss: imagine a training sequence as a forecast would, and score what came out of it."""

import torch
from torch import Tensor

from gssr.network.objective import antithetic_crps, masked_mean
from gssr.network.rollout import context_of
from gssr.network.rssm import Belief, Filtered, Noise
from gssr.network.steering import Goal
from gssr.sequences.record import Batch

# Of the batches are imagined from the step where their plans begin, so that most is learned of what is asked most.
OWN_CONTEXT = 0.5


class OpenLoop:
    """The part of GoalNetwork that trains its rollouts; a mixin over its modules."""

    def first_imagined(self, batch: Batch, generator: torch.Generator) -> int:
        """The step from which a batch is imagined: that where its plans begin, or any from ``min_context`` on.

        A window's own normalisation knows its context, which therefore cannot be imagined.
        """
        own, share = torch.rand(2, generator=generator).tolist()
        if own < OWN_CONTEXT:
            return context_of(batch)
        whole = self.hparams.normalisation != "training"
        first, steps = context_of(batch) if whole else self.hparams.min_context, batch.value.shape[1]
        return min(first + int(share * (steps - first)), steps - 1)

    def open_loss(self, batch: Batch, filtered: Filtered, goal: Goal, first: int, generator: torch.Generator) -> Tensor:
        """CRPS in standard units of rollouts from step ``first`` on: of their values, and of the one-step changes of their
        values without drawn errors, from the last observed value on. Mean over the steps that were observed.
        """
        size, samples = len(batch), self.hparams.open_samples
        scaled, seen = self.scale(batch).transform(batch.value, batch.value_mask), batch.value_mask
        errors = self.forecast_error.last(scaled - self.value_head(filtered.x).mean, seen)
        last = torch.full((size,), first - 1, device=scaled.device)
        belief = Belief(*(part.repeat(samples, 1) for part in filtered.at(last)))
        noise = self.draw_noise(samples // 2 * size, scaled.shape[1] - first, generator)
        noise = Noise(*(torch.cat([part, -part]) for part in noise))
        error = errors[:, first - 1].repeat(samples, 1, 1)
        imagined = self.rssm.imagine(belief, error, first, noise, self.decoder, goal.repeat(samples))
        mean, sample = (part.unflatten(0, (samples, size)) for part in imagined[1:])
        moves = mean.diff(dim=2, prepend=scaled[:, first - 1 : first].expand(samples, -1, -1, -1))
        moved = scaled[:, first - 1 :].diff(dim=1)
        score = antithetic_crps(sample, scaled[:, first:], seen[:, first:])
        score = score + antithetic_crps(moves, moved, seen[:, first:] & seen[:, first - 1 : -1])
        return masked_mean(score, seen[:, first:].any(-1) & batch.step_mask[:, first:])
