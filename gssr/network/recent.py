"""How noisy a series is of late: forecasts from earlier origins, beside the values that have arrived since.

Factors of validation do not know that the noise of a series has changed since. Where a series goes on, forecasts from
some earlier origins of it are made anew, and their `stretch` tells by how much fans are too narrow or too wide now:
its quantile, weighted by how lately each value arrived (conformal prediction with weights that fall with age: Barber
et al. 2023, "Conformal prediction beyond exchangeability", section 4), and drawn to 1. Nothing of the future is read:
a value counts where it lies at or before the origin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gssr.network.calibration import LARGEST, LEVEL, SMALLEST, stretch
from gssr.sequences.collate import collate
from gssr.sequences.context import context_length
from gssr.sequences.record import Batch, Record

if TYPE_CHECKING:
    from gssr.network.forecaster import Forecaster

# Chosen on the later halves of the validation parts of 27 series, with calibration on the earlier ones: of the rates
# whose CRPS is the smallest but for 0.2 %, the one whose fans are the nearest to 80 % on each series.
HALF_LIFE = 0.5  # horizons after which an error counts half
BEFOREHAND = 0.5  # horizons of errors that count for a factor of 1
REACH = 2.5  # horizons before the origin from which forecasts are looked at
PER_HORIZON = 8  # such forecasts
SAMPLES, CHUNK = 32, 64

# The windows of a series whose contexts end so many steps before a time, by these numbers, where it has them.
Earlier = Callable[[str, float, Sequence[int]], dict[int, Record]]


@torch.no_grad()
def recent_spread(forecaster: Forecaster, batch: Batch, earlier: Earlier) -> Tensor | None:
    """By how much fans without a goal are to be stretched, (B, Y); None where no sequence has earlier windows.

    Raises ValueError for contexts of different lengths.
    """
    first, (size, steps, width) = context_length(batch), batch.value.shape
    spacing, back = earlier_origins(steps - first)
    found = [
        earlier(series, float(batch.time[row, first - 1]), back) if int(batch.step_mask[row].sum()) == steps else {}
        for row, series in enumerate(batch.series)
    ]
    records = {(r.series, float(r.time[0])): r for of_row in found for r in of_row.values() if len(r) == steps}
    if not records:
        return None
    numbers = {key: number for number, key in enumerate(records)}
    needed = _stretches(forecaster, list(records.values()), batch.value.device)
    factor = batch.value.new_ones(size, width)
    for row, of_row in enumerate(found):
        ages = {k: numbers[r.series, float(r.time[0])] for k, r in of_row.items() if len(r) == steps}
        if ages:
            factor[row] = weighted_factor(needed[list(ages.values())], list(ages), spacing)
    return factor


def earlier_origins(horizon: int) -> tuple[int, list[int]]:
    """Steps between the earlier origins of a horizon of H steps, and the steps by which each lies before."""
    spacing = -(-horizon // PER_HORIZON)
    return spacing, list(range(spacing, max(spacing, int(REACH * horizon)) + 1, spacing))


def weighted_factor(needed: Tensor, before: Sequence[int], spacing: int) -> Tensor:
    """A factor (Y) from the stretches (N, H, Y) of forecasts that begin so many steps before the origin (N).

    Step h, from 1, of a forecast that begins k steps before has arrived where h <= k.
    """
    horizon = needed.shape[1]
    steps = torch.arange(1, horizon + 1, device=needed.device)
    age = (torch.tensor(before, device=needed.device)[:, None] - steps) / horizon
    weight = torch.where(age >= 0, 0.5 ** (age / HALF_LIFE), torch.zeros_like(age))[..., None].expand_as(needed)
    weight = torch.where(needed.isnan(), torch.zeros_like(needed), weight).flatten(0, 1)
    order = needed.flatten(0, 1).nan_to_num(nan=torch.inf).sort(dim=0)
    share = weight.gather(0, order.indices).cumsum(0)
    total = share[-1]
    at = (share < LEVEL * total).sum(0, keepdim=True).clamp(max=len(share) - 1)
    log = order.values.gather(0, at)[0].clamp(SMALLEST, LARGEST).log()
    amount = total * spacing / horizon**2  # of errors, in horizons
    return (log * amount / (amount + BEFOREHAND)).exp()


def _stretches(forecaster: Forecaster, records: Sequence[Record], device: torch.device) -> Tensor:
    """The stretch (N, H, Y) of calibrated forecasts of N windows of one length, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for start in range(0, len(records), CHUNK):
        batch = collate(records[start : start + CHUNK]).to(device)
        sample = forecaster.rollout(batch, [None] * len(batch), SAMPLES, generator).sample
        first = batch.value.shape[1] - sample.shape[2]
        found.append(stretch(sample, batch.value[:, first:], batch.value_mask[:, first:]).cpu())
    return torch.cat(found)
