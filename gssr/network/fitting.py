"""What a network takes from a trainer: the data module, if there is one, and the batches of plain data loaders."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from gssr import ranks
from gssr.network.calendar import expected, fit_waves, level_of, scale_of
from gssr.network.linear_fit import MANY, fit_each
from gssr.network.normalisation import SCALES, WindowScale, fit_usual
from gssr.network.speaker import AUTO
from gssr.sequences.collate import collate
from gssr.sequences.context import context_length
from gssr.sequences.record import Batch, Record
from gssr.sequences.scaler import Scaler
from gssr.sequences.source import SequenceSource
from gssr.sequences.vocabulary import Vocabulary

if TYPE_CHECKING:
    from gssr.network.module import GoalNetwork
    from gssr.network.world_model import WorldModel

EVERY = "{values}:"  # the row in words of data that bring none
MOST_WINDOWS, LEAST_WINDOWS = 1000, 200  # that a linear autoregression is fitted to: of one value, and of many
CLEARLY = 0.99  # times the CRPS without the calendar, which some waves fit by chance
LAGS = 64  # by which normalisations are compared where the network has no linear part
UNITS = {
    "training": "the training part's mean and deviation",
    "window": "each context's own mean and deviation",
    "last": "each context's last value and the training part's deviation",
    "mixed": "each context's own mean and size of changes",
}


def adopt(network: GoalNetwork, data: SequenceSource | None, stage: str) -> None:
    """Set values, units and what the data lacks, as a data module has them; a trained network needs none.

    Raises ValueError where data and network do not fit, and where a network that is not trained has no data module.
    """
    if data is None:
        scaler = network.world.scaler if network.built else None
        if scaler is None or (stage == "fit" and (scaler.mean == 0).all() and (scaler.std == 1).all()):
            raise ValueError(
                "this network is not trained yet, so it takes the names and the scale of its values from a data "
                "module; give one, such as trainer.fit(network, datamodule=...), or load a trained network"
            )
        return
    normalisation = network.options.world.normalisation
    if any_words(data) and (normalisation not in ("training", "auto") or network.options.world.calendar is True):
        raise ValueError(
            f"model.world.normalisation {normalisation} and calendar {str(network.options.world.calendar).lower()} "
            "show each window in units of its own, in which a number can be told, but not what other words mean; goals "
            "of a column, of a file or with named classes need normalisation training and calendar false, or leave "
            "them out"
        )
    step = getattr(data, "step", None)  # data modules of others may not know it
    if not network.built:
        goals = getattr(data, "goal_writer", None), getattr(data, "goal_dim", 0)
        words = Vocabulary.of(data.value_names, data.value_units, *goals).json()
        network.options.set_values(data.value_names, data.value_units, data.value_resolution, step, words)
        if stage == "fit" and not data.has_goals:
            choose_options(network, "objective", goal_dropout=1.0)
        if network.options.speech.row == AUTO:
            choose_options(network, "speech", row=getattr(data, "value_row", None) or EVERY)
        fit_numbers(network, data, stage)
    elif list(data.value_names) != network.value_names:
        raise ValueError(
            f"this network was trained on the values {network.value_names}, the data has {list(data.value_names)}"
        )
    elif None not in (steps := (network.options.values.step, step)) and steps[0] != steps[1]:
        raise ValueError(
            f"this network was trained on steps of {steps[0]}, and the data has steps of {steps[1]}; give rows of that "
            "step, with an empty cell where nothing is known"
        )
    has = {"text": data.has_text, "goals": data.has_goals}
    network.objective.lacks = {kind for kind, there in has.items() if not there}
    network.validation.known_values = data.known_values


def choose_options(network: GoalNetwork, component: str, **options: Any) -> None:
    """Set options of a component of a network that is not built yet, as the data decide."""
    setattr(network.options, component, replace(getattr(network.options, component), **options))
    network.chosen.setdefault(component, {}).update(options)


def fit_numbers(network: GoalNetwork, data: SequenceSource, stage: str) -> None:
    """Build a network in its units, with its linear autoregression, and choose what is auto.

    Other stages than fit load what was fitted.
    """
    scaler, season, world = deepcopy(data.scaler), getattr(data, "season_steps", None), network.options.world
    windows, lags, auto = None, world.linear_lags or LAGS, "auto" in (world.normalisation, world.calendar)
    fitted = world.linear_lags or world.calendar or world.normalisation == "mixed"
    fitted = fitted or (network.options.speech.values and data.has_text)
    if auto or (stage == "fit" and fitted):
        windows = Fitted.of(data)
    if world.calendar == "auto" and (any_words(data) or getattr(data, "step", None) is None):
        choose_options(network, "world", calendar=False)
    if world.normalisation == "auto" and any_words(data):
        choose_options(network, "world", normalisation="training")
        say("normalisation training, since goals may say more than numbers")
    if windows is not None:
        train = windows.batch.select(range(windows.training))
        fit_usual(train, scaler)
        found = Trial(windows, lags, season, data.known_values)
        if network.options.world.normalisation == "auto":
            scores = {kind: found.score(kind, False, scaler) for kind in SCALES}
            kind = min(scores, key=lambda kind: scores[kind])
            choose_options(network, "world", normalisation=kind)
            listed = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
            say(f"normalisation {kind}, {UNITS[kind]}: linear forecasts are best so (CRPS in standard units: {listed})")
        if network.options.world.calendar:
            _fit_calendar(network, found, train, scaler)
    network.build()
    network.world.fit_units(scaler, data.value_resolution)
    if world.linear_lags and windows is not None:
        fit_linear(network.world, windows, season)


def any_words(data: SequenceSource) -> bool:
    """Whether goals may say levels by other words than numbers: given ones, and those with named classes."""
    writer = getattr(data, "goal_writer", None)
    return data.has_goals and (writer is None or bool(writer.class_bounds))


def _fit_calendar(network: GoalNetwork, trial: Trial, train: Batch, scaler: Scaler) -> None:
    """Fit the waves of a scaler, and keep them if that is what the options say, or linear forecasts are better so."""
    kind, plain = network.options.world.normalisation, deepcopy(scaler)
    named = fit_waves(train, scaler, trial.known_values)
    fit_usual(replace(train, value=train.value - expected(train, scaler)), scaler)
    if network.options.world.calendar is True:
        return
    without, with_it = trial.score(kind, False, plain), trial.score(kind, True, scaler) if named else inf
    kept = with_it < CLEARLY * without
    if not kept:
        scaler.load_state_dict(plain.state_dict())
    choose_options(network, "world", calendar=kept)
    what = f"calendar {'on' if kept else 'off'}: linear forecasts"
    if named:
        say(f"{what} have the CRPS {with_it:.3f} with the time of {' and '.join(named)}, {without:.3f} without")


class Trial(NamedTuple):
    """Linear autoregressions of windows, as they would be in some units."""

    windows: Fitted
    lags: int
    season: int | None
    known_values: int

    def score(self, kind: str, calendar: bool, scaler: Scaler) -> float:
        """Mean CRPS of linear forecasts at rolling origins, in standard units."""
        batch, training = self.windows
        width = batch.value.shape[-1] - self.known_values
        scored = range(0, width, -(-width // MANY))
        scale, seen = scale_of(kind, calendar, batch, scaler), batch.value_mask & batch.step_mask[..., None]
        spread = scale.spread if isinstance(scale, WindowScale) else scaler.std.expand_as(batch.value[:1, :1])
        value, size = scale.transform(batch.value, batch.value_mask)[..., scored], (spread / scaler.std)[..., scored]
        found = fit_each(value, seen[..., scored], size, context_length(batch), training, self.lags, self.season)
        return sum(each.score for each in found) / len(found)


def say(sentence: str) -> None:
    if ranks.is_first():
        print(sentence, flush=True)


def fit_linear(world: WorldModel, windows: Fitted, season: int | None) -> None:
    """Fit the linear autoregression of a network; see LinearForecast.fit."""
    batch, training = windows
    scale, seen = world.scale(batch), batch.value_mask & batch.step_mask[..., None]
    value = scale.transform(batch.value, batch.value_mask)
    world.forecast_error.fit(value, seen, context_length(batch), season, training, level_of(scale))


class Fitted(NamedTuple):
    """Windows that a linear autoregression is fitted to, ``training`` of them, and others that validate its choice."""

    batch: Batch
    training: int

    @classmethod
    def of(cls, data: SequenceSource) -> Fitted:
        """Some of the longest windows of a data module; none validates where validation windows are trained on."""
        width = len(data.value_names)
        picked = some(data.windows("train"), width)
        checked = some(data.windows("val"), width) if getattr(data, "train_through", "train") == "train" else []
        of_length = [window for window in checked if len(window) == len(picked[0])]
        return cls(collate([*picked, *of_length]), len(picked))


def some(windows: Sequence[Record], width: int) -> list[Record]:
    """Some of the longest windows, evenly spaced, by the time at which they start; fewer of more values."""
    most = max(LEAST_WINDOWS, MOST_WINDOWS // width)
    step = max(1, len(windows) // most)
    picked = [windows[i] for i in range(0, len(windows), step)]
    longest = max(map(len, picked))
    return sorted((window for window in picked if len(window) == longest), key=lambda w: float(w.time[0]))


def texts_of(data: SequenceSource | None) -> list[str]:
    """Texts to encode beforehand; without a data module each is encoded when it is read."""
    return [] if data is None else data.texts()


def data_of(network: GoalNetwork) -> Any:
    """The data module that a trainer predicts of; None at any other time, when batches may be of other data."""
    trainer = network._trainer
    return trainer.datamodule if trainer is not None and trainer.predicting else None


def single(loaders: Any) -> Any:
    """The one data loader, which a trainer may have been given as a list."""
    return loaders[0] if isinstance(loaders, (list, tuple)) and len(loaders) == 1 else loaders


def drop_logged(trainer: Any, names: Sequence[str]) -> None:
    """Drop what earlier training steps logged by these names and ``<name>_weighted``.

    Lightning logs the last value of a name again in each step that does not log it, and has no public way to stop that.
    """
    for name in names:
        for key in (name, f"{name}_weighted"):
            trainer._results.pop(f"training_step.{key}", None)


def require_batch(batch: Any, names: Sequence[str]) -> None:
    """Raises ValueError for what is no batch of these values."""
    if not isinstance(batch, Batch):
        raise ValueError(
            f"a data loader gave a {type(batch).__name__}; expected batches of gssr.sequences.record.Batch, as "
            "DataLoader(records, collate_fn=gssr.sequences.collate.collate) makes them"
        )
    if batch.value.shape[-1] != len(names):
        raise ValueError(
            f"a data loader gave {batch.value.shape[-1]} values a step; this network has {len(names)}: "
            f"{', '.join(names)}"
        )
