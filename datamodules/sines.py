"""Noisy sine waves whose best forecasts are known: for tests, and to see what texts and goals are for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from datamodules.sequence_data import SPLITS, SequenceData
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Record

GOALS_FILE = Path(__file__).parent / "sine_goals.yaml"

LEVEL, SWING, PERIOD = 50.0, 10.0, 8  # of the context
DRIFT = 20.0  # most that the level drifts by over the horizon, up or down
TEXTS = {  # the swing of the horizon, and what is said of it
    2.0: ("calm ahead", "the swing will die down", "it is going to be quiet", "almost no swing is coming"),
    20.0: ("storm ahead", "the swing will grow strong", "it is going to be wild", "a large swing is coming"),
}
LAST_SAID = 4  # the text comes in one of the context's last steps


def sine_goal_writer() -> GoalWriter:
    """The writer of goals about the value at the end, from `sine_goals.yaml`."""
    with open(GOALS_FILE, encoding="utf-8") as file:
        return GoalWriter(**yaml.safe_load(file))


def error_without_goal(share: float, noise: float) -> float:
    """Mean absolute error of the best forecast that has read the text but knows no goal, after a share of the horizon.

    It predicts no drift, as up and down are equally likely: E|u + noise · e| for u even in [-share · DRIFT, share · DRIFT] and e
    standard normal; the inner mean is that of a folded normal distribution.
    """
    drift = np.linspace(0, share * DRIFT, 1001)
    if noise == 0:
        return float(drift.mean())
    folded = noise * math.sqrt(2 / math.pi) * np.exp(-((drift / noise) ** 2) / 2)
    folded += drift * np.array([math.erf(m / noise / math.sqrt(2)) for m in drift])
    return float(np.trapezoid(folded, dx=1 / 1000))


class Sines(SequenceData):
    """Series of one window each: a wave around 50 whose swing changes at the horizon, and whose level drifts there.

    The value is a sine with a period of 8 steps and a random phase, plus noise. In the context its swing is 10. In the horizon the swing is 2
    or 20, which one text near the end of the context tells and nothing else does; and the level drifts steadily by up to
    20 up or down, which only the goal tells: a hindsight goal about the value at the horizon's end. So forecasts without
    texts, with texts, and with texts and goal have three different least errors (`expected`, `error_without_goal`).

    Args:
        batch_size: Windows in a batch.
        context: Steps C that are observed.
        horizon: Steps H that are imagined.
        noise: Standard deviation of the noise of every value.
        series: Training series; validation and test have a quarter as many each.
        goal: A goal typed by the user, for every window of `predict`; its bounds are unknown (NaN).
        goal_step: Step of the window, from 0, at which goals should hold; null means the window's last.
        seed: Seed of the series, their order and goals.
        num_workers: Processes that read windows.
        goal_cycle: Training goals repeat after this many epochs, so that their encodings can be kept; 0 means never.

    Raises ValueError for sizes that make no window, negative noise, fewer than 8 series, or an empty goal.
    """

    value_names: tuple[str, ...] = ("value",)
    value_units: tuple[str, ...] = ("",)
    value_resolution: tuple[float, ...] = (0.0,)
    default_config = "../configs/sines.yaml"

    def __init__(
        self,
        batch_size: int = 64,
        context: int = 16,
        horizon: int = 8,
        noise: float = 1.0,
        series: int = 1024,
        goal: str | None = None,
        goal_step: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        goal_cycle: int = 0,
    ) -> None:
        super().__init__(batch_size, context, horizon, 1, goal, goal_step, seed, num_workers, goal_cycle)
        self.save_hyperparameters(logger=False)
        if noise < 0 or series < 8:
            raise ValueError(f"noise {noise} must be at least 0 and series {series} at least 8")
        self.noise, self.series = noise, series
        self.goal_writer = sine_goal_writer()
        self._truth: dict[
            str, tuple[np.ndarray, float]
        ] = {}  # of each series: the horizon without drift, and the drift

    def read_windows(self) -> dict[str, Sequence[Record]]:
        quarter = self.series // 4
        return {
            split: [self._window(split, i, number) for i in range(count)]
            for number, (split, count) in enumerate(zip(SPLITS, (self.series, quarter, quarter), strict=True))
        }

    def predict_windows(self) -> Sequence[Record]:
        """The first eight test windows."""
        return self._windows["test"][:8]

    def expected(self, window: Record, knows_goal: bool = False) -> np.ndarray:
        """The mean of the horizon's values, (H,), given phase and text, and the drift as well where the goal is known.

        Without the goal it is the median, too, so no forecast has a smaller absolute error.
        """
        path, drift = self._truth[window.series]
        return path + drift * np.arange(1, len(path) + 1) / len(path) if knows_goal else path

    def _window(self, split: str, index: int, number: int) -> Record:
        generator = np.random.default_rng([self.seed, number, index])
        context, horizon = self.window["context"], self.window["horizon"]
        step = np.arange(context + horizon)
        swing = list(TEXTS)[generator.integers(len(TEXTS))]
        wave = np.sin(2 * np.pi * (step / PERIOD + generator.random()))
        clean = LEVEL + np.where(step < context, SWING, swing) * wave
        drift = generator.uniform(-DRIFT, DRIFT)
        name = f"{split} {index}"
        self._truth[name] = clean[context:], drift
        value = clean + drift * np.clip((step - context + 1) / horizon, 0, None)
        value = value + self.noise * generator.standard_normal(len(step))
        text: list[str | None] = [None] * len(step)
        text[context - 1 - generator.integers(min(LAST_SAID, context))] = str(generator.choice(TEXTS[swing]))
        goal_step = self.window["goal_step"]
        return Record(name, step.astype(float), value[:, None], text, goal_start=context - 1, goal_step=goal_step)
