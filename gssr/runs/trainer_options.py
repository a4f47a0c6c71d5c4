"""What train.py adds to the trainer that the user configured, and the domains of options that it checks first."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from lightning import Callback, LightningDataModule, LightningModule

from callbacks import (
    OPTIONAL,
    AtomicCheckpointIO,
    BoardLog,
    ChosenOptions,
    ConfigOfResumedRun,
    CsvLog,
    HonourOptimizerOptions,
    LossBar,
    ResumePosition,
    RunCheckpoints,
    TrainingRandomness,
)
from gssr.domains import (
    Count,
    CountOrNone,
    Different,
    Fraction,
    NonNegative,
    PositiveFraction,
    Range,
    Seed,
    Threads,
    check,
    hints_of,
)
from gssr.runs.folders import CONFIG, RunError
from gssr.runs.messages import say
from gssr.runs.start import Start, started_from_outside

Endless = Annotated[int, Range(-1, 10**9)]  # -1: without an end
Part = Fraction | CountOrNone  # a share of the batches, or their number
Device = Annotated[int, Range(0, 1023)]
CALL: dict[str, Any] = {"seed_everything": bool | Seed | None, "threads": Threads | None}
# Numbers and words of the Trainer; another value ends in a traceback there, or is used and means nothing.
TRAINER: dict[str, Any] = {
    "accumulate_grad_batches": Count,
    "check_val_every_n_epoch": Count | None,
    "devices": Literal[-1] | Annotated[int, Range(1, 1024)] | Annotated[list[Device], Different()] | str,
    "fast_dev_run": bool | CountOrNone,
    "gradient_clip_algorithm": Literal["norm", "value"] | None,
    "gradient_clip_val": NonNegative | None,
    "limit_predict_batches": Part | None,
    "limit_test_batches": Part | None,
    "limit_train_batches": Part | None,
    "limit_val_batches": Part | None,
    "log_every_n_steps": CountOrNone | None,
    "max_epochs": Endless | None,
    "max_steps": Endless,
    "min_epochs": CountOrNone | None,
    "min_steps": CountOrNone | None,
    "num_nodes": Annotated[int, Range(1, 10_000)],
    "num_sanity_val_steps": Endless | None,
    "overfit_batches": Part,
    "reload_dataloaders_every_n_epochs": CountOrNone,
    "val_check_interval": PositiveFraction | Count | str | dict[str, Any] | None,
}
PRECISIONS = {"16": "16-mixed", "32": "32-true", "64": "64-true", "bf16": "bf16-mixed"}  # Lightning's short names


def check_options(options: Mapping[str, Any]) -> None:
    """Raises RunError for the first option of a call outside of its domain, before anything is built.

    Args:
        options: of the stage, as plain values.
    """
    try:
        check(CALL, options)
        check(TRAINER, options["trainer"], "trainer.")
        check(hints_of(RunCheckpoints), options["checkpoint"], "checkpoint.")
        for name in ("model", "data", *OPTIONAL):
            if options.get(name):
                module, _, short = options[name]["class_path"].rpartition(".")
                kind = getattr(import_module(module), short)
                check(hints_of(kind), options[name].get("init_args") or {}, f"{name}.")
                _check_precision(kind, options["trainer"].get("precision"))
    except ValueError as error:
        raise RunError(str(error)) from error


def _check_precision(kind: type, given: Any) -> None:
    known = getattr(kind, "precisions", None)
    if known and given is not None and PRECISIONS.get(str(given), given) not in known:
        raise ValueError(
            f"trainer.precision is {given}, but {kind.__name__} keeps its trained parts in float32; expected one of "
            f"{', '.join(known)}"
        )


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
        if start.stage == "fit":
            own.append(ChosenOptions(start.folder / CONFIG))
    if start.found is not None and start.stage == "fit":
        own.append(HonourOptimizerOptions(model_changed))
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
