"""What train.py prints: how a stage begins and ends, and why a checkpoint cannot be used."""

from __future__ import annotations

from typing import Any

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from callbacks import RunCheckpoints
from gssr import ranks, shown
from gssr.network.compatibility import CheckpointMismatch
from gssr.runs.folders import BEST, LAST, RUNS, RunError, checkpoint_file, run_argument, runs
from gssr.runs.start import Changes, Start


def say(text: str) -> None:
    """Print from the first process only."""
    if ranks.is_first():
        print(shown.lines(text), flush=True)


class Messages:
    """Messages of one call of train.py.

    Args:
        start: where the call starts from and writes to.
        changes: options that differ from the checkpoint's run.
    """

    def __init__(self, start: Start, changes: Changes) -> None:
        self.start, self.changes = start, changes
        self.trust: list[str] = []  # classes of the user's own in the options, which a resumed run may only name so

    def beginning(self) -> None:
        """Name the checkpoint and the changed options."""
        found, changed = self.start.found, self.changes.listed()
        if found is None:
            return
        if found.checkpoint is None:
            say(f"Beginning {found.run} anew: it was stopped before its first checkpoint{changed}")
        elif self.start.stage == "fit":
            say(f"Going on from {found.checkpoint} after step {self.start.done_steps}{changed}")
        else:
            say(f"Using {found.checkpoint} (step {self.start.done_steps}){changed}")

    def end_of_training(self, what: str, trainer: Trainer, model: LightningModule, data: LightningDataModule) -> None:
        """Print what happened, and the commands that go on from here."""
        folder = self.start.folder
        if folder is None or not trainer.is_global_zero:
            return
        newest = next(iter(runs()), None)
        named = "" if newest == folder else f" --run {run_argument(folder)}"
        named += f" --trust {shown.argument(','.join(self.trust))}" if self.trust else ""
        logs = RUNS if folder.parent == RUNS else shown.argument(folder)
        lines = [what, f"  the run               {folder}", f"  watch                 tensorboard --logdir {logs}"]
        for saver in trainer.callbacks:
            if isinstance(saver, RunCheckpoints) and saver.best_step is not None:
                lines.append(f"  best                  {saver.when_best(trainer)}")
        anew = " (anew: nothing is saved yet)" if self.start.is_empty else ""
        lines.append(f"  go on                 python train.py fit --ckpt_path last{named}{anew}")
        kept = next((name for name in (BEST, LAST) if checkpoint_file(folder, name).exists()), None)
        for word, stage in (("test", "test"), ("plan", "predict")):
            scored = stage != "test" or getattr(data, "train_through", "train") != "test"
            if kept is not None and scored and is_overridden(f"{stage}_step", model):
                lines.append(f"  {word}                  python train.py {stage} --ckpt_path {kept}{named}")
        say("\n".join(lines))

    def explain(self, error: Exception, trainer: Trainer) -> None:
        """Name the changed options where they may be why the checkpoint cannot be used. Raises RunError if they are."""
        if self.start.found is None or trainer.global_step > self.start.done_steps:
            return
        changed = self.changes.listed()
        changed = f"Changed since then:{changed}" if changed else "No option was changed since then."
        advice = f"{changed}\nUse it with the options that it was made with, or start a new run without --ckpt_path."
        checkpoint: Any = self.start.checkpoint
        if isinstance(error, CheckpointMismatch):
            raise RunError(f"{checkpoint} cannot be used: {error}\n{advice}") from error
        if "state_dict" in str(error):
            raise RunError(f"the weights of {checkpoint} do not fit this network. {advice}\n{error}") from error
        error.add_note(advice)
