"""What validation measures: open-loop forecasts without a goal, hits with goals, and how wide the fans must be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gssr import ranks
from gssr.network.calibration import stretch
from gssr.network.forecaster import Forecaster, Origin, Rollouts
from gssr.network.losses import goal_distance
from gssr.network.noise import WindowNoise
from gssr.network.objective import Objective
from gssr.sequences.batches import DealtBatches, steps
from gssr.sequences.collate import collate
from gssr.sequences.context import last_observed
from gssr.sequences.record import Batch, Record

SAMPLES = 16
CALIBRATING = 128  # batches, evenly picked, whose rollouts calibrate the fans
WITH_TEXTS = 192  # windows, evenly picked, one text of each is measured
DONORS = 512  # windows, evenly picked, whose goals others borrow
Key = tuple[str, int | None]  # a score, and the dimension where it is summed for each


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
        self._sums: dict[Key, tuple[float, int]] = {}  # sum, and number of items that it is over
        self._described: set[int] = set()  # dimensions that goals describe
        self._seen = 0  # windows that this process was given
        self._donors: Batch | None = None
        self._stretch: dict[bool, list[Tensor]] = {False: [], True: []}
        self._text_gain: float | None = None

    @torch.no_grad()
    def measure(self, batch: Batch, loader: object, index: int) -> None:
        """Score batch ``index`` of a loader. A window's noise depends on its number alone, so scores do not depend on
        the size of batches."""
        number = batch_number(loader, index)
        if number is None:
            return
        windows = window_numbers(loader, number, self._seen, len(batch))
        self._seen += len(batch)
        if self._donors is None:
            self._donors = donors(loader, batch)
        noise = WindowNoise(windows, 0, every=max(1, -(-window_count(loader) // WITH_TEXTS)))
        for name, (mean, count) in self.objective(batch, noise, training=False).means().items():
            self._add(name, mean, count)
        calibrates = self.part == "val" and number % max(1, batch_count(loader) // CALIBRATING) == 0
        plain = WindowNoise(windows, 1)
        origin = self.forecaster.origin(batch, SAMPLES, plain)
        rollouts = self.forecaster.rollout(batch, [None] * len(batch), SAMPLES, plain, calibrated=False, origin=origin)
        if calibrates:
            self._add_stretch(False, batch, rollouts)
        free = rollouts.mean.mean(0)
        self._add_errors(batch, free)
        self._add_hits("true", batch, free, origin, windows, calibrates)
        self._add_hits("borrowed", with_borrowed_goals(batch, self._donors), free, origin, windows, False)

    def means(self) -> dict[str, float]:
        """Means by name over everything that was measured in any process, without those of nothing. Collective.

        ``open_loop_mae``, by which checkpoints are chosen, is over the horizon and the dimensions that goals describe
        (all that are not known beforehand where there are no goals), in standard units. ``persistence_mae`` is the
        same score of persistence, which a forecast must beat.

        Raises RuntimeError for a mean that is not finite: such a network must not be kept as if it had a score.
        """
        sums: dict[Key, tuple[float, int]] = {}
        described: set[int] = set()
        for part, dimensions in ranks.gather((self._sums, self._described)):
            described |= dimensions
            for key, (total, count) in part.items():
                before = sums.get(key, (0.0, 0))
                sums[key] = (before[0] + total, before[1] + count)
        scored = described or range(len(self.value_names) - self.known_values)
        for name in ("open_loop_mae", "persistence_mae"):
            parts = [sums.pop((name, y), (0.0, 0)) for y in range(len(self.value_names))]
            sums[name, None] = tuple(sum(parts[y][i] for y in scored) for i in range(2))
        means = {name: total / n for (name, y), (total, n) in sums.items() if n and y is None}
        # It compares texts of a batch with each other, so that it is no score: it hangs on the size of batches.
        self._text_gain = means.pop("text_gain", None)
        means = {f"{self.part}/{name}": mean for name, mean in (means | self.objective.weighted(means)).items()}
        if wrong := [name for name, mean in means.items() if not math.isfinite(mean)]:
            raise RuntimeError(
                f"{', '.join(wrong[:3])} {'is' if len(wrong) == 1 else 'are'} not finite: weights or values overflow. "
                "Go on from an earlier checkpoint with a smaller learning rate, or look for extreme values in the data."
            )
        return means

    def calibrate(self) -> None:
        """Fit the fans to what was measured in all processes, and keep what beliefs tell of texts. Collective.

        Called behind ``means``.
        """
        if "text" in self.objective.lacks:
            self.forecaster.calibration.text_gain.zero_()
        elif self._text_gain is not None:
            self.forecaster.calibration.text_gain.fill_(self._text_gain)
        for goal in (False, True):
            found = [part for parts in ranks.gather(self._stretch[goal]) for part in parts]
            if found:
                self.forecaster.calibration.fit(goal, found)

    def _add(self, name: str, mean: Tensor, count: int, dimension: int | None = None) -> None:
        """Add a mean over ``count`` items (steps, tokens, errors, goals) to the mean of the part."""
        total, before = self._sums.get((name, dimension), (0.0, 0))
        self._sums[name, dimension] = (total + mean.double().item() * count, before + count)

    def _add_stretch(self, goal: bool, batch: Batch, rollouts: Rollouts) -> None:
        first = batch.value.shape[1] - rollouts.sample.shape[2]
        found = stretch(rollouts.sample, batch.value[:, first:], batch.value_mask[:, first:])
        self._stretch[goal].append(found.cpu())

    def _add_errors(self, batch: Batch, forecast: Tensor) -> None:
        """Absolute errors of the mean forecast (B, H, Y): by horizon in data units, and by dimension in standard units.

        Which dimensions are scored is known at the end of the part: a batch alone may have no goals.
        """
        first, scaler = batch.value.shape[1] - forecast.shape[1], self.objective.world.scaler
        seen, truth = batch.value_mask[:, first:], batch.value[:, first:]
        error, still = (forecast - truth).abs(), (last_observed(batch, first, scaler.mean) - truth).abs()
        self._described |= set((~torch.isnan(batch.goal_low).all(0)).nonzero().flatten().tolist())
        for y, name in enumerate(self.value_names):
            for step in range(forecast.shape[1]):
                count = int(seen[:, step, y].sum())
                if count and (y == 0 or step == forecast.shape[1] - 1):
                    self._add(f"mae_{name}_step_{step + 1:02d}", error[:, step, y][seen[:, step, y]].mean(), count)
            if count := int(seen[..., y].sum()):
                for score, missed in (("open_loop_mae", error), ("persistence_mae", still)):
                    self._add(score, (missed[..., y] / scaler.std[y])[seen[..., y]].mean(), count, y)

    def _add_hits(
        self, kind: str, batch: Batch, free: Tensor, origin: Origin, windows: Sequence[int], calibrates: bool
    ) -> None:
        """Share of goals whose mean rollout ends within the tolerance of the bounds, beside the unsteered rollouts,
        which start from the same beliefs."""
        bounds = zip(batch.goal, batch.goal_low, strict=True)
        rows = [i for i, (goal, low) in enumerate(bounds) if goal is not None and not torch.isnan(low).all()]
        if not rows:
            return
        part = batch.select(rows)
        at = part.goal_step - (batch.value.shape[1] - free.shape[1])
        index = torch.arange(len(rows), device=at.device)
        noise = WindowNoise([windows[i] for i in rows], 2 if kind == "true" else 3)
        origin = origin.select(index.new_tensor(rows), len(batch))
        rollouts = self.forecaster.rollout(part, part.goal, SAMPLES, noise, calibrated=False, origin=origin)
        if calibrates:
            self._add_stretch(True, part, rollouts)
        missed = self.miss(rollouts.mean.mean(0)[index, at], part)
        unsteered = self.miss(free[rows][index, at], part)
        self._add(f"hit_{kind}", (missed <= 1).float().mean(), len(rows))
        self._add(f"hit_unsteered_{kind}", (unsteered <= 1).float().mean(), len(rows))
        self._add(f"miss_{kind}", missed.mean(), len(rows))

    def miss(self, value: Tensor, batch: Batch) -> Tensor:
        """Distance (B,) of values (B, Y) outside the goals' bounds, in tolerances."""
        low, high = batch.goal_low / self.tolerance, batch.goal_high / self.tolerance
        return goal_distance(value / self.tolerance, low, high).sqrt()

    @property
    def tolerance(self) -> Tensor:
        """Within this distance (Y) of a number it counts as reached: two resolutions, at least 0.2 deviations."""
        std = self.objective.world.scaler.std
        return torch.maximum(2 * torch.tensor(self.resolution, device=std.device), 0.2 * std)

    @property
    def closeness(self) -> Tensor:
        """A number in a goal means values within this distance (Y): half of the tolerance, in which a mean may miss."""
        return self.tolerance / 2


