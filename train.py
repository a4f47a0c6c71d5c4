"""Train a goal network, test it, let it plan: `python train.py fit | validate | test | predict`.

Options come from configs/default.yaml (and the config of the data module that `--data` names), or from the run that `--ckpt_path`
names; what a `--config` says wins over these, and options on the command line win over all. `python train.py --help` shows examples.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import DefaultHelpFormatter, Namespace, set_parsing_settings
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.model_helpers import is_overridden

from callbacks import (
    AtomicCheckpointIO,
    BoardLog,
    ConfigOfResumedRun,
    CsvLog,
    HonourOptimizerOptions,
    Interrupted,
    LossBar,
    ResumePosition,
    RunCheckpoints,
    TrainingRandomness,
)
from callbacks.checkpoints import check_monitor
from callbacks.quiet import quiet
from gssr import ranks
from gssr.backbone.cpu import prepare_cpu
from gssr.files import atomic_write, disk_full
from gssr.network.compatibility import CheckpointMismatch
from gssr.runs.checkpoint_file import whole
from gssr.runs.config import read_run_config
from gssr.runs.folders import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    LAST,
    RUNS,
    RunError,
    checkpoint_file,
    choose,
    claim,
    find_checkpoint,
    new_folder,
    new_run,
    run_path,
    runs,
)
from gssr.runs.signals import Terminated, signals_end_with_a_word

DEFAULT_CONFIG = Path(__file__).resolve().parent / "configs" / "default.yaml"
CONFIGS_OF_DATA = {"TableSequences": "any_table", "Strikes": "strikes", "TimeMMD": "time_mmd", "Sines": "sines"}
SECTIONS = ("seed_everything", "threads", "trainer", "model", "data", "checkpoint")
# What the first process tells those that Lightning starts from it.
FOLDER_OF_FIRST, CHECKPOINT_OF_FIRST = "GSSR_RUN_FOLDER", "GSSR_CHECKPOINT"
EXAMPLES = """\
examples:
  python train.py fit                                       the main job: storms around the nano backbone
  python train.py fit --config configs/debug.yaml           everything shrunk, under a minute
  python train.py fit --trainer.max_epochs 40 --model.latent_dim 32 --data.batch_size 32
  python train.py fit --data datamodules.Strikes            other data, with its own config (configs/strikes.yaml)
  python train.py fit --ckpt_path last                      go on with the newest run (--run NAME: with that one)
  python train.py fit --ckpt_path last --trainer.max_epochs 40
  python train.py test --ckpt_path best                     the table of results, from the best checkpoint
  python train.py predict --ckpt_path best --data.goal "Become a category 3 hurricane in 48 hours"
  tensorboard --logdir runs

  python train.py fit --help                                all options of the trainer
  python train.py fit --model.help gssr.network.GoalNetwork all options of a model or data class (--data.help CLASS)
  python train.py fit --print_config                        the configuration as it would be used
"""


class _Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the line breaks of the examples."""


