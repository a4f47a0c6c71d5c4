"""The objective: every loss with its weight, and which components each of them trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from gssr.domains import CountOrNone, Fraction, NonNegative, Range, Steps, checked
from gssr.network.goal_encoder import LatentGoal
from gssr.network.layers import exact
from gssr.network.losses import Losses, Measured, antithetic_crps, goal_distance, kl_terms, masked_mean, value_nll
from gssr.network.noise import WindowNoise
from gssr.network.normalisation import WindowScale
from gssr.network.numbers import numbers_of
from gssr.network.own_words import respelled
from gssr.network.rssm import Filtered
from gssr.network.speaker import Speaker
from gssr.network.world_model import WorldModel
from gssr.sequences.context import context_length
from gssr.sequences.record import Batch

# Each loss and the components that it sends a gradient into.
LOSSES: dict[str, frozenset[str]] = {
    "value": frozenset({"rssm", "text_projection", "value_head"}),
    "text": frozenset({"rssm", "text_projection", "prefix", "state"}),
    "kl": frozenset({"rssm", "steering", "goal_encoder", "text_projection"}),
    "open": frozenset({"rssm", "steering", "goal_encoder", "text_projection", "value_head", "forecast_error"}),
    "goal": frozenset({"goal_encoder", "value_head"}),
}
# Components that get no gradient from data without texts or without goals.
READERS = {
    "text": frozenset({"text_projection", "prefix", "state"}),
    "goals": frozenset({"goal_encoder", "steering"}),
}
# Share of the batches that are imagined from where their plans begin, since forecasts are made from there.
OWN_CONTEXT = 0.5


@checked
@dataclass(frozen=True)
class ObjectiveConfig:
    """The weights of the losses, 0 switches one off, and how training sequences are thinned out.

    Args:
        alpha_value: Weight of the value's negative log-likelihood.
        alpha_text: Weight of the cross-entropy of texts, in nats a token.
        alpha_kl: Weight of the KL between posterior and steered prior.
        alpha_open: Weight of the CRPS of open-loop rollouts.
        alpha_goal: Weight of the distance between the value that a goal promises and its bounds.
        free_nats: KL a step below which no gradient flows; FreeNatsAnnealing moves it.
        text_steps: (sequence, step) pairs of a batch, drawn at random, whose text enters the text loss. Validation
            measures one text of each of up to 192 windows, so many at once; 0 measures none.
        text_dropout: Share of training sequences whose texts are not observed, so that numbers suffice for filtering.
        goal_dropout: Share of training sequences without their goal, so that one network forecasts with and without.
        open_samples: Rollouts S of a sequence in the open-loop loss, an even number of at least 4.
        min_context: Shortest context of the open-loop loss, in steps.
    """

    alpha_value: NonNegative = 1.0
    alpha_text: NonNegative = 1.0
    alpha_kl: NonNegative = 0.3
    alpha_open: NonNegative = 10.0
    alpha_goal: NonNegative = 1.0
    free_nats: NonNegative = 1.0
    text_steps: CountOrNone = 16
    text_dropout: Fraction = 0.25
    goal_dropout: Fraction = 0.5
    open_samples: Annotated[int, Range(4, 1024)] = 4
    min_context: Steps = 2

    def __post_init__(self) -> None:
        if self.open_samples % 2:
            raise ValueError(f"open_samples is {self.open_samples}; rollouts come in pairs: 4, 6 …")


class Objective:
    """All losses of a batch.

    Args:
        config: weights and options. world, speaker: what is trained.
    """

    def __init__(self, config: ObjectiveConfig, world: WorldModel, speaker: Speaker) -> None:
        self.config, self.world, self.speaker = config, world, speaker
        self.free_nats = config.free_nats
        self.weights = {name: getattr(config, f"alpha_{name}") for name in LOSSES}
        self.lacks: set[str] = set()  # "text", "goals": what the data has none of
        self.text_gain: Measured | None = None  # of the last batch of validation

    @property
    def device(self) -> torch.device:
        return self.world.device

    def components(self) -> dict[str, nn.Module]:
        """The trained parts by name."""
        world, speaker = self.world, self.speaker
        parts = {name: getattr(world, name) for name in ("rssm", "steering", "goal_encoder", "text_projection")}
        parts |= {"value_head": world.value_head, "forecast_error": world.forecast_error}
        parts |= {"prefix": speaker.prefix, "state": speaker.state}
        return {
            name: part for name, part in parts.items() if part is not None and next(part.parameters(), None) is not None
        }

    def active_losses(self) -> dict[str, set[str]]:
        """For each component the losses with a weight above 0 that train it; none where the data gives it no input."""
        idle = frozenset().union(*(READERS[kind] for kind in self.lacks))
        if not self.world.table.reading.observes:
            idle |= {"text_projection"}
        if self.config.goal_dropout >= 1:
            idle |= {"steering"}
        return {
            name: set()
            if name in idle
            else {loss for loss, trained in LOSSES.items() if name in trained and self.weights[loss] > 0}
            for name in self.components()
        }

    def __call__(self, batch: Batch, generator: torch.Generator | WindowNoise, training: bool) -> Losses:
        """The losses of a batch; ``training`` drops texts and goals at random."""
        world, size, steps = self.world, len(batch), batch.value.shape[1]
        keep_text = keep_goal = torch.ones(size, dtype=torch.bool)
        if training:
            keep_text = torch.rand(size, generator=generator) >= self.config.text_dropout
            keep_goal = torch.rand(size, generator=generator) >= self.config.goal_dropout
        goal = world.encode_goals(batch, batch.goal)
        kept = goal._replace(active=goal.active & keep_goal.to(world.device))
        noise = world.draw(size, steps, world.config.latent_dim, generator=generator)
        filtered = world.observe(batch, noise, kept, keep_text.to(world.device))

        seen = filtered.observed & batch.step_mask
        clipped, raw, per_dim = kl_terms(filtered.posterior, filtered.steered, seen, self.free_nats)
        first, steps_seen = self.first_imagined(batch, generator), seen.sum()
        measured = {
            "kl": Measured(clipped, steps_seen),
            "value": self.value_loss(batch, filtered),
            "open": self.open_loss(batch, filtered, kept, first, generator),
            "goal": self.goal_loss(batch, goal),
            "text": self.text_loss(batch, self.spoken_from(filtered, generator), generator, keep_text, training),
        }
        assert measured.keys() == self.weights.keys(), (sorted(measured), sorted(self.weights))
        terms = {name: loss.mean for name, loss in measured.items()}
        figures = {f"loss_{name}": loss for name, loss in measured.items()}
        nats = {"kl_raw": raw, "kl_clipped": clipped} | {f"kl_dim_{d:02d}": each for d, each in enumerate(per_dim)}
        figures |= {name: Measured(mean, steps_seen) for name, mean in nats.items()}
        if self.text_gain is not None:
            figures["text_gain"] = self.text_gain
        return Losses(terms, sum(weight * terms[name] for name, weight in self.weights.items()), figures)

    def weighted(self, means: Mapping[str, Any]) -> dict[str, Any]:
        """The weighted losses that are among means by name, and their sum ``loss``; none where no loss was measured."""
        names = [name for name in self.weights if f"loss_{name}" in means]
        parts = {f"loss_{name}_weighted": self.weights[name] * means[f"loss_{name}"] for name in names}
        return parts | ({"loss": sum(parts.values())} if parts else {})

    @exact
    def value_loss(self, batch: Batch, filtered: Filtered) -> Measured:
        """-log p(y_t | x_t) on posterior samples, mean over the steps with a value."""
        any_value = batch.value_mask.any(-1) & batch.step_mask
        nll = value_nll(self.world.decode(filtered.belief.x), self.world.scaled_values(batch), batch.value_mask)
        return _measured(nll, any_value)

    def spoken_from(self, filtered: Filtered, generator: torch.Generator | WindowNoise) -> Tensor:
        """The beliefs x (B, T, D) that texts are learned behind: those that have read their step.

        Where the speaker reads the values of the step, too, they are those before their step: they leave it to the
        values to say what a step is like, as in a plan, whose values are rounded and whose beliefs have read no text.
        """
        x = filtered.belief.x
        return filtered.prior.sample(self.world.draw(*x.shape, generator=generator)) if self.speaker.numbers else x

    def text_loss(
        self,
        batch: Batch,
        x: Tensor,
        generator: torch.Generator | WindowNoise,
        heard: Tensor | None = None,
        training: bool = False,
    ) -> Measured:
        """Nats a token of texts behind the beliefs x (B, T, D): of ``text_steps`` steps, or of one step a window.

        Args:
            heard: (B,), False for sequences whose texts were not observed: they are in no prompt either.
            training: some prompts lack the newest texts, see Prompts, and some words are spelled anew, see respelled.
        """
        nothing = Measured(self.speaker.zero(x[0, :1]), torch.zeros((), dtype=torch.int64, device=x.device))
        most, self.text_gain = self.config.text_steps, None
        if self.weights["text"] == 0:
            return nothing
        texts = [[t for t, text in enumerate(row) if text is not None] for row in batch.text]
        if isinstance(generator, WindowNoise):
            picked = generator.pick([max(1, len(steps)) for steps in texts])
            chosen = zip(texts, picked, generator.chosen, strict=True)
            rows = [(b, steps[i]) for b, (steps, i, counts) in enumerate(chosen) if steps and most and counts]
        else:
            rows = [(b, t) for b, steps in enumerate(texts) for t in steps]
            rows = [rows[i] for i in torch.randperm(len(rows), generator=generator)[:most].tolist()]
        if not rows:
            return nothing
        if training and self.speaker.prompts.history:
            batch = respelled(batch, [b for b, t in rows if t > texts[b][0] and (heard is None or heard[b])], generator)
        numbers, found = numbers_of(self.world, batch), []
        for start in range(0, len(rows), most):
            b, t = torch.tensor(part := rows[start : start + most], device=x.device).T
            prompts = self.speaker.prompts.of(batch, part, heard, generator if training else None)
            said = [batch.text[i][j] for i, j in part]
            found.append(self.speaker.text_nats(x[b, t], said, prompts, numbers[b, t]))
        nats, tokens = (sum(each.sum() for each in column) for column in zip(*found, strict=True))
        if isinstance(generator, WindowNoise):
            b, t = torch.tensor(rows[:most], device=x.device).T
            self.text_gain = self._gain(batch, x, rows[:most], found[0], heard, numbers[b, t])
        return Measured(nats / tokens + nothing.mean, tokens)

    def _gain(
        self,
        batch: Batch,
        x: Tensor,
        rows: list[tuple[int, int]],
        own: tuple[Tensor, Tensor],
        heard: Tensor | None,
        numbers: Tensor,
    ) -> Measured | None:
        """Nats a token by which the texts of some steps cost more behind belief, numbers and row of another of these
        steps, and behind what was said before themselves.

        own: nats and tokens (N) behind their own beliefs. numbers: of the steps, (N, 13 Y). None for a single text.
        """
        if len(rows) < 2:
            return None
        b, t = torch.tensor(rows, device=x.device).T
        prompts = self.speaker.prompts.of(batch, rows, heard, None, rows[-1:] + rows[:-1])
        said = [batch.text[i][j] for i, j in rows]
        nats, tokens = self.speaker.text_nats(x[b, t].roll(1, 0), said, prompts, numbers.roll(1, 0))
        return Measured((nats - own[0]).sum() / tokens.sum(), tokens.sum())

    def first_imagined(self, batch: Batch, generator: torch.Generator | WindowNoise) -> int:
        """The step from which a batch is imagined: where its plans begin, or any from ``min_context`` on.

        Under a window's own normalisation the values of the context are known, so none of them is imagined. Validation
        imagines every window from where its plan begins.
        """
        if isinstance(generator, WindowNoise):
            return context_length(batch)
        own, share = torch.rand(2, generator=generator).tolist()
        if own < OWN_CONTEXT:
            return context_length(batch)
        by_window = self.world.config.normalisation != "training"
        least = max(self.config.min_context, min(self.world.config.linear_lags, context_length(batch)))
        first, steps = context_length(batch) if by_window else least, batch.value.shape[1]
        return min(first + int(share * (steps - first)), steps - 1)

    @exact
    def open_loss(
        self, batch: Batch, filtered: Filtered, goal: LatentGoal, first: int, generator: torch.Generator | WindowNoise
    ) -> Measured:
        """CRPS of rollouts from step ``first`` on, mean over the observed steps, in units of the forecast's error.

        Two scores are added: of the rollouts' values, and of the one-step changes of their values without drawn errors,
        from the last observed value on.
        """
        world, size, samples = self.world, len(batch), self.config.open_samples
        scale, seen, steps = world.scale(batch), batch.value_mask, batch.value.shape[1] - first
        scaled = scale.transform(batch.value, seen)
        belief = filtered.belief.at(torch.full((size,), first - 1, device=scaled.device)).repeat(samples)
        noise = world.draw_noise(samples // 2 * size, steps, generator).mirrored()
        error = world.begun(filtered, first, steps, scale).repeat(samples, 1, 1)
        pull = world.steering.towards(goal.repeat(samples))
        imagined = world.imagine(belief, error, first, noise, pull)
        mean, sample = (part.unflatten(0, (samples, size)) for part in imagined[1:])
        moves = mean.diff(dim=2, prepend=scaled[:, first - 1 : first].expand(samples, -1, -1, -1))
        moved = scaled[:, first - 1 :].diff(dim=1)
        unit = world.forecast_error.unit
        sample, scaled, moves, moved = (each / unit for each in (sample, scaled, moves, moved))
        score = antithetic_crps(sample, scaled[:, first:], seen[:, first:])
        score = score + antithetic_crps(moves, moved, seen[:, first:] & seen[:, first - 1 : -1])
        return _measured(score, seen[:, first:].any(-1) & batch.step_mask[:, first:])

    @exact
    def goal_loss(self, batch: Batch, goal: LatentGoal) -> Measured:
        """Squared distance between the value that x_g promises and the goal's bounds, mean over the goals with any."""
        world = self.world
        low, high = (self._scaled(bound, batch) for bound in (batch.goal_low, batch.goal_high))
        bounded = goal.active & ~(torch.isnan(low) | torch.isnan(high)).all(-1)
        return _measured(goal_distance(world.decode(goal.x).mean, low, high), bounded)

    def _scaled(self, bound: Tensor, batch: Batch) -> Tensor:
        """Bounds (B, Y) in the units that the network sees at the step of the goals."""
        scale = self.world.scale(batch)
        if not isinstance(scale, WindowScale):
            return scale.transform(bound)
        zero, one = scale.at(batch.goal_step)
        return (bound - zero) / one


def _measured(values: Tensor, mask: Tensor) -> Measured:
    return Measured(masked_mean(values, mask), mask.sum())
