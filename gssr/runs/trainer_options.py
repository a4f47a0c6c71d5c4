"""What train.py adds to the trainer that the user configured: callbacks, loggers, one device for test and predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import Callback, LightningDataModule, LightningModule

from callbacks import (
    OPTIONAL,
    AtomicCheckpointIO,
    BoardLog,
    ConfigOfResumedRun,
    CsvLog,
    HonourOptimizerOptions,
    LossBar,
    ResumePosition,
    TrainingRandomness,
)
from gssr.runs.folders import CONFIG, RunError
from gssr.runs.messages import say
from gssr.runs.start import Start, started_from_outside


def trainer_options(
    given: Any,
    optional: list[Callback],
    start: Start,
    options: str,
    model_changed: bool,
    data: LightningDataModule,
) -> dict[str, Any]:
    """Arguments of the Trainer over those that the user gave.

    Args:
        given: the user's arguments, instantiated.
        optional: callbacks of the sections of the config.
        start: of this call; its folder, if it has one, receives logs and results.
        options: of this call, as YAML.
        model_changed: whether an option of the model differs from the checkpoint's run.
        data: the data module.

    Raises RunError for test and predict in several processes.
    """
    own: list[Any] = [TrainingRandomness(), ResumePosition()]
    arguments: dict[str, Any] = {}
    if (place := start.folder or start.run) is not None:  # a run's config must not choose it, not for a trial either
        arguments["default_root_dir"] = str(place)
    if start.folder is not None:
        if given.get("logger") in (None, True):
            arguments["logger"] = _loggers(start, start.folder)
        if start.continues:
            own.append(ConfigOfResumedRun(start.folder / CONFIG, options, start.done_steps))
    if model_changed:
        own.append(HonourOptimizerOptions())
    if given.get("enable_progress_bar") is not False:
        own.append(LossBar())
    if getattr(data, "shares_itself", False):
        arguments["use_distributed_sampler"] = False
    if start.stage in ("test", "predict"):
        arguments |= _one_device(start.stage, given)
    arguments["callbacks"] = [*own, *optional, *_as_list(given.get("callbacks"))]
    arguments["plugins"] = [AtomicCheckpointIO(), *_as_list(given.get("plugins"))]
    return arguments


def missing_of(name: str, model: LightningModule) -> list[str]:
    """The attributes that an optional callback needs and a model lacks."""
    return [need for need in getattr(OPTIONAL[name], "needs", ()) if not hasattr(model, need)]


def _loggers(start: Start, folder: Path) -> list[Any]:
    if start.stage != "fit":
        return [CsvLog(folder)]
    step = start.done_steps if start.continues else None
    board = BoardLog(str(folder), name="", version="", default_hp_metric=False, purge_step=step)
    return [board, CsvLog(folder, step)]


def _one_device(stage: str, given: Any) -> dict[str, Any]:
    """Results of `test` and `predict` come from one process, whatever the run was trained on."""
    if started_from_outside(given.get("num_nodes")):
        raise RunError(f"{stage} runs in one process; start it on one node, without torchrun or srun")
    devices = given.get("devices")
    if devices in (1, "1", None) or (isinstance(devices, list) and len(devices) == 1):
        return {}
    say(f"{stage} runs on one device, not on {devices}; validate can use them all")
    return {"devices": devices[:1] if isinstance(devices, list) else 1, "strategy": "auto"}


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
