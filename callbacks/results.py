"""What `test` and `predict` leave in the run's folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from datamodules.storms.datamodule import Storms
from datamodules.storms.report import evaluate_storms
from gssr.evaluation.forecast_report import evaluate_forecasts
from gssr.evaluation.predictions import FILE, write_predictions


class TestReport(Callback):
    """Print the table of results at the end of `test` and write it as Markdown and JSON.

    Storms have a report of their own; any other data has forecasts by horizon beside their baselines.

    Args:
        samples: rollouts S a window.
        quick: few windows and rollouts; a smoke test, not a result.
    """

    __test__ = False
    needs = ("rollout",)

    def __init__(self, samples: int = 64, quick: bool = False) -> None:
        self.samples, self.quick = samples, quick

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule
        if not trainer.is_global_zero or not hasattr(data, "windows_evaluation"):
            return
        for stage in ("fit", "test"):
            data.setup(stage)
        pl_module.table.add(data.texts())
        evaluate = evaluate_storms if isinstance(data, Storms) else evaluate_forecasts
        report = evaluate(pl_module, data, samples=self.samples, quick=self.quick)
        print(report.to_markdown(), flush=True)
        report.write(Path(trainer.default_root_dir))


class PredictionWriter(Callback):
    """Write what `predict` imagined as JSON Lines, with fan charts of the first windows.

    Args:
        charts: number of fan charts.
        rollouts: single rollouts of a window to write.
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
        with_goal, without_goal = outputs
        file = write_predictions(
            with_goal,
            without_goal,
            batch,
            self.folder,
            pl_module.value_names,
            pl_module.value_units,
            dimension=getattr(trainer.datamodule, "goal_dim", 0),
            charts=self.charts if batch_idx == 0 else 0,
            rollouts=self.rollouts,
            append=batch_idx > 0,
            digits=_digits(pl_module),
            guides=getattr(trainer.datamodule, "value_guides", ()),
        )
        if batch_idx == 0:
            self._show(file, with_goal or without_goal, batch, pl_module.value_names)

    def _show(self, file: Path, plan: Any, batch: Any, names: Sequence[str]) -> None:
        """The first plan, so that the terminal shows at once what was asked for: mean values, and words where there are any."""
        print(f"{file}\n\n{batch.series[0]}: {batch.goal[0] or 'no goal'}")
        texts = plan.text[0] or [""] * len(plan.mean[0])
        for step, (values, text) in enumerate(zip(plan.mean[0].tolist(), texts, strict=True), start=1):
            told = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, values, strict=True))
            print(f"  step {step}: {told}" + (f"; {text}" if text else ""))


def _digits(network: Any) -> int:
    """Digits behind the point that show a hundredth of the smallest standard deviation of a value, at least 2."""
    smallest = float(network.scaler.std.min()) if hasattr(network, "scaler") else 1.0
    return min(12, max(2, 2 - math.floor(math.log10(smallest))))