def batch_number(loader: object, index: int) -> int | None:
    """The number of a loader's batch among those of all processes; None where another process measures it."""
    dealt = getattr(loader, "batch_sampler", None)
    if isinstance(dealt, DealtBatches):
        return dealt.numbers[index] if dealt.counts else None
    return index * ranks.world() + ranks.rank()


def window_numbers(loader: object, batch: int, seen: int, size: int) -> list[int]:
    """The numbers of the ``size`` windows of a batch, which differ in all processes.

    Args:
        batch: number of the batch. seen: windows that the loader gave this process before.
    """
    dealt = getattr(loader, "batch_sampler", None)
    if isinstance(dealt, DealtBatches):
        return [batch * dealt.batch_size + row for row in range(size)]
    return [(seen + row) * ranks.world() + ranks.rank() for row in range(size)]


def batch_count(loader: object) -> int:
    """How many batches the loaders of all processes have; 0 where the loader does not know."""
    dealt = getattr(loader, "batch_sampler", None)
    if isinstance(dealt, DealtBatches):
        return steps(dealt.size, dealt.batch_size)
    try:
        return len(loader) * ranks.world()
    except TypeError:  # of a stream
        return 0


def window_count(loader: object) -> int:
    """How many windows the part has; 0 where the loader does not know."""
    dealt = getattr(loader, "batch_sampler", None)
    if isinstance(dealt, DealtBatches):
        return dealt.size
    return batch_count(loader) * (getattr(loader, "batch_size", None) or 1)


