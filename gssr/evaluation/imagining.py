"""Rollouts of many windows at once, and goals borrowed from other series: what the reports score."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from gssr.evaluation.network import ForecastNetwork
from gssr.sequences.record import Batch, Record


@dataclass
class Ensemble:
    """Rollouts on the CPU: `mean` without and `sample` with value noise, both (S, B, H, Y) float32 in data units."""

    mean: Tensor
    sample: Tensor

    def select(self, indices: Sequence[int] | Tensor) -> Ensemble:
        """The rollouts of some sequences, in that order."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        return Ensemble(self.mean[:, index], self.sample[:, index])


def seed_of(seed: int, *parts: str | int) -> int:
    """A seed for one purpose: a 63-bit hash of the run's seed and the purpose's name."""
    words = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in parts]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> 1)


def recent_spread(network: ForecastNetwork, batch: Batch, data: object) -> Tensor | None:
    """By how much fans without a goal are to be stretched (B, Y), as forecasts from earlier origins of the same series
    fell; None where network or data know nothing of them."""
    forecaster = getattr(network, "forecaster", None)
    if not hasattr(forecaster, "recent"):
        return None
    with evaluating(network, 0):
        found = forecaster.recent(move_data_to_device(batch, network.device), data)
    return None if found is None else found.cpu()


@contextmanager
def evaluating(network: ForecastNetwork, seed: int) -> Iterator[None]:
    """Evaluation mode, no gradients and seeded global random numbers; all are restored at the end.

    It is no inference mode, because training goes on with what a network keeps meanwhile (encoded texts).
    """
    training, device = network.training, network.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(seed)
        if training:
            network.eval()
        try:
            yield
        finally:
            if training:
                network.train()


def imagine(
    network: ForecastNetwork,
    batch: Batch,
    goals: Sequence[str | None] | None,
    samples: int,
    seed: int,
    batch_size: int = 256,
    gain: float = 1.0,
    recent: Tensor | None = None,
) -> Ensemble:
    """`samples` rollouts of every sequence under `goals` (None: no goals), a few hundred sequences at a time.

    Every gain of the goals' pull is multiplied with `gain`. `recent` (B, Y): see `recent_spread`.

    Each chunk has its own generator, so the same arguments give the same numbers.

    Raises ValueError where the numbers of goals and sequences differ.
    """
    goals = [None] * len(batch) if goals is None else list(goals)
    if len(goals) != len(batch):
        raise ValueError(f"imagine was given {len(goals)} goals for {len(batch)} sequences; expected one each, or None")
    means, noisy = [], []
    with evaluating(network, seed_of(seed, "global")):
        for start in range(0, len(batch), batch_size):
            rows = range(start, min(start + batch_size, len(batch)))
            part = move_data_to_device(batch.select(list(rows)), network.device)
            generator = torch.Generator().manual_seed(seed_of(seed, start))
            more = {} if recent is None else {"recent": recent[rows.start : rows.stop].to(part.value)}
            rollouts = network.rollout(
                part, [goals[row] for row in rows], samples, generator=generator, gain=gain, **more
            )
            means.append(rollouts.mean.float().cpu())
            noisy.append(rollouts.sample.float().cpu())
    return Ensemble(torch.cat(means, dim=1), torch.cat(noisy, dim=1))


def pick_evenly(count: int, most: int) -> list[int]:
    """At most `most` of the indices 0..count-1, evenly spaced, ascending."""
    return list(range(count)) if count <= most else np.linspace(0, count - 1, most).round().astype(int).tolist()


def window_key(record: Record) -> tuple[str, float]:
    """The identity of a window: its series and the time of its first step."""
    return record.series, float(record.time[0])


def match_donors(
    recipients: Batch, donors: Batch, dimension: int, tolerance: float, seed: int = 0
) -> tuple[list[int], list[int]]:
    """For each recipient a donor whose goal it borrows, drawn uniformly among all that fit.

    A donor fits if it has a goal, is of another series, and its value in `dimension` at the last context step
    (goal_start) differs from the recipient's by at most `tolerance`. Returns the indices of the recipients that have a
    donor, and of these donors.
    """
    receives, gives = (_start_value(batch, dimension) for batch in (recipients, donors))
    series = np.asarray(donors.series)
    has_goal = np.array([goal is not None for goal in donors.goal], dtype=bool)
    generator = np.random.default_rng([seed, zlib.crc32(b"borrow")])
    kept, chosen = [], []
    for row, name in enumerate(recipients.series):
        fits = np.flatnonzero((np.abs(gives - receives[row]) <= tolerance) & (series != name) & has_goal)
        if len(fits):
            kept.append(row)
            chosen.append(int(fits[generator.integers(len(fits))]))
    return kept, chosen


def _start_value(batch: Batch, dimension: int) -> np.ndarray:
    """The value at goal_start in one dimension, (B,), NaN where not observed."""
    rows = torch.arange(len(batch), device=batch.value.device)
    value = batch.value[rows, batch.goal_start, dimension]
    return value.masked_fill(~batch.value_mask[rows, batch.goal_start, dimension], torch.nan).cpu().numpy()
