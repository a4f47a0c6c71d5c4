"""A plain GRU forecaster: from the values of the context to a Gaussian at every step of the horizon.

It has no text, no goal and no latent state. It has as many parameters as the goal network's numeric part, and it learns
from the same windows, at the same jittered levels. Its loss is the closed form of the CRPS, and the epoch with the
smallest CRPS on validation is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.quality.origins import Origins
from benchmarks.quality.scores import Forecast
from gssr.network.forecast_error import ForecastError
from gssr.network.gaussian import Gaussian
from gssr.network.heads import ValueHead
from gssr.network.layers import mlp
from gssr.network.options import Options
from gssr.network.rssm import RSSM
from gssr.sequences.context import context_length, last_observed
from gssr.sequences.record import Batch
from gssr.sequences.scaler import Scaler

EPOCHS, PATIENCE, BATCH_SIZE = 60, 8, 64
LR, WEIGHT_DECAY = 2e-3, 0.01
LEAST_STD = 0.02


class GRUForecaster(nn.Module):
    """Forecasts from the last hidden state of a GRU.

    Args:
        value_dim: Y. horizon: H. width: of the GRU and of its head.
        changes: forecast changes from the last observed value; otherwise the values themselves.
    """

    def __init__(self, value_dim: int, horizon: int, width: int, changes: bool) -> None:
        super().__init__()
        self.horizon, self.changes = horizon, changes
        self.gru = nn.GRU(2 * value_dim, width, batch_first=True)
        self.head = mlp(width, width, 2 * horizon * value_dim)

    def forward(self, value: Tensor, mask: Tensor, last: Tensor) -> Gaussian:
        """Scaled values (B, C, Y), 0 where missing, their mask, and the last observed value (B, 1, Y), to (B, H, Y)."""
        _, h = self.gru(torch.cat([value, mask.to(value.dtype)], -1))
        mean, spread = self.head(h[-1]).unflatten(-1, (self.horizon, -1)).chunk(2, -1)
        return Gaussian(mean + last if self.changes else mean, nn.functional.softplus(spread) + LEAST_STD)


def gaussian_crps(forecast: Gaussian, value: Tensor) -> Tensor:
    """CRPS of a Gaussian (Gneiting and Raftery 2007, equation 5), elementwise."""
    z = (value - forecast.mean) / forecast.std
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return forecast.std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


def parameters_of(module: nn.Module) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def numeric_parameters(options: Options, value_dim: int) -> int:
    """Parameters of the goal network's numeric part: belief, steering, value head and forecast error."""
    world = options.world
    latent_dim, hidden_dim = world.latent_dim, world.hidden_dim
    parts = (
        RSSM(value_dim, latent_dim, hidden_dim, world.posterior, world.reads_changes),
        options.steering.build(latent_dim),
        ValueHead(latent_dim, hidden_dim, torch.zeros(value_dim)),
        ForecastError(value_dim, latent_dim, hidden_dim, world.error_order),
    )
    return sum(map(parameters_of, parts))


def equal_width(value_dim: int, horizon: int, parameters: int) -> int:
    """The width at which the forecaster comes nearest to a number of parameters."""
    sizes = {w: parameters_of(GRUForecaster(value_dim, horizon, w, False)) for w in range(8, 513, 4)}
    return min(sizes, key=lambda width: abs(sizes[width] - parameters))


def train_gru(
    origins: Origins, width: int, changes: bool, seed: int, epochs: int, tick: Callable[[], Any], choose: bool = True
) -> tuple[GRUForecaster, int]:
    """The forecaster of the epoch that is best on validation, and that epoch; the last epoch without `choose`."""
    generator = torch.Generator().manual_seed(seed)
    scaler: Scaler = origins.data.scaler
    train, val = _prepared(origins.training, scaler), _prepared(origins.validation, scaler)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GRUForecaster(train[0].shape[-1], origins.horizon, width, changes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    best, kept, epoch_of_best = math.inf, model.state_dict(), 0
    size = len(train[0])
    for epoch in range(epochs):
        if origins.jittered:
            train = _prepared(origins.training_at(epoch), scaler)
        model.train()
        for rows in torch.randperm(size, generator=generator).split(BATCH_SIZE):
            loss = _loss(model, [part[rows] for part in train])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            found = _loss(model, val, origins.dimension).item()
        if found < best or not choose:
            best, epoch_of_best = found, epoch
            kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        tick()
        if epoch - epoch_of_best >= PATIENCE:
            break
    model.load_state_dict(kept)
    return model.eval(), epoch_of_best


@torch.no_grad()
def gru_forecast(model: GRUForecaster, origins: Origins, samples: int, seed: int) -> Forecast:
    """Samples of the Gaussians at the origins, in data units."""
    scaler: Scaler = origins.data.scaler
    value, mask, last, *_ = _prepared(origins.batch, scaler)
    found = model(value, mask, last)
    y, noise = origins.dimension, torch.Generator().manual_seed(seed)
    drawn = found.sample(torch.randn(samples, *found.mean.shape, generator=noise))
    return Forecast(scaler.inverse(drawn)[..., y], scaler.inverse(found.mean)[..., y])


def _prepared(batch: Batch, scaler: Scaler) -> list[Tensor]:
    """Scaled context and its mask, the last observed value, scaled horizon and its mask."""
    first = context_length(batch)
    scaled = scaler.transform(batch.value, batch.value_mask)
    last = scaler.transform(last_observed(batch, first, scaler.mean))
    mask = batch.value_mask
    return [scaled[:, :first], mask[:, :first], last, scaled[:, first:], mask[:, first:]]


def _loss(model: GRUForecaster, parts: list[Tensor], dimension: int | None = None) -> Tensor:
    """Mean CRPS over observed values in standard units, of all dimensions or of one."""
    value, mask, last, target, seen = parts
    each = gaussian_crps(model(value, mask, last), target)
    if dimension is not None:
        each, seen = each[..., dimension], seen[..., dimension]
    return torch.where(seen, each, 0.0).sum() / seen.sum().clamp(min=1)
