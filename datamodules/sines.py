"""Noisy sine waves whose best forecasts are known: for tests, and to see what texts and goals are for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from datamodules.sequence_data import SPLITS, SequenceData
from gssr.domains import NonNegative, Range, Steps
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Record

GOALS_FILE = Path(__file__).parent / "sine_goals.yaml"

LEVEL, SWING, PERIOD = 50.0, 10.0, 8  # of the context
DRIFT = 20.0  # the largest drift of the level over the horizon, up or down
TEXTS = {  # swing of the horizon: texts that announce it
    2.0: ("calm ahead", "the swing will die down", "it is going to be quiet", "almost no swing is coming"),
    20.0: ("storm ahead", "the swing will grow strong", "it is going to be wild", "a large swing is coming"),
}
TEXT_STEPS = 4  # the text comes at one of so many last steps of the context


Series = Annotated[int, Range(8, 10**6)]


class Sines(SequenceData):
    """Series of one window each: a wave around 50 whose swing changes at the horizon, and whose level drifts there.

    The value is a sine with a period of 8 steps and a random phase, plus noise. Its swing is 10 in the context and 2 or
    20 in the horizon; one text near the end of the context names which, and nothing else does. In the horizon the level
    drifts steadily by up to 20, up or down; only the goal names that drift: a hindsight goal about the last value. So
    forecasts without texts, with texts, and with texts and goal have three different least errors (`expected`).

    Args:
        noise: Standard deviation of the noise of every value.
        series: Training series; validation and test have a quarter as many each.

    Raises ValueError for negative noise, fewer than 8 series, a stride, and as `SequenceData` does.
    """

    value_names: tuple[str, ...] = ("value",)
    value_units: tuple[str, ...] = ("",)
    value_resolution: tuple[float, ...] = (0.0,)
    default_config = "../configs/sines.yaml"

    def __init__(
        self,
        *,
        noise: NonNegative = 1.0,
        series: Series = 1024,
        context: Steps = 16,
        **windows: Any,
    ) -> None:
        super().__init__(context=context, **windows)
        if self.window["stride"] != 1:
            raise ValueError(f"stride is {self.window['stride']}, but each series of sines is one window; leave it out")
        self.noise, self.series = noise, series
        self.goal_writer = GoalWriter.read(GOALS_FILE)
        # Of each series: the horizon without drift (H), and the drift at its end.
        self._truth: dict[str, tuple[np.ndarray, float]] = {}

    def read_windows(self) -> dict[str, Sequence[Record]]:
        sizes = {"train": self.series, "val": self.series // 4, "test": self.series // 4}
        parts = {
            part: [self._window(part, i, number) for i in range(size)]
            for number, (part, size) in enumerate(sizes.items())
        }
        return {split: [window for part in self.parts_of(split) for window in parts[part]] for split in SPLITS}

    def predict_windows(self) -> Sequence[Record]:
        """The first eight test windows."""
        return self._windows["test"][:8]

    def expected(self, window: Record, knows_goal: bool = False) -> np.ndarray:
        """The mean of the horizon's values (H) given phase and text, and with `knows_goal` given the drift as well.

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
        text[context - 1 - generator.integers(min(TEXT_STEPS, context))] = str(generator.choice(TEXTS[swing]))
        goal_step = self.window["goal_step"]
        return Record(name, step.astype(float), value[:, None], text, goal_start=context - 1, goal_step=goal_step)
