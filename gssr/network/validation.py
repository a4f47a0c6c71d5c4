"""What validation measures: open-loop forecasts without a goal, hits with goals, and how wide the fans must be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from gssr import ranks
from gssr.network.calibration import stretch
from gssr.network.forecaster import Forecaster, Rollouts
from gssr.network.losses import goal_distance
from gssr.network.objective import Objective
from gssr.sequences.batches import DealtBatches, steps
from gssr.sequences.context import last_observed
from gssr.sequences.record import Batch

SAMPLES = 16
CALIBRATING = 128  # batches, evenly picked, whose rollouts calibrate the fans


class Validation:
    """Sums scores over the batches of a part, in all processes.

    Args:
        objective, forecaster: of the network.
        value_names: Y names. resolution: Y, in data units.
    """

    def __init__(
        self, objective: Objective, forecaster: Forecaster, value_names: Sequence[str], resolution: Sequence[float]
    ) -> None:
        self.objective, self.forecaster = objective, forecaster
        self.value_names, self.resolution = value_names, list(resolution)
        self.known_values = 0  # of the last dimensions, which are known beforehand and not scored
        self.begin("val")

    def begin(self, part: str) -> None:
        """Forget what was measured, and begin a part: "val" or "test"."""
        self.part = part
        self._means: dict[str, MeanMetric] = {}
        self._stretch: dict[bool, list[Tensor]] = {False: [], True: []}

    @torch.no_grad()
    def measure(self, batch: Batch, loader: object, index: int) -> None:
        """Score batch ``index`` of a loader, with noise that depends on its number among all processes' batches."""
        number = batch_number(loader, index)
        if number is None:
            return
        generator = torch.Generator().manual_seed(1 + number)
        for name, value in self.objective(batch, generator, training=False).figures.items():
            self._add(name, value, len(batch))
        calibrates = self.part == "val" and number % max(1, batch_count(loader) // CALIBRATING) == 0
        rollouts = self.forecaster.rollout(batch, [None] * len(batch), SAMPLES, generator, calibrated=False)
        if calibrates:
            self._add_stretch(False, batch, rollouts)
        free = rollouts.mean.mean(0)
        self._add_errors(batch, free)
        self._add_hits("true", batch, free, generator, calibrates)
        self._add_hits("borrowed", with_borrowed_goals(batch), free, generator, False)

    def means(self) -> dict[str, float]:
        """Means by name over everything that was measured in any process. Collective.

        Raises RuntimeError for a mean that is not finite: such a network must not be kept as if it had a score.
        """
        # A process may have had no goal, so not all of them know the same names.
        names = dict.fromkeys(name for part in ranks.gather(list(self._means)) for name in part)
        means = {f"{self.part}/{name}": self._mean(name).compute().item() for name in names}
        if wrong := [name for name, mean in means.items() if not math.isfinite(mean)]:
            raise RuntimeError(
                f"{', '.join(wrong[:3])} {'is' if len(wrong) == 1 else 'are'} not finite: weights or values overflow. "
                "Go on from an earlier checkpoint with a smaller learning rate, or look for extreme values in the data."
            )
        return means

    def calibrate(self) -> None:
        """Fit the fans to what was measured in all processes. Collective."""
        for goal in (False, True):
            found = [part for parts in ranks.gather(self._stretch[goal]) for part in parts]
            if found:
                self.forecaster.calibration.fit(goal, found)

    def _add(self, name: str, mean: Tensor, count: int) -> None:
        """Add a mean over ``count`` items (sequences, errors, goals) to the mean of the part."""
        self._mean(name).update(mean.double().cpu(), count)

    def _mean(self, name: str) -> MeanMetric:
        if name not in self._means:
            # "disable" would ignore the counts, other strategies would drop NaN. Objects are gathered on any backend;
            # NCCL would refuse tensors on the CPU.
            metric = MeanMetric(nan_strategy=math.nan, dist_sync_fn=lambda value, group: ranks.gather(value))
            self._means[name] = metric.set_dtype(torch.float64)
        return self._means[name]

    def _add_stretch(self, goal: bool, batch: Batch, rollouts: Rollouts) -> None:
        first = batch.value.shape[1] - rollouts.sample.shape[2]
        found = stretch(rollouts.sample, batch.value[:, first:], batch.value_mask[:, first:])
        self._stretch[goal].append(found.cpu())

    def _add_errors(self, batch: Batch, forecast: Tensor) -> None:
        """Absolute errors of the mean forecast (B, H, Y).

        By horizon in data units; and ``open_loop_mae``, by which checkpoints are chosen: over the horizon and the
        dimensions that goals describe (all that are not known beforehand where there are no goals), in standard units.
        Beside it the same score of persistence, which a forecast must beat.
        """
        first = batch.value.shape[1] - forecast.shape[1]
        seen = batch.value_mask[:, first:]
        error = (forecast - batch.value[:, first:]).abs()
        for y, name in enumerate(self.value_names):
            for step in range(forecast.shape[1]):
                count = int(seen[:, step, y].sum())
                if count and (y == 0 or step == forecast.shape[1] - 1):
                    self._add(f"mae_{name}_step_{step + 1:02d}", error[:, step, y][seen[:, step, y]].mean(), count)
        described = ~torch.isnan(batch.goal_low).all(0)
        unknown = torch.arange(len(described), device=seen.device) < len(described) - self.known_values
        scored = seen & (described if described.any() else unknown)
        count = int(scored.sum())
        if count:
            scaler = self.objective.world.scaler
            self._add("open_loop_mae", (error / scaler.std)[scored].mean(), count)
            still = (last_observed(batch, first, scaler.mean) - batch.value[:, first:]).abs()
            self._add("persistence_mae", (still / scaler.std)[scored].mean(), count)

    def _add_hits(self, kind: str, batch: Batch, free: Tensor, generator: torch.Generator, calibrates: bool) -> None:
        """Share of goals whose mean rollout ends within the tolerance of the bounds, beside the unsteered rollouts."""
        bounds = zip(batch.goal, batch.goal_low, strict=True)
        rows = [i for i, (goal, low) in enumerate(bounds) if goal is not None and not torch.isnan(low).all()]
        if not rows:
            return
        part = batch.select(rows)
        at = part.goal_step - (batch.value.shape[1] - free.shape[1])
        index = torch.arange(len(rows), device=at.device)
        rollouts = self.forecaster.rollout(part, part.goal, SAMPLES, generator, calibrated=False)
        if calibrates:
            self._add_stretch(True, part, rollouts)
        missed = self.miss(rollouts.mean.mean(0)[index, at], part)
        unsteered = self.miss(free[rows][index, at], part)
        self._add(f"hit_{kind}", (missed <= 1).float().mean(), len(rows))
        self._add(f"hit_unsteered_{kind}", (unsteered <= 1).float().mean(), len(rows))
        self._add(f"miss_{kind}", missed.mean(), len(rows))

    def miss(self, value: Tensor, batch: Batch) -> Tensor:
        """Distance (B,) of values (B, Y) outside the goals' bounds, in tolerances.

        A tolerance is two resolutions, at least 0.2 standard deviations.
        """
        resolution = torch.tensor(self.resolution, device=value.device)
        tolerance = torch.maximum(2 * resolution, 0.2 * self.objective.world.scaler.std)
        return goal_distance(value / tolerance, batch.goal_low / tolerance, batch.goal_high / tolerance).sqrt()


def batch_number(loader: object, index: int) -> int | None:
    """The number of a loader's batch among those of all processes; None where another process measures it."""
    dealt = getattr(loader, "batch_sampler", None)
    if isinstance(dealt, DealtBatches):
        return dealt.numbers[index] if dealt.counts else None
    return index * ranks.world() + ranks.rank()


def batch_count(loader: object) -> int:
    """How many batches the loaders of all processes have."""
    dealt = getattr(loader, "batch_sampler", None)
    if isinstance(dealt, DealtBatches):
        return steps(dealt.size, dealt.batch_size)
    return len(loader) * ranks.world()


def with_borrowed_goals(batch: Batch) -> Batch:
    """The batch with other goals: each sequence has that of the most similar start among the other series.

    Starts are compared by their first value at goal_start. Where no other series has a goal, there is none.
    """
    rows = torch.arange(len(batch), device=batch.value.device)
    start = batch.value[rows, batch.goal_start, 0]
    distance = (start[:, None] - start).abs()
    same = torch.tensor([[a == b for b in batch.series] for a in batch.series], device=start.device)
    without = torch.tensor([goal is None for goal in batch.goal], device=start.device)
    distance = distance.masked_fill(same | without[None], torch.inf)
    nearest = distance.argmin(1)
    found = distance[rows, nearest].isfinite().tolist()
    goals = [batch.goal[j] if ok else None for j, ok in zip(nearest.tolist(), found, strict=True)]
    return batch.with_goals(goals, batch.goal_low[nearest], batch.goal_high[nearest])