def donors(loader: object, batch: Batch) -> Batch:
    """Windows of a part, evenly picked, whose goals others borrow; the batch where the loader reads a stream."""
    data = getattr(loader, "dataset", None)
    try:
        size = len(data)
        records = [data[i * size // min(size, DONORS)] for i in range(min(size, DONORS))]
    except (TypeError, NotImplementedError):
        return batch
    return collate(records).to(batch.value.device) if all(isinstance(r, Record) for r in records) else batch


def with_borrowed_goals(batch: Batch, donors: Batch) -> Batch:
    """The batch with other goals: each sequence has that of the most similar start among donors of other series.

    Starts are compared by their first value at goal_start, where it was observed. Where no other series has a goal,
    there is none.
    """
    (start, known), (given, gives) = (_starts(part) for part in (batch, donors))
    gives = gives & torch.tensor([goal is not None for goal in donors.goal], device=given.device)
    other = torch.tensor([[a != b for b in donors.series] for a in batch.series], device=given.device)
    distance = (start[:, None] - given).abs().masked_fill(~(other & known[:, None] & gives), torch.inf)
    nearest = distance.argmin(1)
    found = distance.amin(1).isfinite().tolist()
    goals = [donors.goal[j] if ok else None for j, ok in zip(nearest.tolist(), found, strict=True)]
    return batch.with_goals(goals, donors.goal_low[nearest], donors.goal_high[nearest])


def _starts(batch: Batch) -> tuple[Tensor, Tensor]:
    """The first value (B,) at goal_start, and whether it was observed."""
    rows = torch.arange(len(batch), device=batch.value.device)
    return batch.value[rows, batch.goal_start, 0], batch.value_mask[rows, batch.goal_start, 0]
