"""Fan charts and plans in words, while the network trains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks.drawing import drawing
from gssr import shown
from gssr.domains import Count, Items, Seed, checked
from gssr.evaluation.fan_chart import fan_chart_of
from gssr.evaluation.network import Plan
from gssr.evaluation.report import digits_for
from gssr.evaluation.told import telling, told
from gssr.search.beliefs import goal_chances
from gssr.sequences.clock import count_of, unit_of
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record
from gssr.sequences.source import SequenceSource


@checked
class PlanRollouts(Callback):
    """Every few epochs, for the same validation windows: a fan chart with and without the goal, and the plan in words.

    The windows have goals that training leaves out (`SequenceSource.windows_evaluation`). They are spread evenly, each
    of another series where possible; where none has such a goal, any windows are shown without a goal. Rollouts have
    their own generator, so training is the same without this callback. What cannot be drawn ends no run: a warning says
    why, once, and nothing is drawn from then on.

    Beside a goal whose bounds are known stands how likely it is without any pull. It is a scalar, too: `chance/0`.

    Args:
        every_n_epochs: Epochs between two pictures; the last epoch always has one.
        windows: Windows that are shown.
        samples: Rollouts S of a window.
        goals: Kind of the goals: "combinations", "numbers" or "forms".
        texts: Write the plan in words, too; this takes most of the time.
        seed: Seed of the rollouts.
        samples_in_words: Different futures of a window that are told in words.
    """

    needs = ("plan",)

    def __init__(
        self,
        every_n_epochs: Count = 1,
        windows: Items = 4,
        samples: Items = 64,
        goals: Literal["combinations", "numbers", "forms"] = "combinations",
        texts: bool = True,
        seed: Seed = 0,
        samples_in_words: Items = 1,
    ) -> None:
        self.every_n_epochs, self.windows, self.samples = every_n_epochs, windows, samples
        self.goals, self.texts, self.seed = goals, texts, seed
        self.samples_in_words = samples_in_words
        self._batch: Batch | None = None
        self._quiet = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        epoch, last = trainer.current_epoch + 1, trainer.max_epochs
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not self._quiet and boards and (epoch % self.every_n_epochs == 0 or epoch == last):
            with drawing("pictures of plans"):
                self._quiet = True
                with telling(pl_module, self.samples_in_words):
                    self._show(boards, trainer, pl_module)
                self._quiet = False

    @torch.no_grad()
    def _show(self, boards: list[Any], trainer: Trainer, pl_module: LightningModule) -> None:
        data: SequenceSource | None = trainer.datamodule
        if data is None:
            raise ValueError("their windows come from a data module, and this trainer has none")
        if self._batch is None:
            self._batch = collate(spread(self._records(data), self.windows))
        batch = pl_module.transfer_batch_to_device(self._batch, pl_module.device, 0)
        texts, none = self.texts and data.has_text, [None] * len(batch)
        given = any(goal is not None for goal in batch.goal)
        steered = None
        if given:
            steered = pl_module.plan(batch, batch.goal, self.samples, texts=texts, generator=self._generator())
        free = pl_module.plan(batch, none, self.samples, texts=texts and not given, generator=self._generator())
        chances: list[Any] = [None] * len(batch)
        if given and hasattr(pl_module, "validation") and hasattr(pl_module, "rollout"):
            chances = goal_chances(pl_module, batch, seed=self.seed)
        values = (data.goal_dim, data.value_names, data.value_units)
        for i in range(len(batch)):
            likely = None if chances[i] is None else str(chances[i])
            for board in boards:
                figure = fan_chart_of(batch, i, steered, free, *values, guides=data.value_guides, chance=likely)
                board.add_figure(f"plan/{i}", figure, trainer.global_step)
                if chances[i] is not None:
                    board.add_scalar(f"chance/{i}", chances[i].probability, trainer.global_step)
                if texts:
                    board.add_text(f"plan/{i}", in_words(batch, i, steered or free, data), trainer.global_step)

    def _records(self, data: SequenceSource) -> list[Record]:
        """Windows with goals that training leaves out; any windows where there are none."""
        if data.has_goals and (found := data.windows_evaluation("val", self.goals)):
            return found
        size = len(data.val_records)
        windows = (data.val_records[i] for i in range(0, size, max(1, size // (4 * self.windows))))
        return [replace(window, goal=None, goal_low=None, goal_high=None) for window in windows]

    def _generator(self) -> torch.Generator:
        # With one noise for both plans and all epochs, differences come from the network.
        return torch.Generator().manual_seed(self.seed)


def spread(records: list[Record], count: int) -> list[Record]:
    """Up to `count` records, evenly spaced, of different series if there are enough.

    Raises ValueError for no records.
    """
    if not records:
        raise ValueError("there is no validation window")
    firsts: dict[str, Record] = {}
    for record in records:
        firsts.setdefault(record.series, record)
    pool = list(firsts.values()) if len(firsts) >= count else records
    count = min(count, len(pool))
    return [pool[(2 * i + 1) * len(pool) // (2 * count)] for i in range(count)]


def in_words(batch: Batch, index: int, plan: Plan, data: SequenceSource) -> str:
    """A plan as a Markdown table: time from now, mean and 80 % interval of every value, and words."""
    first = int(batch.context[index])
    time = batch.time[index, : int(batch.step_mask[index].sum())].cpu().numpy()
    unit, _ = unit_of(time)
    heads = [
        shown.markdown(f"{name} ({unit})" if unit else name)
        for name, unit in zip(data.value_names, data.value_units, strict=True)
    ]
    lines = [
        f"**{shown.markdown(batch.series[index])}**: {shown.markdown(batch.goal[index] or 'no goal')}",
        "",
        "| time | " + " | ".join(heads) + " | text of a typical rollout |",
    ]
    lines.append("|---" * (len(heads) + 2) + "|")
    # The smallest spread of a value decides its digits, so that no interval shows as a point.
    smallest = (plan.quantiles[index, ..., -1] - plan.quantiles[index, ..., 0]).amin(0).clamp(min=1e-9)
    digits = [digits_for(width, figures=2, least=1) for width in smallest.tolist()]
    futures = list(told(plan, index))
    for h, text in enumerate(futures[0][1] if futures else plan.text[index]):
        cells = []
        for y, d in enumerate(digits):
            low, high = plan.quantiles[index, h, y, 0], plan.quantiles[index, h, y, -1]
            cells.append(f"{plan.mean[index, h, y]:.{d}f} ({low:.{d}f} to {high:.{d}f})")
        words = shown.markdown(" ".join(text.split()))
        lines.append(f"| {count_of(time[first + h] - time[first - 1], unit)} | " + " | ".join(cells) + f" | {words} |")
    for what, texts in futures[1:]:
        lines += ["", f"**{what}**", "", *(f"1. {shown.markdown(' '.join(text.split()))}" for text in texts)]
    return "\n".join(lines)
