"""Pictures and words of what the network imagines, while it trains."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from gssr.evaluation.fan_chart import fan_chart_of
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch


class PlanRollouts(Callback):
    """Every few epochs, for the same held-out windows and goals: a fan chart with and without the goal, and the plan in words.

    Windows are validation windows with goals that training left out (`datamodule.windows_evaluation("val", ...)`), spread evenly,
    each of another series where possible. Rollouts draw from a generator of their own, so training is the same without them.

    Args:
        every_n_epochs: epochs between two pictures; the last epoch always has one.
        windows: number of windows.
        samples: rollouts S of a window.
        goals: kind of the goals: "combinations", "numbers" or "forms".
        texts: also write the plan in words, which is most of the time that this takes.
        seed: of the rollouts.
    """

    needs = ("plan",)

    def __init__(
        self,
        every_n_epochs: int = 1,
        windows: int = 4,
        samples: int = 64,
        goals: str = "combinations",
        texts: bool = True,
        seed: int = 0,
    ) -> None:
        if every_n_epochs < 1 or windows < 1 or samples < 1:
            raise ValueError(
                f"every_n_epochs {every_n_epochs}, windows {windows} and samples {samples} must be at least 1"
            )
        self.every_n_epochs, self.windows, self.samples = every_n_epochs, windows, samples
        self.goals, self.texts, self.seed = goals, texts, seed
        self._batch: Batch | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        epoch, last = trainer.current_epoch + 1, trainer.max_epochs
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if boards and (epoch % self.every_n_epochs == 0 or epoch == last):
            self._show(boards, trainer, pl_module)

    @torch.no_grad()
    def _show(self, boards: list[Any], trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule
        if self._batch is None:
            self._batch = collate(spread(self._records(data), self.windows))
        batch = pl_module.transfer_batch_to_device(self._batch, pl_module.device, 0)
        texts, none = self.texts and getattr(data, "has_text", True), [None] * len(batch)
        given = any(goal is not None for goal in batch.goal)
        steered = None
        if given:
            steered = pl_module.plan(batch, batch.goal, self.samples, texts=texts, generator=self._generator())
        free = pl_module.plan(batch, none, self.samples, texts=texts and not given, generator=self._generator())
        dimension = getattr(data, "goal_dim", 0)
        for i in range(len(batch)):
            for board in boards:
                guides = getattr(data, "value_guides", ())
                figure = fan_chart_of(
                    batch, i, steered, free, dimension, data.value_names, data.value_units, guides=guides
                )
                board.add_figure(f"plan/{i}", figure, trainer.global_step)
                if texts:
                    board.add_text(f"plan/{i}", in_words(batch, i, steered or free, data), trainer.global_step)

    def _records(self, data: Any) -> list[Any]:
        """Windows with goals that training left out; of data that has no goals, any windows."""
        if getattr(data, "has_goals", True):
            return data.windows_evaluation("val", self.goals)
        size = len(data.val_records)
        return [data.val_records[i] for i in range(0, size, max(1, size // (4 * self.windows)))]

    def _generator(self) -> torch.Generator:
        # The same noise with and without the goal, and in every epoch: what differs is the network's doing.
        return torch.Generator().manual_seed(self.seed)


def spread(records: list[Any], count: int) -> list[Any]:
    """Up to `count` records, evenly spaced, of different series as long as there are such. Raises ValueError for no records."""
    if not records:
        raise ValueError(
            "PlanRollouts found no validation window with such a goal; choose another kind of goals, or leave it out"
        )
    firsts: dict[str, Any] = {}
    for record in records:
        firsts.setdefault(record.series, record)
    pool = list(firsts.values()) if len(firsts) >= count else records
    count = min(count, len(pool))
    return [pool[(2 * i + 1) * len(pool) // (2 * count)] for i in range(count)]


def in_words(batch: Batch, index: int, plan: Any, data: Any) -> str:
    """A plan as a Markdown table: hours from now, mean and 80 % interval of every value, and the text."""
    first = int(batch.context[index])
    hours = batch.time[index] - batch.time[index, first - 1]
    heads = [
        f"{name} ({unit})" if unit else name for name, unit in zip(data.value_names, data.value_units, strict=True)
    ]
    lines = [
        f"**{batch.series[index]}**: {batch.goal[index] or 'no goal'}",
        "",
        "| hours | " + " | ".join(heads) + " | text |",
    ]
    lines.append("|---" * (len(heads) + 2) + "|")
    # Enough digits for the smallest spread of a value, at least one.
    smallest = (plan.quantiles[index, ..., -1] - plan.quantiles[index, ..., 0]).amin(0).clamp(min=1e-9)
    digits = [max(1, 1 - math.floor(math.log10(float(width)))) for width in smallest]
    for h, text in enumerate(plan.text[index]):
        cells = []
        for y, d in enumerate(digits):
            low, high = plan.quantiles[index, h, y, 0], plan.quantiles[index, h, y, -1]
            cells.append(f"{plan.mean[index, h, y]:.{d}f} ({low:.{d}f} to {high:.{d}f})")
        written = " ".join(text.split()).replace("|", "\\|")
        lines.append(f"| {float(hours[first + h]):+g} | " + " | ".join(cells) + f" | {written} |")
    return "\n".join(lines)
