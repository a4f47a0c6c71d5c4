"""A network and a data module that evaluation can be tried on, with known answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from gssr.evaluation.baselines import persistence
from gssr.sequences.record import Batch, Record
from gssr.sequences.scaler import Scaler
from gssr.sequences.windows import rows_once

NAMES, UNITS = ("wind", "pressure"), ("kt", "hPa")


@dataclass
class FakePlan:
    rollouts: SimpleNamespace
    mean: Tensor
    quantiles: Tensor
    text: list[list[str]]
    spoken: Tensor | None = None
    quantile_levels: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9)
    futures: tuple[SimpleNamespace, ...] = ()


class FakeNetwork:
    """Persists without a goal; with one, goes straight to its number in every dimension. `noise` is added to every
    step.
    """

    training = False
    device = torch.device("cpu")

    def __init__(self, noise: float = 0.0, value_noise: float = 1.0) -> None:
        self.noise, self.value_noise = noise, value_noise
        self.calls: list[tuple[int, int]] = []

    def rollout(
        self,
        batch: Batch,
        goals: list[str | None],
        samples: int,
        generator: torch.Generator | None = None,
        gain: float = 1.0,
    ) -> SimpleNamespace:
        self.calls.append((len(batch), samples))
        path = persistence(batch)
        share = torch.arange(1, path.shape[1] + 1) / path.shape[1]
        for row, goal in enumerate(goals):
            if goal is not None:
                number = float(re.search(r"-?\d+", goal).group())
                path[row] += share[:, None] * (number - path[row, 0])
        shape = (samples, *path.shape)
        mean = path + self.noise * torch.randn(shape, generator=generator)
        return SimpleNamespace(
            mean=mean, sample=mean + self.value_noise * torch.randn(shape, generator=generator), x=None
        )

    def plan(
        self,
        batch: Batch,
        goals: list[str | None],
        samples: int = 64,
        generator: torch.Generator | None = None,
        gain: float = 1.0,
    ) -> FakePlan:
        rollouts = self.rollout(batch, goals, samples, generator or torch.Generator().manual_seed(0))
        quantiles = rollouts.sample.quantile(torch.tensor(FakePlan.quantile_levels), dim=0).movedim(0, -1)
        spoken = rollouts.mean[0]
        text = [[f"{self.status(float(wind))} X, step {h}" for h, wind in enumerate(row)] for row in spoken[..., 0]]
        return FakePlan(rollouts, rollouts.mean.mean(0), quantiles, text, spoken)

    @staticmethod
    def status(wind: float) -> str:
        return "Hurricane" if wind >= 64 else "Tropical storm" if wind >= 34 else "Low"


class FakeSpeaker(FakeNetwork):
    """Its belief x_t is one number, the series' own; a text says that number and costs (x - number)² nats, in 2 tokens.

    Behind no belief it costs 4 nats.
    """

    def __init__(self, noise: float = 0.0, value_noise: float = 1.0) -> None:
        super().__init__(noise, value_noise)
        self.forecaster = self.speaker = self
        self.prompts = SimpleNamespace(of=lambda batch, steps, told=None: [None] * len(steps))

    def latent_health(self, batch: Batch) -> dict[str, object]:
        self.health_batch = batch
        return {"kl_per_dim": torch.tensor([0.5, 0.03, 0.01, 0.0]), "value_error": 2.0, "value_error_permuted": 5.0}

    def prior_samples(self, batch: Batch, generator: torch.Generator) -> Tensor:
        steps = batch.value.shape[1]
        own = torch.tensor([float(name.split()[1]) for name in batch.series])
        return own[:, None, None].expand(-1, steps, 1) + 0.01 * torch.randn(len(own), steps, 1, generator=generator)

    def numbers(self, batch: Batch) -> Tensor:
        return batch.value

    def text_nats(
        self, x: Tensor, texts: list[str], prompts: list[str | None], numbers: Tensor
    ) -> tuple[Tensor, Tensor]:
        said = torch.tensor([float(text.split()[1]) for text in texts])
        return (x[:, 0] - said) ** 2, torch.full((len(texts),), 2)

    def silent_nats(self, texts: list[str], prompts: list[str | None]) -> tuple[Tensor, Tensor]:
        return torch.full((len(texts),), 4.0), torch.full((len(texts),), 2)


def series(number: int, steps: int = 12, context: int = 4, windows: int = 3, slope: float = 1.0) -> list[Record]:
    """Overlapping windows of storm `number`: a noisy climb of the wind from 10 · (number % 5), steps of 6 hours."""
    generator = np.random.default_rng(number)
    total = steps + windows - 1
    wind = 20 + 10 * (number % 5) + np.cumsum(slope + generator.normal(0, 2, total))
    value = np.stack([wind, 1000 - wind / 2 + generator.normal(0, 1, total)], axis=1)
    return [
        Record(
            series=f"Storm {number}",
            time=6.0 * np.arange(start, start + steps) + 1000 * number,
            value=value[start : start + steps],
            text=[f"Storm {number} at {t}" for t in range(start, start + steps)],
            goal_start=context - 1,
            goal_step=steps - 1,
            step_label=[("weak", "strong")[int(w > 40)] for w in wind[start : start + steps]],
        )
        for start in range(windows)
    ]


def with_goal(record: Record, low: float, high: float, text: str | None = None) -> Record:
    """The record with a goal about the wind."""
    silent = np.nan
    return Record(
        **{
            **vars(record),
            "goal": text or f"Be at {round((low + high) / 2)} kt",
            "goal_low": np.array([low, silent]),
            "goal_high": np.array([high, silent]),
        }
    )


class FakeStorms:
    """A data module of `storms` short series a split; goals are what was reached, "numbers" only for every second
    window.
    """

    value_names, value_units, value_resolution, value_guides = NAMES, UNITS, (5.0, 1.0), ()
    goal_dim, known_values, level_jitter, season_steps, goal_writer = 0, 0, 0.0, None, None
    has_text, has_goals = True, True

    def __init__(self, storms: int = 8) -> None:
        self.splits = {
            split: [record for n in range(first, first + storms) for record in series(n)]
            for split, first in (("train", 0), ("val", 100), ("test", 200))
        }
        self.stages: list[str] = []

    def setup(self, stage: str) -> None:
        self.stages.append(stage)

    @property
    def scaler(self) -> Scaler:
        return Scaler(len(NAMES)).fit(rows_once(self.splits["train"]))

    def windows(self, split: str) -> list[Record]:
        return self.splits[split]

    def texts(self) -> list[str]:
        return []

    def windows_evaluation(self, split: str, goals: str) -> list[Record]:
        records = self.splits[split][:: 2 if goals == "numbers" else 1]
        return [with_goal(r, float(round(r.value[-1, 0])), float(round(r.value[-1, 0]))) for r in records]
