"""Rollouts and plans: from the filtered belief, imagine how a sequence would unfold, with a goal or without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from gssr.network.calibration import Calibration
from gssr.network.futures import Future, representatives
from gssr.network.losses import kl_terms, masked_mean
from gssr.network.noise import WindowNoise
from gssr.network.normalisation import WindowScale
from gssr.network.numbers import numbers_of
from gssr.network.prompt import Said
from gssr.network.recent import recent_spread
from gssr.network.rssm import Belief
from gssr.network.speaker import Speaker
from gssr.network.world_model import WorldModel
from gssr.sequences.context import context_length, first_steps
from gssr.sequences.record import Batch
from gssr.sequences.scaler import Scaler

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
    """Rollouts, their mean (B, H, Y), quantiles (B, H, Y, Q) of ``sample`` at ``quantile_levels``, and a text a step.

    ``futures``: the rollouts that are told, the typical one first, whose text is ``text`` and whose values are
    ``spoken`` (B, H, Y), rounded as data are where the speaker reads a row; none without texts.
    """

    rollouts: Rollouts
    mean: Tensor
    quantiles: Tensor
    text: list[list[str]]
    spoken: Tensor | None = None
    quantile_levels: tuple[float, ...] = QUANTILE_LEVELS
    futures: tuple[Future, ...] = ()


class Origin(NamedTuple):
    """Where rollouts start: S · B filtered beliefs (sample-major rows), what their values go on from (S · B, P, Y),
    the index of the first step ahead, the number of steps, and the units of the values.
    """

    belief: Belief
    error: Tensor
    first: int
    steps: int
    scale: Scaler | WindowScale

    def select(self, rows: Tensor, sequences: int) -> Origin:
        """Of ``sequences`` sequences some rows (N,) int, with all of their samples."""
        every = torch.arange(len(self.error), device=rows.device).view(-1, sequences)[:, rows].flatten()
        scale = self.scale
        if isinstance(scale, WindowScale):
            scale = WindowScale(*(part[rows] for part in scale))
        return self._replace(belief=self.belief.select(every), error=self.error[every], scale=scale)


class Forecaster:
    """Imagines.

    Args:
        world, speaker, calibration: of the network.
        strength: what every gain of a goal's pull is multiplied with.

    ``told``: how many different futures a plan tells in words; 1 unless it is set.
    """

    def __init__(self, world: WorldModel, speaker: Speaker, calibration: Calibration, strength: float) -> None:
        self.world, self.speaker, self.calibration, self.strength = world, speaker, calibration, strength
        self.told = 1

    @torch.no_grad()
    def rollout(
        self,
        batch: Batch,
        goals: Sequence[str | None],
        samples: int = 64,
        generator: torch.Generator | WindowNoise | None = None,
        calibrated: bool = True,
        gain: float = 1.0,
        origin: Origin | None = None,
        recent: Tensor | None = None,
    ) -> Rollouts:
        """Filter the context without any goal, then imagine the horizon under ``goals`` (None: no goal).

        The first C = goal_start + 1 steps are the context, the same for all sequences of the batch; later values and
        texts are never read.

        Args:
            generator: on the CPU; one with a fixed seed by default, so that the same call gives the same rollouts.
            calibrated: stretch ``sample`` by the factors of validation, see Calibration.
            gain: factor of every gain, on top of ``strength``; 0 gives the rollouts without a goal, bit for bit.
            origin: of the same batch and number of samples, where it is known already.
            recent: (B, Y), see ``recent``; stretches calibrated ``sample`` of sequences without a goal.

        Raises:
            ValueError: contexts of different lengths, another number of goals than sequences, or a negative gain.
        """
        world, size = self.world, len(batch)
        if len(goals) != size:
            raise ValueError(f"{len(goals)} goals for {size} sequences; give one (or None) for each")
        if not gain >= 0:
            raise ValueError(f"the gain was to be multiplied by {gain}; expected 0 (no goal) or more")
        generator = generator or torch.Generator().manual_seed(0)
        origin, strength = origin or self.origin(batch, samples, generator), self.strength * gain
        pull = world.steering.towards(world.encode_goals(batch, goals).repeat(samples), strength)
        noise = world.draw_noise(samples * size, origin.steps, generator)
        imagined = world.imagine(origin.belief, origin.error, origin.first, noise, pull)
        x, mean, sample = (part.unflatten(0, (samples, size)) for part in imagined)
        if calibrated:
            pulled = [goal is not None and strength > 0 for goal in goals]
            sample = self.calibration(sample, torch.tensor(pulled, device=world.device), recent)
        return Rollouts(origin.scale.inverse(mean), origin.scale.inverse(sample), x)

    def recent(self, batch: Batch, data: object) -> Tensor | None:
        """Factors (B, Y) for fans without a goal, by how forecasts from earlier origins of the same series fell.

        None where the data module has no ``earlier`` (`gssr.sequences.source.SequenceSource`) or no earlier windows.
        """
        earlier = getattr(data, "earlier", None)
        return None if earlier is None else recent_spread(self, batch, earlier)

    @torch.no_grad()
    def origin(self, batch: Batch, samples: int, generator: torch.Generator | WindowNoise) -> Origin:
        """Filter the context S times, without any goal. Raises ValueError for contexts of different lengths."""
        world, first, size = self.world, context_length(batch), len(batch)
        world.prepare()
        noise = world.draw(samples * size, first, world.config.latent_dim, generator=generator)
        scale = world.scale(batch)
        before, after = (scale, scale) if isinstance(scale, Scaler) else (scale.steps(0, first), scale.steps(first))
        filtered = world.observe(first_steps(batch, first), noise, samples=samples, scale=before)
        belief = filtered.belief.at(torch.full((samples * size,), first - 1, device=world.device))
        steps = batch.value.shape[1] - first
        return Origin(belief, world.begun(filtered, first, steps, scale, samples), first, steps, after)

    @torch.no_grad()
    def plan(
        self,
        batch: Batch,
        goals: Sequence[str | None],
        samples: int = 64,
        texts: bool = True,
        max_new_tokens: int = 64,
        generator: torch.Generator | None = None,
        gain: float = 1.0,
        recent: Tensor | None = None,
    ) -> Plan:
        """Rollouts with their spread, and for each step the text that the frozen model writes behind a belief.

        There is no text, but a warning, where beliefs told validation nothing of texts.
        """
        rollouts = self.rollout(batch, goals, samples, generator, gain=gain, recent=recent)
        return self.described(batch, rollouts, texts and self.calibration.tells(), max_new_tokens)

    @torch.no_grad()
    def described(self, batch: Batch, rollouts: Rollouts, texts: bool = True, max_new_tokens: int = 64) -> Plan:
        """Any rollouts of a batch as a plan: their mean, their spread and, with ``texts``, a text for each step.

        Texts are those of ``told`` rollouts, the first of them the nearest to the mean path. Each is written behind the
        last texts of the context and of its future so far, where the speaker reads any.

        Raises ValueError for more futures than rollouts.
        """
        levels = torch.tensor(QUANTILE_LEVELS, device=rollouts.sample.device)
        quantiles = rollouts.sample.quantile(levels, dim=0).movedim(0, -1)
        samples, sequences = rollouts.x.shape[:2]
        summary = Plan(rollouts, rollouts.mean.mean(0), quantiles, [[] for _ in range(sequences)])
        if not texts:
            return summary
        if self.told > samples:
            raise ValueError(f"{self.told} futures are to be told of {samples} rollouts; imagine more, or tell fewer")
        chosen, share = representatives(rollouts.x.flatten(2), self.told)
        rows = torch.arange(sequences, device=rollouts.x.device)
        # All futures are written at once, as if they were more sequences.
        x, values = (part[chosen, rows].flatten(0, 1) for part in (rollouts.x, rollouts.mean))
        if (row := self.speaker.prompts.row) is not None:
            values = row.rounded(values)  # text and row are about the same numbers
        said = self._written(batch.select([*range(sequences)] * self.told), x, values, max_new_tokens)
        told = values.unflatten(0, (self.told, sequences))
        futures = tuple(
            Future(chosen[k], share[k], told[k], said[k * sequences : (k + 1) * sequences]) for k in range(self.told)
        )
        return replace(summary, text=futures[0].text, spoken=futures[0].values, futures=futures)

    def _written(self, batch: Batch, x: Tensor, spoken: Tensor, max_new_tokens: int) -> list[list[str]]:
        """Texts of beliefs x (B, H, D) at values (B, H, Y): all at once, or step by step behind those before."""
        (size, steps), prompts = x.shape[:2], self.speaker.prompts
        said, numbers = prompts.observed(batch), self._numbers(batch, spoken)
        values, written = spoken.tolist(), [[] for _ in range(size)]
        at_once = 1 if prompts.history and prompts.own else steps
        for first in range(0, steps, at_once):
            places = [(b, t) for b in range(size) for t in range(first, first + at_once)]
            asked = [prompts(said[b], values[b][t]) for b, t in places]
            behind = (part[:, first : first + at_once].flatten(0, 1) for part in (x, numbers))
            texts = self.speaker.write(next(behind), max_new_tokens, asked, next(behind))
            for (b, t), text in zip(places, texts, strict=True):
                written[b].append(text)
                if text and prompts.own:
                    said[b].append(Said(text, values[b][t]))
        return written

    def _numbers(self, batch: Batch, spoken: Tensor) -> Tensor:
        """What speaks reads of imagined values (B, H, Y), which follow the context: (B, H, 13 Y)."""
        first = batch.value.shape[1] - spoken.shape[1]
        value = torch.cat([batch.value[:, :first], spoken.to(batch.value)], 1)
        seen = torch.cat([batch.value_mask[:, :first], torch.ones_like(spoken, dtype=torch.bool)], 1)
        return self.numbers(replace(batch, value=value, value_mask=seen))[:, first:]

    def numbers(self, batch: Batch) -> Tensor:
        """What speaks reads of the batch's values, (B, T, 13 Y)."""
        return numbers_of(self.world, batch)

    @torch.no_grad()
    def prior_samples(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """x_t (B, T, D) drawn from p(x_t | h_t) without a goal; h_t has read the values and texts before t only."""
        self.world.prepare()
        generator = generator or torch.Generator().manual_seed(0)
        shape = (*batch.step_mask.shape, self.world.config.latent_dim)
        filtered = self.world.observe(batch, self.world.draw(*shape, generator=generator))
        return filtered.prior.sample(self.world.draw(*shape, generator=generator))

    @torch.no_grad()
    def latent_health(self, batch: Batch) -> dict[str, Tensor | float]:
        """Whether the belief is used, without goals.

        Returns:
            ``kl_per_dim`` (D,): raw KL of each dimension in nats; ``value_error``: mean absolute error of values
            decoded from x, in standard units; ``value_error_permuted``: the same with x permuted between sequences.
        """
        world = self.world
        world.prepare()
        generator = torch.Generator().manual_seed(0)
        noise = world.draw(*batch.step_mask.shape, world.config.latent_dim, generator=generator)
        filtered = world.observe(batch, noise)
        _, _, per_dim = kl_terms(filtered.posterior, filtered.prior, filtered.observed & batch.step_mask, 0.0)
        scaled, x = world.scaled_values(batch), filtered.belief.x
        own, permuted = (
            masked_mean((world.decode(each).mean - scaled).abs(), batch.value_mask).item()
            for each in (x, x.roll(1 + len(batch) // 2, 0))
        )
        return {"kl_per_dim": per_dim, "value_error": own, "value_error_permuted": permuted}
