"""The files that `test` and `predict` write into their folder: the report, and predictions with charts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from callbacks.drawing import drawing
from gssr import shown
from gssr.domains import CountOrNone, Items, checked
from gssr.evaluation.forecasting import Forecast
from gssr.evaluation.network import Plan
from gssr.evaluation.predictions import FILE
from gssr.evaluation.told import telling, told
from gssr.files import atomic_write, require_room
from gssr.runs.folders import RunError
from gssr.search.beliefs import goal_chances
from gssr.sequences.record import Batch
from gssr.sequences.source import SequenceSource
from gssr.understanding import Understood, plain, understand_batch


@checked
class TestReport(Callback):
    """Print the data module's report at the end of `test` and write it, with its pictures, into the folder of the test.

    Args:
        samples: Rollouts S a window.
        quick: Few windows and rollouts: a smoke test, not a result.
    """

    __test__ = False
    needs = ("rollout",)

    def __init__(self, samples: Items = 64, quick: bool = False) -> None:
        self.samples, self.quick = samples, quick

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            _require_room(Path(trainer.default_root_dir))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        data: SequenceSource | None = trainer.datamodule
        if data is None:
            rank_zero_warn("there is no report: it scores the windows of a data module, and this trainer has none")
            return
        for stage in ("fit", "test"):
            data.setup(stage)
        pl_module.encode_texts(data.texts())
        report = data.evaluate(pl_module, samples=self.samples, quick=self.quick)
        print(report.to_markdown(), flush=True)
        report.write(Path(trainer.default_root_dir))


@checked
class PredictionWriter(Callback):
    """Write the plans of `predict` as JSON Lines, with fan charts of the first windows.

    A goal whose bounds are known, or that was typed and is understood, has its chance beside it: how likely it is
    without any pull. A typed sentence that is no goal about the values changes nothing.

    The file and the charts appear at the end: a `predict` that breaks off leaves nothing that looks like a result.

    Args:
        charts: Fan charts, of the first batch at most.
        rollouts: Single rollouts of a window that are written (None: all); `samples` in the file says of how many.
        samples_in_words: Different futures of a window that are told in words.
    """

    needs = ("plan",)

    def __init__(self, charts: CountOrNone = 8, rollouts: CountOrNone = 16, samples_in_words: Items = 1) -> None:
        self.charts, self.rollouts, self.samples_in_words = charts, rollouts, samples_in_words
        self._open = ExitStack()  # the draft of the file
        self._file: IO[str] | None = None
        self._first: Forecast | None = None
        self._understood: list[Understood | None] | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = Path(trainer.default_root_dir)
        _require_room(folder)
        self._open.enter_context(telling(pl_module, self.samples_in_words))
        self._file = self._open.enter_context(atomic_write(folder / FILE))
        self._first = None

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Read what a typed goal means after each context, and drop what is no goal."""
        self._understood = None
        if getattr(trainer.datamodule, "goal", None) is None or not hasattr(pl_module, "validation"):
            return
        try:
            self._understood = understand_batch(pl_module, batch)
        except ValueError as error:
            rank_zero_warn(f"goals are not understood, so they pull: {error}")
            return
        if batch_idx == 0 and (first := self._understood[0]) is not None:
            print(shown.line(f"{shown.quoted(batch.goal[0])} is {first}"))
        for row, found in enumerate(self._understood):
            if found is not None and found.kind != "goal":
                batch.goal[row] = None

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert self._file is not None
        found = Forecast.of(pl_module, batch, *outputs)
        chances: list[Any] = [None] * len(batch)
        if hasattr(pl_module, "validation") and hasattr(pl_module, "rollout"):
            typed = self._understood
            asked = None if typed is None else [each and each.condition for each in typed]
            chances = goal_chances(pl_module, batch, conditions=asked)
            found = replace(found, chances=[each and each.plain() for each in chances])
            if typed is not None:
                modes = ["none" if goal is None else "pull" for goal in batch.goal]
                said = [each and plain(each, mode) for each, mode in zip(typed, modes, strict=True)]
                found = replace(found, understood=said)
        self._file.writelines(line + "\n" for line in found.lines(self.rollouts))
        if self._first is None:
            self._first = found
            print(shown.line(Path(trainer.default_root_dir) / FILE))
            self._show(found.with_goal or found.without_goal, batch, pl_module.value_names)
            if chances[0] is not None:
                print(f"  chance of the goal without its pull: {chances[0]}")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open.close()
        if self._first is not None:
            data: SequenceSource | None = trainer.datamodule
            subject = (0, ()) if data is None else (data.goal_dim, data.value_guides)
            with drawing("charts of predictions"):
                self._first.draw(trainer.default_root_dir, self.charts, *subject)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        with suppress(type(exception)):
            self._open.__exit__(type(exception), exception, exception.__traceback__)

    def _show(self, plan: Plan, batch: Batch, names: Sequence[str]) -> None:
        """Print the first plan, mean values and texts: so the user sees at once whether it answers the goal."""
        print(f"\n{shown.line(batch.series[0])}: {shown.line(batch.goal[0] or 'no goal')}")
        for step, values in enumerate(plan.mean[0].tolist(), start=1):
            means = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, values, strict=True))
            print(shown.line(f"  step {step}: {means}"))
        for what, texts in told(plan, 0):
            print(f"in words, {what}:")
            for step, text in enumerate(texts, start=1):
                print(shown.line(f"  step {step}: {text}"))


def _require_room(folder: Path) -> None:
    """Raises RunError where the results could not be written, before they are made."""
    try:
        require_room(folder / FILE, make_folders=True)
    except ValueError as error:
        raise RunError(str(error)) from error
