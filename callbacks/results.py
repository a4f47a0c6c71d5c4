"""The files that `test` and `predict` write into their folder: the report, and predictions with charts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from gssr.evaluation.forecasting import Forecast
from gssr.evaluation.network import Plan
from gssr.evaluation.predictions import FILE
from gssr.sequences.record import Batch
from gssr.sequences.source import SequenceSource


class TestReport(Callback):
    """Print the data module's report at the end of `test` and write it, with its pictures, into the folder of the test.

    Args:
        samples: Rollouts S a window.
        quick: Few windows and rollouts: a smoke test, not a result.
    """

    __test__ = False
    needs = ("rollout",)

    def __init__(self, samples: int = 64, quick: bool = False) -> None:
        self.samples, self.quick = samples, quick

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        data: SequenceSource = trainer.datamodule
        for stage in ("fit", "test"):
            data.setup(stage)
        pl_module.encode_texts(data.texts())
        report = data.evaluate(pl_module, samples=self.samples, quick=self.quick)
        print(report.to_markdown(), flush=True)
        report.write(Path(trainer.default_root_dir))


class PredictionWriter(Callback):
    """Write the plans of `predict` as JSON Lines, with fan charts of the first windows.

    Args:
        charts: Fan charts.
        rollouts: Single rollouts of a window that are written.
    """

    needs = ("plan",)

    def __init__(self, charts: int = 8, rollouts: int = 16) -> None:
        self.charts, self.rollouts = charts, rollouts
        self.folder: Path | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.folder = Path(trainer.default_root_dir)
        (self.folder / FILE).unlink(missing_ok=True)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert self.folder is not None
        data: SequenceSource = trainer.datamodule
        found = Forecast.of(pl_module, batch, *outputs)
        file = found.write(
            self.folder,
            dimension=data.goal_dim,
            charts=self.charts if batch_idx == 0 else 0,
            rollouts=self.rollouts,
            append=batch_idx > 0,
            guides=data.value_guides,
        )
        if batch_idx == 0:
            self._show(file, found.with_goal or found.without_goal, batch, pl_module.value_names)

    def _show(self, file: Path, plan: Plan, batch: Batch, names: Sequence[str]) -> None:
        """Print the first plan, mean values and texts: so the user sees at once whether it answers the goal."""
        print(f"{file}\n\n{batch.series[0]}: {batch.goal[0] or 'no goal'}")
        texts = plan.text[0] or [""] * len(plan.mean[0])
        for step, (values, text) in enumerate(zip(plan.mean[0].tolist(), texts, strict=True), start=1):
            means = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, values, strict=True))
            print(f"  step {step}: {means}" + (f"; {text}" if text else ""))
