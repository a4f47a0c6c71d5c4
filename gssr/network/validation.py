"""What is measured on validation: open-loop forecasts without a goal, hits with goals, and whether the latent is used."""

import torch
from torch import Tensor

from gssr import ranks
from gssr.network.calibration import stretch
from gssr.network.objective import goal_distance, kl_terms, masked_mean
from gssr.network.persistence import last_observed
from gssr.network.rollout import Plan, Rollouts
from gssr.sequences.batches import DealtBatches, steps
from gssr.sequences.record import Batch

SAMPLES = 16
CALIBRATING = 128  # batches, evenly picked, whose rollouts say how wide the fans must be
SHOWN = ("open_loop_mae", "hit_true", "hit_borrowed")  # in the progress bar


class Validation:
    """The part of GoalNetwork that validates; a mixin over its losses and rollouts."""

    def on_validation_epoch_start(self) -> None:
        self._to_device()
        self.table.add(self.trainer.datamodule.texts())
        self._sums: dict[str, tuple[float, int]] = {}
        self._stretch: dict[bool, list[Tensor]] = {False: [], True: []}

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, index: int) -> None:
        self._measure("val", batch, self._number(self.trainer.val_dataloaders, index))

    def test_step(self, batch: Batch, index: int) -> None:
        self._measure("test", batch, self._number(self.trainer.test_dataloaders, index))

    def on_validation_epoch_end(self) -> None:
        self._log_sums()
        if getattr(self.trainer.datamodule, "train_through", "train") != "train":
            return  # errors of windows that are trained on would make fans too narrow
        for goal in (False, True):
            # Those of all processes, so that all have the same factors.
            found = [part for parts in ranks.gather(self._stretch[goal]) for part in parts]
            if found:
                self.calibration.fit(goal, found)

    def on_test_epoch_end(self) -> None:
        self._log_sums()

    def _log_sums(self) -> None:
        """Means over everything that was seen in any process. A process may have had no goal: not all know the same names."""
        parts = ranks.gather(self._sums)
        for name in dict.fromkeys(name for part in parts for name in part):
            seen = [part[name] for part in parts if name in part]
            mean = sum(total for total, _ in seen) / sum(count for _, count in seen)
            short = name.partition("/")[2]
            # The same in all processes; without sync_dist Lightning would warn that it might not be.
            self.log(name, mean, prog_bar=short in SHOWN, sync_dist=True)

    @staticmethod
    def _number(loader: object, index: int) -> int | None:
        """The number of a batch among those of all processes; None for one that another process measures."""
        dealt = getattr(loader, "batch_sampler", None)
        if isinstance(dealt, DealtBatches):
            return dealt.numbers[index] if dealt.counts else None
        return index * ranks.world() + ranks.rank()

    def _tell(self, name: str, mean: Tensor, count: int) -> None:
        """Take a mean over `count` things (sequences, errors, goals) into the mean of the epoch."""
        total, before = self._sums.get(name, (0.0, 0))
        self._sums[name] = (total + count * mean.double().item(), before + count)

    def on_predict_start(self) -> None:
        self._to_device()

    def predict_step(self, batch: Batch, index: int) -> tuple[Plan | None, Plan]:
        """Plans of a batch under its goals (None where no sequence has one) and without goals."""
        none: list[str | None] = [None] * len(batch)
        texts = "text" not in self.lacks
        steered = self.plan(batch, batch.goal, texts=texts) if any(goal is not None for goal in batch.goal) else None
        return steered, self.plan(batch, none, texts=texts)

    @torch.no_grad()
    def latent_health(self, batch: Batch) -> dict[str, Tensor | float]:
        """Whether the belief is used, the goal off: raw KL of each dimension (D,) in nats, and the mean absolute error of
        values decoded from x, in standard units, with x in place and with x permuted between sequences.
        """
        self._ready()
        generator = torch.Generator().manual_seed(0)
        filtered = self.observe(batch, self.draw(*batch.step_mask.shape, self.hparams.latent_dim, generator=generator))
        _, _, per_dim = kl_terms(filtered.posterior, filtered.prior, filtered.observed & batch.step_mask, 0.0)
        scaled = self.scale(batch).transform(batch.value, batch.value_mask)
        errors = []
        for x in (filtered.x, filtered.x.roll(1 + len(batch) // 2, 0)):
            errors.append(masked_mean((self.value_head(x).mean - scaled).abs(), batch.value_mask).item())
        return {"kl_per_dim": per_dim, "value_error": errors[0], "value_error_permuted": errors[1]}

    def _measure(self, part: str, batch: Batch, number: int | None) -> None:
        """Batch `number` of a part; its noise depends on that number alone, not on what the process measured before."""
        if number is None:
            return
        self._part = part
        generator = torch.Generator().manual_seed(1 + number)
        terms, figures = self.losses(batch, generator, training=False)
        loss = sum(self.weights[name] * term for name, term in terms.items())
        for name, value in self.figures(terms, figures, loss).items():
            self._tell(f"{part}/{name}", value, len(batch))

        rollouts = self.rollout(batch, [None] * len(batch), SAMPLES, generator, calibrated=False)
        self._keep_stretch(False, batch, rollouts, number)
        free = rollouts.mean.mean(0)
        self._log_errors(batch, free)
        self._log_hits("true", batch, batch.goal, batch.goal_low, batch.goal_high, free, generator, number)
        self._log_hits("borrowed", batch, *borrowed_goals(batch), free, generator)

    def _keep_stretch(self, goal: bool, batch: Batch, rollouts: Rollouts, number: int) -> None:
        """What the spread of a validation batch's rollouts lacked, of batches that are the same for any number of processes."""
        if self._part != "val":
            return
        loader = self.trainer.val_dataloaders
        sampler = getattr(loader, "batch_sampler", None)
        dealt = isinstance(sampler, DealtBatches)
        batches = steps(sampler.size, sampler.batch_size) if dealt else len(loader) * ranks.world()
        if number % max(1, batches // CALIBRATING) == 0:
            first = batch.value.shape[1] - rollouts.sample.shape[2]
            found = stretch(rollouts.sample, batch.value[:, first:], batch.value_mask[:, first:])
            self._stretch[goal].append(found.cpu())

    def _log_errors(self, batch: Batch, forecast: Tensor) -> None:
        """Absolute errors of the mean forecast (B, H, Y): by horizon in data units, and the score that checkpoints are chosen
        by, over the horizon and the dimensions that goals speak of (all that are not known beforehand where there are no goals), in
        standard units; beside it the same score of persistence, which a forecast must beat.
        """
        first = batch.value.shape[1] - forecast.shape[1]
        seen = batch.value_mask[:, first:]
        error = (forecast - batch.value[:, first:]).abs()
        for y, name in enumerate(self.value_names):
            for step in range(forecast.shape[1]):
                count = int(seen[:, step, y].sum())
                if count and (y == 0 or step == forecast.shape[1] - 1):
                    mean = error[:, step, y][seen[:, step, y]].mean()
                    self._tell(f"{self._part}/mae_{name}_step_{step + 1:02d}", mean, count)
        spoken = ~torch.isnan(batch.goal_low).all(0)
        open_dims = len(spoken) - self.known_values
        scored = seen & (spoken if spoken.any() else torch.arange(len(spoken), device=seen.device) < open_dims)
        count = int(scored.sum())
        if count:
            self._tell(f"{self._part}/open_loop_mae", (error / self.scaler.std)[scored].mean(), count)
            still = (last_observed(batch, first, self.scaler.mean) - batch.value[:, first:]).abs()
            self._tell(f"{self._part}/persistence_mae", (still / self.scaler.std)[scored].mean(), count)

    def _log_hits(
        self,
        kind: str,
        batch: Batch,
        goals: list[str | None],
        low: Tensor,
        high: Tensor,
        free: Tensor,
        generator: torch.Generator,
        number: int | None = None,
    ) -> None:
        """Share of goals whose mean rollout ends within the tolerance of the bounds, beside the unsteered rollouts."""
        rows = [i for i, goal in enumerate(goals) if goal is not None and not torch.isnan(low[i]).all()]
        if not rows:
            return
        part = batch.select(rows)
        first = batch.value.shape[1] - free.shape[1]
        at = part.goal_step - first
        index = torch.arange(len(rows), device=at.device)
        rollouts = self.rollout(part, [goals[i] for i in rows], SAMPLES, generator, calibrated=False)
        if number is not None:
            self._keep_stretch(True, part, rollouts, number)
        steered = rollouts.mean.mean(0)
        missed = self._miss(steered[index, at], low[rows], high[rows])
        unsteered = self._miss(free[rows][index, at], low[rows], high[rows])
        for name, value in (
            ("hit", (missed <= 1).float()),
            ("hit_unsteered", (unsteered <= 1).float()),
            ("miss", missed),
        ):
            self._tell(f"{self._part}/{name}_{kind}", value.mean(), len(rows))

    def _miss(self, value: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Distance outside the bounds (B,), in tolerances; a tolerance is two resolutions, at least 0.2 standard deviations."""
        resolution = torch.tensor(self.value_resolution, device=value.device)
        tolerance = torch.maximum(2 * resolution, 0.2 * self.scaler.std)
        return goal_distance(value / tolerance, low / tolerance, high / tolerance).sqrt()


def borrowed_goals(batch: Batch) -> tuple[list[str | None], Tensor, Tensor]:
    """For each sequence the goal of the one with the most similar first value at goal_start, of another series."""
    rows = torch.arange(len(batch), device=batch.value.device)
    start = batch.value[rows, batch.goal_start, 0]
    distance = (start[:, None] - start).abs()
    other = torch.tensor([[a == b for b in batch.series] for a in batch.series], device=start.device)
    silent = torch.tensor([goal is None for goal in batch.goal], device=start.device)
    distance = distance.masked_fill(other | silent[None], torch.inf)
    nearest = distance.argmin(1)
    found = distance[rows, nearest].isfinite().tolist()
    goals = [batch.goal[j] if ok else None for j, ok in zip(nearest.tolist(), found, strict=True)]
    return goals, batch.goal_low[nearest], batch.goal_high[nearest]
