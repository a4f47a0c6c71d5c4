"""What a network takes from a trainer: the data module, if there is one, and the batches of plain data loaders."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from gssr import ranks
from gssr.network.linear_fit import fit_each
from gssr.network.normalisation import SCALES, WindowScale, fit_usual
from gssr.sequences.collate import collate
from gssr.sequences.context import context_length
from gssr.sequences.record import Batch, Record
from gssr.sequences.scaler import Scaler
from gssr.sequences.source import SequenceSource

if TYPE_CHECKING:
    from gssr.network.module import GoalNetwork
    from gssr.network.world_model import WorldModel

MOST_WINDOWS, LEAST_WINDOWS = 1000, 200  # that a linear autoregression is fitted to: of one value, and of many
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
    if normalisation not in ("training", "auto") and data.has_goals:
        raise ValueError(
            f"model.world.normalisation {normalisation} shows values by each window's own level, but the goals of "
            "these data name levels; use normalisation training, or leave the goals out"
        )
    step = getattr(data, "step", None)  # data modules of others may not know it
    if not network.built:
        network.options.set_values(data.value_names, data.value_units, data.value_resolution, step)
        if not data.has_goals:
            choose_options(network, "objective", goal_dropout=1.0)
        fit_numbers(network, data)
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


def fit_numbers(network: GoalNetwork, data: SequenceSource) -> None:
    """Build a network in the units of the training part, with its linear autoregression."""
    scaler, season, world = deepcopy(data.scaler), getattr(data, "season_steps", None), network.options.world
    windows = None
    if world.linear_lags or world.normalisation in ("auto", "mixed"):
        windows = Fitted.of(data)
        fit_usual(windows.batch.select(range(windows.training)), scaler)
    if world.normalisation == "auto":
        kind, why = "training", "goals name levels"
        if not data.has_goals:
            kind, why = best_units(windows, scaler, world.linear_lags or LAGS, season, data.known_values)
        choose_options(network, "world", normalisation=kind)
        if ranks.is_first():
            print(f"normalisation {kind}, {UNITS[kind]}: {why}", flush=True)
    network.build()
    network.world.fit_units(scaler, data.value_resolution)
    if world.linear_lags:
        fit_linear(network.world, windows, season)


def best_units(windows: Fitted, scaler: Scaler, lags: int, season: int | None, known_values: int) -> tuple[str, str]:
    """The normalisation in which linear autoregressions forecast best, and why in words."""
    batch, training = windows
    scored = range(batch.value.shape[-1] - known_values)
    scores = {}
    for kind, scale_of in SCALES.items():
        scale, seen = scale_of(batch, scaler), batch.value_mask & batch.step_mask[..., None]
        spread = scale.spread if isinstance(scale, WindowScale) else scaler.std.expand_as(batch.value[:1, :1])
        value = scale.transform(batch.value, batch.value_mask)
        size, context = (spread / scaler.std)[..., scored], context_length(batch)
        found = fit_each(value[..., scored], seen[..., scored], size, context, training, lags, season)
        scores[kind] = sum(score for _, score in found) / len(found)
    best = min(scores, key=lambda kind: scores[kind])
    listed = ", ".join(f"{kind} {score:.3f}" for kind, score in scores.items())
    return best, f"linear forecasts are best so at rolling origins (CRPS in standard units: {listed})"


def fit_linear(world: WorldModel, windows: Fitted, season: int | None) -> None:
    """Fit the linear autoregression of a network; see LinearForecast.fit."""
    batch, training = windows
    value, seen = world.scaled_values(batch), batch.value_mask & batch.step_mask[..., None]
    world.forecast_error.fit(value, seen, context_length(batch), season, training)


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
