"""Rollouts and plans: from the filtered belief, imagine how the sequence would unfold, with a goal or without."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gssr.network.forecast_error import Decoder
from gssr.network.gain import gain
from gssr.network.rssm import Noise
from gssr.sequences.record import Batch

QUANTILE_LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass
class Rollouts:
    """S rollouts of H steps, in data units.

    ``mean`` (S, B, H, Y) decoded without the value's noise, ``sample`` (S, B, H, Y) with it, ``x`` (S, B, H, D).
    """

    mean: Tensor
    sample: Tensor
    x: Tensor


@dataclass
class Plan:
    """Rollouts, their mean (B, H, Y), quantiles (B, H, Y, Q) of ``sample`` at ``quantile_levels``, and a text for each step.

    ``spoken`` (B, H, Y): values of the one rollout that the texts are written from, without noise; None without texts.
    """

    rollouts: Rollouts
    mean: Tensor
    quantiles: Tensor
    text: list[list[str]]
    spoken: Tensor | None = None
    quantile_levels: tuple[float, ...] = QUANTILE_LEVELS


class Planning:
    """The part of GoalNetwork that imagines; a mixin over its modules."""

    @torch.no_grad()
    def rollout(
        self,
        batch: Batch,
        goals: list[str | None],
        samples: int = 64,
        generator: torch.Generator | None = None,
        calibrated: bool = True,
    ) -> Rollouts:
        """Filter the context without any goal, then imagine the horizon under ``goals`` (None: no goal).

        The first C = goal_start + 1 steps are the context, the same for all sequences of the batch; later values and
        texts are never read.

        Args:
            generator: on the CPU; a fixed seed unless given, so that the same call gives the same rollouts.
            calibrated: stretch ``sample`` by the factors that validation gave, see Calibration.
        """
        self._ready()
        first, steps = context_of(batch), batch.value.shape[1]
        if len(goals) != len(batch):
            raise ValueError(f"{len(goals)} goals for {len(batch)} sequences; give one (or None) for each")
        generator = generator or torch.Generator().manual_seed(0)
        size, dim = len(batch), self.hparams.latent_dim
        noise = self.draw(samples * size, first, dim, generator=generator)
        history = cut(batch, first)
        states, text_mask = self.table.look_up(history.text)
        scale = self.scale(batch)
        value = scale.transform(history.value, history.value_mask)
        filtered = self.rssm.observe(
            *(part.repeat(samples, 1, 1) for part in (value, history.value_mask, self.text_projection(states))),
            (text_mask & history.step_mask).repeat(samples, 1),
            noise,
        )
        belief = filtered.at(torch.full((samples * size,), first - 1, device=self.device))
        missed = filtered.value - self.value_head(filtered.x).mean
        error = self.forecast_error.last(missed, filtered.seen.bool())[:, -1]
        goal = self.encode_goals(batch, goals).repeat(samples)
        noise = self.draw_noise(samples * size, steps - first, generator)
        with gain(self, self.hparams.strength):
            imagined = self.rssm.imagine(belief, error, first, noise, self.decoder, goal)
        x, mean, sample = (part.unflatten(0, (samples, size)) for part in imagined)
        if calibrated:
            pulled = [text is not None and self.steering.strength > 0 for text in goals]
            sample = self.calibration(sample, torch.tensor(pulled, device=self.device))
        return Rollouts(scale.inverse(mean), scale.inverse(sample), x)

    @property
    def decoder(self) -> Decoder:
        """The values of imagined beliefs."""
        return Decoder(self.value_head, self.forecast_error)

    def draw_noise(self, rows: int, steps: int, generator: torch.Generator) -> Noise:
        """What makes so many rollouts differ."""
        return Noise(
            self.draw(rows, steps, self.hparams.latent_dim, generator=generator),
            self.draw(rows, steps, len(self.value_names), generator=generator),
        )

    @torch.no_grad()
    def plan(
        self,
        batch: Batch,
        goals: list[str | None],
        samples: int = 64,
        texts: bool = True,
        max_new_tokens: int = 64,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """Rollouts with their spread, and for each step the text that the frozen model writes behind the mean belief."""
        rollouts = self.rollout(batch, goals, samples, generator)
        levels = torch.tensor(QUANTILE_LEVELS, device=self.device)
        quantiles = rollouts.sample.quantile(levels, dim=0).movedim(0, -1)
        written: list[list[str]] = [[] for _ in goals]
        spoken = None
        if texts:
            # The rollout nearest to the mean path: a mean of beliefs need not be a belief.
            mean = rollouts.x.mean(0)
            nearest = (rollouts.x - mean).square().sum((-1, -2)).argmin(0)
            rows = torch.arange(len(goals), device=self.device)
            x, spoken = rollouts.x[nearest, rows], rollouts.mean[nearest, rows]
            flat = self.write(x.flatten(0, 1), max_new_tokens)
            written = [flat[i : i + x.shape[1]] for i in range(0, len(flat), x.shape[1])]
        return Plan(rollouts, rollouts.mean.mean(0), quantiles, written, spoken)

    @torch.no_grad()
    def prior_samples(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """x_t (B, T, D) drawn from p(x_t | h_t), the goal off: h_t has read values and texts before t alone."""
        self._ready()
        generator = generator or torch.Generator().manual_seed(0)
        shape = (*batch.step_mask.shape, self.hparams.latent_dim)
        filtered = self.observe(batch, self.draw(*shape, generator=generator))
        return filtered.prior.sample(self.draw(*shape, generator=generator))

    def _ready(self) -> None:
        if not self.built:
            raise ValueError("this network has no value dimensions yet; load a checkpoint, or fit it on data first")
        self._to_device()


def context_of(batch: Batch) -> int:
    """C, the steps that are observed before a batch's goals and plans begin. Raises ValueError where sequences differ in it."""
    first = batch.context.unique()
    if len(first) != 1 or not 0 < first.item() < batch.value.shape[1]:
        raise ValueError(
            f"a rollout needs one context length, shorter than the sequences; the batch has {first.tolist()}"
        )
    return int(first.item())


def cut(batch: Batch, steps: int) -> Batch:
    """The first ``steps`` steps of a batch; what it says about later steps is gone."""
    return Batch(
        series=batch.series,
        time=batch.time[:, :steps],
        value=batch.value[:, :steps],
        value_mask=batch.value_mask[:, :steps],
        step_mask=batch.step_mask[:, :steps],
        text=[row[:steps] for row in batch.text],
        goal=[None] * len(batch),
        goal_low=batch.goal_low,
        goal_high=batch.goal_high,
        goal_start=batch.goal_start,
        goal_step=batch.goal_step,
        step_label=None if batch.step_label is None else [row[:steps] for row in batch.step_label],
    )
