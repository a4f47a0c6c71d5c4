"""What evaluation asks of a network. `gssr.network.GoalNetwork` has all of it; shapes as in the legend of DESIGN.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from gssr.sequences.record import Batch


class Rollouts(Protocol):
    """S rollouts in data units, (S, B, H, Y) each: `mean` decoded without value noise, `sample` with it."""

    @property
    def mean(self) -> Tensor: ...

    @property
    def sample(self) -> Tensor: ...


class Future(Protocol):
    """A rollout of each sequence that is told in words.

    `share` (B): share of all rollouts that it is the nearest to, among those that are told. `values` (B, H, Y): its
    values without noise, in data units. `text`: for each sequence H texts.
    """

    share: Tensor
    values: Tensor
    text: list[list[str]]


class Plan(Protocol):
    """Rollouts and their summary.

    `mean` (B, H, Y) and `quantiles` (B, H, Y, Q) at `quantile_levels` (Q), in data units. `futures` are those that are
    told, the typical one first: its texts are `text` (for each sequence H texts, or none), its values `spoken` (B, H,
    Y); none and None without texts.
    """

    rollouts: Rollouts
    mean: Tensor
    quantiles: Tensor
    quantile_levels: tuple[float, ...]
    text: list[list[str]]
    spoken: Tensor | None
    futures: Sequence[Future]


class ForecastNetwork(Protocol):
    """A network that forecasts, with goals or without."""

    training: bool

    @property
    def device(self) -> torch.device: ...

    def train(self, mode: bool = True) -> Any: ...

    def eval(self) -> Any: ...

    def rollout(
        self,
        batch: Batch,
        goals: list[str | None],
        samples: int,
        generator: torch.Generator | None = None,
        *,
        gain: float = 1.0,
    ) -> Rollouts:
        """Rollouts of every sequence from its filtered context.

        `goals`: a sentence, or None, for each sequence; `generator`: on the CPU; `gain`: factor of the goals' pull.
        """


class BeliefForecaster(Protocol):
    """What is asked of the beliefs of a network."""

    def latent_health(self, batch: Batch) -> Mapping[str, Any]:
        """How the latent is used, the goal off.

        `kl_per_dim` (D): mean raw KL in nats. `value_error`: error of values decoded from posterior samples x, in any
        unit. `value_error_permuted`: the same from x permuted between sequences.
        """

    def prior_samples(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """x_t ~ p(x_t | h_t), (B, T, D), the goal off; h_t has read values and texts before t only."""

    def numbers(self, batch: Batch) -> Tensor:
        """What speaks reads of each step's values, (B, T, N)."""


class PromptMaker(Protocol):
    """What stands in front of texts beside a belief."""

    def of(
        self, batch: Batch, steps: Sequence[tuple[int, int]], *, told: Sequence[tuple[int, int]] | None = None
    ) -> list[str | None]:
        """The prompt, None for nothing, of the texts at N (sequence, step) pairs of a batch.

        Args:
            told: N pairs whose values rows tell in place of the texts' own.
        """


class BeliefSpeaker(Protocol):
    """How likely texts are behind prompts and beliefs."""

    prompts: PromptMaker

    def text_nats(
        self, x: Tensor, texts: Sequence[str], prompts: Sequence[str | None], numbers: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of each text behind its prompt, x (N, D) and what `numbers` gives, and its number of
        tokens, end included; (N) each.
        """

    def silent_nats(self, texts: Sequence[str], prompts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """The same behind no belief."""


class SpeakingNetwork(ForecastNetwork, Protocol):
    """A forecasting network with a latent belief that it puts into words."""

    value_names: Sequence[str]
    value_units: Sequence[str]
    forecaster: BeliefForecaster
    speaker: BeliefSpeaker

    def plan(
        self,
        batch: Batch,
        goals: list[str | None],
        samples: int,
        *,
        texts: bool = True,
        generator: torch.Generator | None = None,
        gain: float = 1.0,
    ) -> Plan:
        """Rollouts with a text for each step."""
