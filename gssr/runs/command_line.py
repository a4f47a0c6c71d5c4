"""The command line of train.py: LightningCLI with run folders, default configs, and `--ckpt_path last | best`."""

from __future__ import annotations

import re
import signal
import sys
from argparse import ArgumentError, RawDescriptionHelpFormatter
from typing import Any

import torch
import yaml
from jsonargparse import DefaultHelpFormatter, Namespace
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import OPTIONAL, Interrupted, RunCheckpoints
from callbacks.ending import check_monitor
from callbacks.quiet import quiet
from gssr.backbone.cpu import prepare_cpu
from gssr.files import disk_full
from gssr.runs import class_paths
from gssr.runs.config import read_run_config
from gssr.runs.folders import CONFIG, RunError
from gssr.runs.messages import Messages, say
from gssr.runs.options import EXAMPLES, choose, default_configs
from gssr.runs.signals import Terminated
from gssr.runs.start import Changes, Start, started_from_outside
from gssr.runs.trainer_options import check_options, missing_of, trainer_options

SECTIONS = ("seed_everything", "threads", "trainer", "model", "data", "checkpoint", *OPTIONAL)


def prepare() -> None:
    """Settings of the process, before any thread is started and any option is parsed."""
    quiet()
    prepare_cpu()


class _Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the line breaks of the examples."""


class RunCLI(LightningCLI):
    """One stage of train.py: every `fit` has its own run folder, and `--ckpt_path last | best` finds it again.

    Args:
        args: the command line without the program's name; it begins with the stage.
    """

    def __init__(self, args: list[str]) -> None:
        chosen, rest = choose(args)
        self.stage: str = chosen.stage
        self.start, self.changes = Start(chosen), Changes()
        self.messages = Messages(self.start, self.changes)
        if self.start.note:
            say(self.start.note)
        self._asks_for_help, self._trusted = chosen.asks, chosen.trust
        shown = {"formatter_class": _Help, "exit_on_error": False}
        super().__init__(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs=shown | {self.stage: shown | {"epilog": EXAMPLES}},
            args=rest,
        )

    # ------------------------------------------------------------------ options

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The stage of this call; parsers of the other stages would only take time."""
        own = {"ckpt_path", "weights_only", "return_predictions"}
        return {self.stage: LightningCLI.subcommands()[self.stage] | own}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--ckpt_path", type=str | None, help="last, best, or the path of a checkpoint")
        parser.add_argument(
            "--run", type=str | None, help="the run of last and best (default: the newest), or the name of a new run"
        )
        parser.add_argument(
            "--trust",
            type=str | None,
            help="classes of your own that the config of a resumed run may name: package.module.Class,...",
        )
        parser.add_argument(
            "--threads", type=int | None, help="CPU threads (default: one a core); another number changes the last bits"
        )
        for name, callback in OPTIONAL.items():
            summary = str(callback.__doc__).split("\n")[0]
            parser.add_argument(f"--{name}", type=callback | None, help=f"{summary} null: off")
        parser.add_lightning_class_args(RunCheckpoints, "checkpoint")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line on top of the checkpoint's own config, or of the default configs."""
        if self.start.run is not None:
            read_run_config(self.start.run)
            files = [self.start.run / CONFIG]
        else:
            files = [] if self._asks_for_help else default_configs(args)
        configs = [word for file in files for word in ("--config", str(file))]
        class_paths.allow(args if self.start.run is not None else [*args, *configs], self._trusted)
        try:
            self.config = parser.parse_args([args[0], *configs, *args[1:]])
        except ArgumentError as error:
            if (why := class_paths.refused(str(error))) is not None:
                raise RunError(why) from error
            raise RunError(f"{reason(error)}; python train.py {self.stage} --help lists all options") from error
        options = self.config[self.stage]
        if any(options.get(name) for name in ("ckpt_path", "run", "trust")):
            raise RunError("ckpt_path, run and trust belong on the command line, not into a config file")
        self.messages.trust = class_paths.not_own(yaml.safe_load(self.options_as_yaml()))
        check_options(options.as_dict())
        if self.start.run is not None:
            trains = self.stage == "fit" and self.start.checkpoint is not None
            self.changes.find(self.start.run, yaml.safe_load(self.options_as_yaml()), trains)

    def options_as_yaml(self) -> str:
        """The options of the run, without those of this call only."""
        config = self.config[self.stage]
        kept = Namespace({name: config[name] for name in SECTIONS})
        return self._subcommand_parsers[self.stage].dump(kept, skip_unset=False, skip_validation=True)

    # ------------------------------------------------------------------ model, data, trainer

    def before_instantiate_classes(self) -> None:
        threads = self.config[self.stage]["threads"]
        if threads is not None:
            torch.set_num_threads(threads)

    def instantiate_classes(self) -> None:
        """Build everything. Raises RunError with the reason only, without the parser's words around it."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            if (found := reason(error)) == str(error):
                raise
            raise RunError(found) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config[self.stage]
        given = self._get(self.config_init, "trainer")
        if self.stage == "fit":
            try:
                check_monitor(config["checkpoint"]["monitor"], self.datamodule)
            except ValueError as error:
                raise RunError(str(error)) from error
        optional = self._optional_callbacks()
        if not given.get("fast_dev_run"):
            data = config["data"]["class_path"].rsplit(".", 1)[-1].lower()
            self.start.make_folder(data, self.options_as_yaml(), started_from_outside(given.get("num_nodes")))
        kwargs |= trainer_options(
            given, optional, self.start, self.options_as_yaml(), self.changes.of_model(), self.datamodule
        )
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
            self.start.discard()
            raise RunError(f"Lightning refuses these options of the trainer: {' '.join(str(error).split())}") from error

    def _optional_callbacks(self) -> list[Callback]:
        """Callbacks of the config's sections. One that needs what the model lacks is off, and null in the config."""
        for name in OPTIONAL:
            if missing_of(name, self.model):
                self.config[self.stage][name] = self.config_init[self.stage][name] = None
        built = (self.config_init[self.stage][name] for name in OPTIONAL)
        return [callback for callback in built if callback is not None]

    # ------------------------------------------------------------------ stages

    def fit(self, **kwargs: Any) -> None:
        """Train; whatever ends it, print where the run is and how to go on."""
        self.messages.beginning()
        try:
            self.trainer.fit(**kwargs, ckpt_path=self.start.checkpoint, weights_only=True)
        except Interrupted as stop:
            self._end(f"Training {stop}.")
            # Lightning kills the first process when another one ends with an error.
            sys.exit(128 + stop.signal if self.trainer.is_global_zero else 0)
        except SystemExit as stop:
            if not isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into SystemExit
                raise
            self._end(f"Training was broken off after step {self.trainer.global_step}.")
            sys.exit(128 + (signal.SIGTERM if isinstance(stop.__context__, Terminated) else signal.SIGINT))
        except Exception as error:
            self._fail(error)
            raise
        finally:
            self.start.release()
        if self.start.continues and self.trainer.global_step == self.start.done_steps:
            say("Nothing was left to do: raise --trainer.max_epochs (or max_steps) to train longer.")
        self._end(f"Trained {self.trainer.global_step} steps{self._why_ended()}.")

    def _why_ended(self) -> str:
        """Why training ended before its last step, in words."""
        saver = next(c for c in self.trainer.callbacks if isinstance(c, RunCheckpoints))
        if not saver.ran_out:
            return ""
        return (
            f", then ended: {saver.monitored} was not better in {saver.worse} validations (raise "
            "--checkpoint.patience to train longer)"
        )

    def _fail(self, error: Exception) -> None:
        """Print how to go on after an error. Raises RunError for one that the user can mend."""
        self.messages.explain(error, self.trainer)
        if self.trainer.global_step == 0 and self.start.discard():
            again = "start it again"
        else:
            self._end(f"Training ended with an error after step {self.trainer.global_step}; it follows.")
            again = "go on as shown above"
        full = disk_full(error)
        if full is not None:
            raise RunError(f"the disk is full: {full}. Older files are intact; make room, then {again}") from error

    def _end(self, what: str) -> None:
        self.messages.end_of_training(what, self.trainer, self.model, self.datamodule)

    def validate(self, **kwargs: Any) -> None:
        self._evaluate(self.trainer.validate, **kwargs)

    def test(self, **kwargs: Any) -> None:
        self._evaluate(self.trainer.test, **kwargs)

    def predict(self, **kwargs: Any) -> None:
        self._evaluate(self.trainer.predict, return_predictions=False, **kwargs)

    def _evaluate(self, function: Any, **kwargs: Any) -> None:
        self.messages.beginning()
        folder, done = self.start.folder, False
        try:
            function(**kwargs, ckpt_path=self.start.checkpoint, weights_only=True)
            done = True
        except Exception as error:
            self.messages.explain(error, self.trainer)
            full = disk_full(error)
            if full is not None:
                raise RunError(f"the disk is full: {full}. Make room, then start it again") from error
            raise
        finally:
            if folder is not None and self.trainer.is_global_zero:
                if not any(folder.iterdir()):
                    folder.rmdir()
                elif done:
                    say(f"Results are in {folder}")


def reason(error: Exception) -> str:
    """What is wrong, without what the parser says of types that were tried in vain."""
    found = re.search(
        r"Errors:\s+- (.*?)\s+(?:- Expected a <class 'NoneType'>|Given value)", str(error), flags=re.DOTALL
    )
    if found is None:
        return str(error)
    key = re.match(r'Parser key "([\w.]+)":', str(error))
    return (f"{key[1]}: " if key else "") + " ".join(found[1].split())