class RunCLI(LightningCLI):
    """LightningCLI with run folders: every `fit` has its own, and `--ckpt_path last | best` finds it again.

    Args:
        args: the command line without the program's name.
    """

    def __init__(self, args: list[str]) -> None:
        chosen, rest = choose(args)
        self.stage, self.found = chosen.stage, None
        self.run_name: str | None = chosen.run
        if chosen.ckpt_path is not None:
            # Another run may have become the newest since the first process looked.
            path = None if ranks.is_first() else os.environ.get(CHECKPOINT_OF_FIRST)
            if path is None:
                self.found = find_checkpoint(chosen.ckpt_path, chosen.run, to_train=self.stage == "fit")
            else:
                self.found = find_checkpoint(path)
        elif self.stage in ("validate", "test", "predict") and not chosen.asks:
            raise RunError(f"{self.stage} needs a trained network: add --ckpt_path best, or the path of a checkpoint")
        self.done_steps = 0
        if self.found is not None:
            self.found, self.done_steps, note = whole(self.found, self.stage == "fit")
            if note:
                _say(note)
            if self.found.checkpoint is not None:
                os.environ[CHECKPOINT_OF_FIRST] = str(self.found.checkpoint)
        self.folder: Path | None = None
        self.owned: Any = None  # what says that the run is this process's
        self.changes: dict[str, tuple[Any, Any]] = {}
        self._asks = chosen.asks
        shown = {"formatter_class": _Help, "epilog": EXAMPLES}
        super().__init__(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={"description": __doc__, **shown, **{name: dict(shown) for name in self.subcommands()}},
            args=rest,
        )

    # ------------------------------------------------------------------ options

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        own = {"ckpt_path", "weights_only", "return_predictions"}
        return {name: skip | own for name, skip in LightningCLI.subcommands().items()}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--ckpt_path", type=str | None, help="last, best, or the path of a checkpoint")
        parser.add_argument(
            "--run", type=str | None, help="the run meant by last and best (default: the newest), or a new run's name"
        )
        parser.add_argument(
            "--threads", type=int | None, help="CPU threads (default: one a core); more or less changes the last bits"
        )
        parser.add_lightning_class_args(RunCheckpoints, "checkpoint")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read the run's own config, or the default one, before everything else, so that nothing of it has to be said again."""
        if self.stage is not None and (self.found is not None and self.found.run is not None):
            read_run_config(self.found.run)
            args = [args[0], "--config", str(self.found.run / CONFIG), *args[1:]]
        elif self.stage is not None and not self._asks:
            own = config_of_data(args)
            files = [DEFAULT_CONFIG] if own is None else [DEFAULT_CONFIG, own]
            args = [args[0], *(word for file in files for word in ("--config", str(file))), *args[1:]]
        self.config = parser.parse_args(args)
        options = self.config[self.stage]
        if options.get("ckpt_path") or options.get("run"):
            raise RunError("ckpt_path and run are for the command line, not for a config file")
        self._compare()

    def _compare(self) -> None:
        """What differs from the run whose checkpoint is used; what cannot differ is refused."""
        if self.found is None or self.found.run is None:
            return
        old = _flat(read_run_config(self.found.run))
        new = _flat(yaml.safe_load(self._dump()))
        keys = sorted({key for key in {*old, *new} if old.get(key) != new.get(key)})
        self.changes = {key: (old.get(key), new.get(key)) for key in keys}
        seeds = [key for key in keys if key.split(".")[-1] in ("seed", "seed_everything")]
        if self.stage == "fit" and self.found.checkpoint is not None and seeds:
            raise RunError(
                f"{', '.join(map(self._told, seeds))}: a resumed run goes on with the random numbers of its checkpoint; leave the "
                "seed as it was, or start a new run without --ckpt_path"
            )

    def _dump(self) -> str:
        """The options as YAML, without those that belong to one call alone."""
        config = self.config[self.stage]
        kept = Namespace({name: config[name] for name in SECTIONS})
        return self._subcommand_parsers[self.stage].dump(kept, skip_unset=False, skip_validation=True)

    def _told(self, key: str) -> str:
        return f"{key.replace('.init_args', '')} {self.changes[key][0]} -> {self.changes[key][1]}"

    # ------------------------------------------------------------------ the trainer

    def before_instantiate_classes(self) -> None:
        threads = self.config[self.stage]["threads"]
        if threads is not None:
            torch.set_num_threads(threads)

    def instantiate_classes(self) -> None:
        """Build everything; what an option is refused for is told in one paragraph, without the parser's own words around it."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            found = re.search(r"Errors:\n  - (.*?)(?=\n  - |\nGiven value)", str(error), flags=re.DOTALL)
            if found is None:
                raise
            raise RunError(found[1]) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        given = self._get(self.config_init, "trainer")
        if self.stage == "fit":
            try:
                check_monitor(self.config[self.stage]["checkpoint"]["monitor"], self.datamodule)
            except ValueError as error:
                raise RunError(str(error)) from error
        own: list[Any] = [TrainingRandomness(), ResumePosition()]
        if not given.get("fast_dev_run"):
            self.folder = self._make_folder()
            kwargs["default_root_dir"] = str(self.folder)
            if given.get("logger") in (None, True):
                kwargs["logger"] = self._loggers(self.folder)
            if self._goes_on:
                own.append(ConfigOfResumedRun(self.folder / CONFIG, self._dump(), self.done_steps))
        if any(key.startswith("model.") for key in self.changes):
            own.append(HonourOptimizerOptions())
        if given.get("enable_progress_bar") is not False:
            own.append(LossBar())
        if getattr(self.datamodule, "shares_itself", False):
            kwargs["use_distributed_sampler"] = False
        if self.stage in ("test", "predict"):
            kwargs |= self._one_device(given)
        kwargs["callbacks"] = [*own, *_as_list(given.get("callbacks"))]
        kwargs["plugins"] = [AtomicCheckpointIO(), *_as_list(given.get("plugins"))]
        return super().instantiate_trainer(**kwargs)

    def _make_folder(self) -> Path:
        """A new run, the run that goes on, or a folder for the results of a checkpoint, inside its run."""
        if not ranks.is_first():
            return self._folder_of_first()
        if self.stage != "fit":
            assert self.found is not None
            folder = new_folder(self.found.run or RUNS, str(self.stage))
        elif self.found is not None and self.found.is_last:
            assert self.found.run is not None
            folder = self.found.run
            self.owned = claim(folder)
        else:
            name = None if self.found is not None else self.run_name
            if name is None and self._started_from_outside():
                raise RunError(
                    "processes that torchrun, srun or several nodes start cannot ask each other for the name of a new run; "
                    "start it with --run NAME, or go on with one by --run NAME --ckpt_path last"
                )
            data = self.config[self.stage]["data"]["class_path"].rsplit(".", 1)[-1].lower()
            folder = new_run(data, name)
            self.owned = claim(folder)  # before it has a config, and so can be found by others
            with atomic_write(folder / CONFIG) as file:
                file.write(self._dump())
        os.environ[FOLDER_OF_FIRST] = str(folder)
        return folder

    def _folder_of_first(self) -> Path:
        """The folder that the first process makes; no other one writes into it."""
        if FOLDER_OF_FIRST in os.environ:
            return Path(os.environ[FOLDER_OF_FIRST])
        if self.found is not None:
            return self.found.run or RUNS
        return RUNS if self.run_name is None else run_path(self.run_name)

    def _started_from_outside(self) -> bool:
        """Whether there are processes of this run that do not come from this one."""
        if self.config[self.stage]["trainer"].get("num_nodes", 1) not in (None, 1):
            return True
        name = "SLURM_NTASKS" if SLURMEnvironment.detect() else "WORLD_SIZE"
        return int(os.environ.get(name, "1")) > 1

    def _one_device(self, given: Namespace) -> dict[str, Any]:
        """What `test` and `predict` write comes from one process, whatever their run was trained on."""
        if self._started_from_outside():
            raise RunError(f"{self.stage} runs in one process; start it on one node, without torchrun or srun")
        devices = given.get("devices")
        if devices in (1, "1", None) or (isinstance(devices, list) and len(devices) == 1):
            return {}
        _say(f"{self.stage} runs on one device, not on {devices}; validate can use them all")
        return {"devices": devices[:1] if isinstance(devices, list) else 1, "strategy": "auto"}

    def _loggers(self, folder: Path) -> list[Any]:
        if self.stage != "fit":
            return [CsvLog(folder)]
        step = self.done_steps if self._goes_on else None
        board = BoardLog(str(folder), name="", version="", default_hp_metric=False, purge_step=step)
        return [board, CsvLog(folder, step)]

    @property
    def _is_empty(self) -> bool:
        """Whether the run has no checkpoint."""
        return self.folder is not None and not any((self.folder / CHECKPOINTS).glob("*.ckpt"))

    @property
    def _goes_on(self) -> bool:
        """Whether this is a run that was there before."""
        return self.found is not None and self.folder == self.found.run

    # ------------------------------------------------------------------ running

    def fit(self, **kwargs: Any) -> None:
        """Train; whatever ends it, say where the run is and how to go on."""
        if self.found is not None and self.found.checkpoint is None:
            _say(f"Beginning {self.found.run} anew: it was stopped before its first checkpoint" + self._list_changes())
        elif self.found is not None:
            _say(f"Going on from {self.found.checkpoint} after step {self.done_steps}" + self._list_changes())
        file = None if self.found is None else self.found.checkpoint
        try:
            self.trainer.fit(**kwargs, ckpt_path=file, weights_only=True)
        except Interrupted as stop:
            self._farewell(f"Training {stop}.")
            # Lightning kills the first process when another one ends with an error.
            sys.exit(128 + stop.signal if self.trainer.is_global_zero else 0)
        except SystemExit as stop:
            if not isinstance(stop.__context__, KeyboardInterrupt):  # Lightning's way to say so
                raise
            self._farewell(f"Training was broken off after step {self.trainer.global_step}.")
            sys.exit(128 + (signal.SIGTERM if isinstance(stop.__context__, Terminated) else signal.SIGINT))
        except Exception as error:
            self._explain(error)
            if self.owned is not None and self.trainer.global_step == 0 and not self._goes_on and self._is_empty:
                shutil.rmtree(str(self.folder), ignore_errors=True)  # not what `last` should mean from now on
                again = "start it again"
            else:
                self._farewell(f"Training ended with an error after step {self.trainer.global_step}; it follows.")
                again = "go on as said above"
            full = disk_full(error)
            if full is not None:
                raise RunError(
                    f"the disk is full: {full}. Every older file is whole; make room, then {again}"
                ) from error
            raise
        finally:
            if self.owned is not None:
                self.owned.close()
        if self._goes_on and self.trainer.global_step == self.done_steps:
            _say("Nothing was left to do: raise --trainer.max_epochs (or max_steps) to train longer.")
        self._farewell(f"Trained {self.trainer.global_step} steps.")

    def validate(self, **kwargs: Any) -> None:
        self._evaluate(self.trainer.validate, **kwargs)

    def test(self, **kwargs: Any) -> None:
        self._evaluate(self.trainer.test, **kwargs)

    def predict(self, **kwargs: Any) -> None:
        self._evaluate(self.trainer.predict, return_predictions=False, **kwargs)

    def _evaluate(self, function: Any, **kwargs: Any) -> None:
        assert self.found is not None and self.found.checkpoint is not None
        _say(f"Using {self.found.checkpoint} (step {self.done_steps})" + self._list_changes())
        try:
            function(**kwargs, ckpt_path=self.found.checkpoint, weights_only=True)
        except Exception as error:
            self._explain(error)
            raise
        if self.folder is not None and self.trainer.is_global_zero:
            if any(self.folder.iterdir()):
                _say(f"Results are in {self.folder}")
            else:
                self.folder.rmdir()

    def _list_changes(self) -> str:
        return "".join(f"\n  {self._told(key)}" for key in self.changes)

    def _explain(self, error: Exception) -> None:
        """Name the options that were changed since the checkpoint where they may be why it cannot be used."""
        if self.found is None or self.trainer.global_step > self.done_steps:
            return
        changed = f"Changed since then:{self._list_changes()}" if self.changes else "No option was changed since then."
        advice = f"{changed}\nUse it with the options that it was made with, or start a new run without --ckpt_path."
        if isinstance(error, CheckpointMismatch):
            raise RunError(f"{self.found.checkpoint} cannot be used: {error}\n{advice}") from error
        if "state_dict" in str(error):
            raise RunError(
                f"the weights of {self.found.checkpoint} do not fit this network. {advice}\n{error}"
            ) from error
        error.add_note(advice)

    def _farewell(self, what: str) -> None:
        if self.folder is None or not self.trainer.is_global_zero:
            return
        newest = next(iter(runs()), None)
        named = "" if newest == self.folder else f" --run {self.folder.name}"
        lines = [what, f"  the run               {self.folder}", f"  watch                 tensorboard --logdir {RUNS}"]
        for saver in self.trainer.callbacks:
            if isinstance(saver, RunCheckpoints) and saver.best_step:
                lines.append(f"  best                  {saver.when_best(self.trainer)}")
        anew = " (anew: nothing is saved yet)" if self._is_empty else ""
        lines.append(f"  go on                 python train.py fit --ckpt_path last{named}{anew}")
        kept = next((name for name in (BEST, LAST) if checkpoint_file(self.folder, name).exists()), None)
        for word, stage in (("test", "test"), ("plan", "predict")):
            scored = stage != "test" or getattr(self.datamodule, "train_through", "train") != "test"
            if kept is not None and scored and is_overridden(f"{stage}_step", self.model):
                lines.append(f"  {word}                  python train.py {stage} --ckpt_path {kept}{named}")
        _say("\n".join(lines))


def config_of_data(args: list[str]) -> Path | None:
    """The config of the data module that `--data` names, if it has one and no other config is given.

    The default's numbers are those of the storms: epochs and windows that would leave another data set hardly trained.
    """
    if any(arg in ("-c", "--config") or arg.startswith("--config=") for arg in args):
        return None
    named = [after for arg, after in zip(args, [*args[1:], ""], strict=True) if arg == "--data"]
    named += [arg.removeprefix("--data=") for arg in args if arg.startswith("--data=")]
    name = CONFIGS_OF_DATA.get(named[-1].rsplit(".", 1)[-1]) if named else None
    file = DEFAULT_CONFIG.parent / f"{name}.yaml"
    return file if name is not None and file.is_file() else None


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict) and tree:
        return {key: value for name, part in tree.items() for key, value in _flat(part, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): tree}


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _say(text: str) -> None:
    if ranks.is_first():
        print(text, flush=True)


def main(args: list[str] | None = None) -> RunCLI:
    quiet()
    prepare_cpu()  # before any thread is started
    set_parsing_settings(import_path_denylist=[])  # enforces the parser's own list of what no class path may name
    try:
        with signals_end_with_a_word():
            return RunCLI((sys.argv[1:] if args is None else args) or ["--help"])
    except RunError as error:
        sys.exit(f"train.py: {error}")
    except KeyboardInterrupt as stop:
        sys.exit(128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT))


if __name__ == "__main__":
    main()
