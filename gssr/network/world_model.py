"""The world model: encode goals and texts, observe, imagine, decode. Losses and Lightning are elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from gssr.backbone import FrozenBackbone
from gssr.backbone.readings import MeanReading, Reading
from gssr.backbone.table import TextTable
from gssr.domains import CountOrNone, Few, Layer, Layers, Steps, Width, checked
from gssr.network.calendar import level_of, scale_of
from gssr.network.config import fixed
from gssr.network.forecast_error import Decoder, ForecastError
from gssr.network.gaussian import Gaussian
from gssr.network.goal_encoder import GoalEncoder, GoalReader, LatentGoal
from gssr.network.goal_units import GoalUnits
from gssr.network.heads import ValueHead
from gssr.network.layers import exact
from gssr.network.linear import LinearForecast
from gssr.network.noise import WindowNoise
from gssr.network.normalisation import WindowScale
from gssr.network.posterior import Posterior, ProductPosterior
from gssr.network.rssm import RSSM, Belief, Filtered, Imagined, Noise
from gssr.network.steering import Pull, SteeringConfig
from gssr.sequences.record import Batch
from gssr.sequences.scaler import Scaler

LEAST_FLOOR = 0.02  # of the value's standard deviation, in standard units


@checked
@dataclass(frozen=True)
class WorldModelConfig:
    """The belief, and how it reads values, texts and goals.

    Args:
        latent_dim: D, width of the latent state.
        hidden_dim: G, width of the GRU and of all heads.
        text_layers: Layers of the backbone whose mean token states are a step's text observation.
        text_reading: Class that turns a text into an observation: MeanReading or a subclass of Reading of your own.
        goal_layer: Layer of the backbone whose token states the goal encoder reads.
        goal_queries: Learned queries of the goal encoder.
        posterior: Class of the posterior: ProductPosterior, MlpPosterior or a subclass of Posterior of your own.
        reads_changes: The GRU reads the last change of values, too.
        error_order: Past steps that the error of a forecast goes on from: 1, or a season and one more.
        normalisation: Units in which the network sees values and the levels in goals: training, of the training part;
            for levels that drift, window, of each window's own context, last, its last value and the deviation of the
            training part, or mixed, its mean and how large its changes are beside those of the training part. auto:
            the one whose linear forecasts are best.
        calendar: What waves of the year, the week and the day explain is taken from values before all else. auto:
            where linear forecasts are better for it.
        linear_lags: Longest lag of a linear autoregression inside, fitted before training; the belief learns what it
            leaves, and error_order is not used. 0: there is none.
        series_prior: Beside the linear autoregression, a forecaster of single series that was pretrained on generated
            ones, with the share that is best at rolling origins; for at most 32 values, and not used without
            linear_lags.
    """

    latent_dim: Width = fixed(16)
    hidden_dim: Width = fixed(128)
    text_layers: Layers = fixed((4,))
    text_reading: Callable[[], Reading] = fixed(MeanReading)
    goal_layer: Layer = fixed(3)
    goal_queries: Few = fixed(4)
    posterior: Callable[[int, int, int], Posterior] = fixed(ProductPosterior)
    reads_changes: bool = fixed(False)
    error_order: Steps = fixed(1)
    normalisation: Literal["auto", "training", "window", "last", "mixed"] = fixed("training")
    calendar: Literal["auto"] | bool = fixed(False)
    linear_lags: CountOrNone = fixed(0)
    series_prior: bool = fixed(False)


class WorldModel(nn.Module):
    """A recurrent state-space model of (value, text, goal) sequences that reads through a frozen language model.

    Args:
        config: sizes and readings. steering: how a goal moves the prior.
        backbone: the frozen model; it is no submodule.
        value_dim: Y.
        goal_units: writes goals in units of their windows.
    """

    def __init__(
        self,
        config: WorldModelConfig,
        steering: SteeringConfig,
        backbone: FrozenBackbone,
        value_dim: int,
        goal_units: GoalUnits | None = None,
    ) -> None:
        super().__init__()
        if "auto" in (config.normalisation, config.calendar):
            raise ValueError(
                "world.normalisation or world.calendar is auto, which the data of a first fit decide; without them "
                "give others, such as training and false"
            )
        self.config, self.backbone, self.value_dim = config, backbone, value_dim
        self.goal_units = goal_units or GoalUnits()
        self.table = TextTable(backbone, config.text_layers, config.text_reading())
        self.read_goals = GoalReader(backbone, config.goal_layer)
        latent, hidden = config.latent_dim, config.hidden_dim
        self.scaler = Scaler(value_dim)
        self.text_projection = nn.Sequential(nn.LayerNorm(self.table.width), nn.Linear(self.table.width, latent))
        self.goal_encoder = GoalEncoder(backbone.hidden_size, latent, hidden, config.goal_queries)
        self.steering = steering.build(latent)
        self.rssm = RSSM(value_dim, latent, hidden, config.posterior, config.reads_changes)
        self.value_head = ValueHead(latent, hidden, torch.full((value_dim,), LEAST_FLOOR))
        self.forecast_error: ForecastError | LinearForecast
        if config.linear_lags:
            self.forecast_error = LinearForecast(value_dim, latent, hidden, config.linear_lags, config.series_prior)
        else:
            self.forecast_error = ForecastError(value_dim, latent, hidden, config.error_order)

    @property
    def device(self) -> torch.device:
        return self.rssm.first_h.device

    def fit_units(self, scaler: Scaler, resolution: Sequence[float]) -> None:
        """Take the scaler of the training part; the value's noise is at least half of the data's resolution (Y)."""
        self.scaler.load_state_dict(scaler.state_dict())
        half = torch.tensor(resolution) / 2 / self.scaler.std.cpu()
        self.value_head.floor.copy_(half.clamp(min=LEAST_FLOOR))

    @exact
    def prepare(self, texts: Iterable[str] = ()) -> None:
        """Move the frozen model to the device of the trained parts, and read texts that ``observe`` will look up."""
        self.backbone.to(self.device)
        self.table.to(self.device)
        self.table.add(texts)

    @exact
    def encode_goals(self, batch: Batch, goals: Sequence[str | None]) -> LatentGoal:
        """Goals of a batch as points of the latent space; None is a sequence without a goal.

        Where each window has units of its own, they are read in these.
        """
        if isinstance(scale := self.scale(batch), WindowScale) and any(goal is not None for goal in goals):
            goals = self.goal_units(goals, scale, batch.goal_step)
        known = [goal for goal in goals if goal is not None]
        x = torch.zeros(len(goals), self.config.latent_dim, device=self.device)
        active = torch.tensor([goal is not None for goal in goals], device=self.device)
        encoded = self.goal_encoder(*self.read_goals(known))
        # Without any goal the encoder still takes part, with nothing: an unused parameter would stop DDP.
        x = x.masked_scatter(active[:, None], encoded) if known else x + 0 * encoded.sum()
        return LatentGoal(x, active, batch.goal_start, batch.goal_step, batch.step_mask.sum(1))

    def scale(self, batch: Batch) -> Scaler | WindowScale:
        """From data units to those that the network sees, and back."""
        return scale_of(self.config.normalisation, self.config.calendar is True, batch, self.scaler)

    def scaled_values(self, batch: Batch) -> Tensor:
        """The batch's values (B, T, Y) in the units that the network sees, 0 where nothing was observed."""
        return self.scale(batch).transform(batch.value, batch.value_mask)

    @exact
    def observe(
        self,
        batch: Batch,
        noise: Tensor,
        goal: LatentGoal | None = None,
        keep_text: Tensor | None = None,
        samples: int = 1,
        scale: Scaler | WindowScale | None = None,
    ) -> Filtered:
        """Filter a batch, S times if ``samples`` is above 1 (sample-major rows).

        Args:
            noise: (S · B, T, D) standard normal.
            goal: steers the prior only; the belief does not see it.
            keep_text: (B,), False leaves a sequence's texts unread.
            scale: the units to see values in, where the batch does not show its whole window.
        """
        value = (scale or self.scale(batch)).transform(batch.value, batch.value_mask)
        states, text_mask = self.table.look_up(batch.text)
        text_mask = text_mask & batch.step_mask
        if keep_text is not None:
            text_mask = text_mask & keep_text[:, None]
        parts = (value, batch.value_mask, self.text_projection(states), text_mask)
        if samples > 1:
            parts = tuple(part.repeat(samples, *[1] * (part.ndim - 1)) for part in parts)
        return self.rssm.observe(*parts, noise, self.steering.towards(goal))

    @exact
    def begun(
        self, filtered: Filtered, first: int, steps: int, scale: Scaler | WindowScale, samples: int = 1
    ) -> Tensor:
        """What rollouts of H steps from step ``first`` on go on from, (S · B, P, Y): the last P errors of values.

        With a linear autoregression they are the last P values, and with a pretrained forecaster what is added to each
        step stands behind them, see `LinearForecast.added`.

        Args:
            scale: of all steps of the window.
        """
        found, drift = filtered.belief.value, self.forecast_error
        if not drift.of_values:
            found = found - self.decode(filtered.belief.x).mean
        found = drift.last(found, filtered.belief.seen.bool())[:, first - 1]
        if drift.prior is None:
            return found
        rows = len(found) // samples  # all samples have seen the same
        value, seen = (part[:rows, :first] for part in (filtered.belief.value, filtered.belief.seen.bool()))
        added = drift.added(found[:rows], value, seen, steps, level_of(scale))
        own = nn.functional.pad(found, (0, 0, 0, drift.order - found.shape[1]))
        return torch.cat([own, added.repeat(samples, 1, 1)], 1)

    @exact
    def imagine(self, belief: Belief, error: Tensor, first: int, noise: Noise, pull: Pull | None = None) -> Imagined:
        """Roll beliefs (B, …) on from step ``first``; error (B, P, Y): see ``begun``. See RSSM.imagine."""
        return self.rssm.imagine(belief, error, first, noise, Decoder(self.value_head, self.forecast_error), pull)

    @exact
    def decode(self, x: Tensor) -> Gaussian:
        """p(y | x) (…, Y) of beliefs x (…, D), in the units that the network sees."""
        return self.value_head(x)

    def draw(self, *shape: int, generator: torch.Generator | WindowNoise) -> Tensor:
        """Standard normal noise from a CPU generator, so that every device sees the same."""
        by_window = isinstance(generator, WindowNoise)
        noise = generator.normal(*shape) if by_window else torch.randn(*shape, generator=generator)
        return noise.to(self.device)

    def draw_noise(self, rows: int, steps: int, generator: torch.Generator | WindowNoise) -> Noise:
        """The noise of ``rows`` rollouts of ``steps`` steps."""
        return Noise(
            self.draw(rows, steps, self.config.latent_dim, generator=generator),
            self.draw(rows, steps, self.value_dim, generator=generator),
        )
